"""Where each row of the training set came from: what prepare leaves beside the tokens.

Without it a row could be shown and not named: tokens do not say which line of which file they were.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from ftq_shared.paths import JobPaths
from ftq_shared.row_refs import RowRef
from ftq_worker.job.reports import lost

SOURCES = pa.schema(
    [
        ("file", pa.string()),
        ("row", pa.int64()),  # position in the split, from 0
        ("line", pa.int64()),  # from 1, null where the format has no lines
    ]
)


@dataclass(frozen=True)
class RowSource:
    """Where one row came from."""

    ref: RowRef
    line: int | None  # of the file, from 1


@dataclass(frozen=True)
class RowSources:
    """Where the rows of a training set came from, in the order of the set."""

    table: pa.Table

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def at(self, position: int) -> RowSource:
        """Return where the row at a position of the training set came from."""
        (found,) = self.table.slice(position, 1).to_pylist()
        return RowSource(RowRef(found["file"], found["row"]), found["line"])

    def positions(self, refs: Iterable[RowRef]) -> dict[RowRef, int | None]:
        """Return the position of each row in the training set; None for one that is not in it."""
        wanted = list(refs)
        hits = np.isin(self.table["row"].to_numpy(), [ref.row for ref in wanted])
        found = {self.at(at).ref: at for at in np.flatnonzero(hits).tolist()}
        return {ref: found.get(ref) for ref in wanted}


def save_sources(batches: Iterator[pa.RecordBatch], path: Path) -> None:
    """Write the sources of rows; the batches may have more columns than those of `SOURCES`."""
    options = pa.ipc.IpcWriteOptions(compression="zstd")  # few names, many times
    with (
        pa.OSFile(str(path), "wb") as sink,
        pa.ipc.new_stream(sink, SOURCES, options=options) as out,
    ):
        for batch in batches:
            out.write_batch(batch.select(SOURCES.names))


def load_sources(paths: JobPaths, rows: int) -> RowSources | None:
    """Return where a job's training rows came from; None where its prepare did not write it down.

    `rows` is the size of the training set. Raises FtqError (code `damaged_data`).
    """
    try:
        with pa.OSFile(str(paths.row_sources)) as file:
            table = pa.ipc.open_stream(file).read_all()
    except FileNotFoundError:
        return None
    except (OSError, pa.ArrowException) as error:
        raise lost(paths.prepared, "damaged_data", f"is damaged: rows.arrow: {error}") from error
    if table.num_rows != rows:
        what = f"is damaged: rows.arrow has {table.num_rows} rows instead of {rows}"
        raise lost(paths.prepared, "damaged_data", what)
    return RowSources(table)
