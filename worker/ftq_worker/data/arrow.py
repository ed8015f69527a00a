"""Arrow files on disk: written and read batch by batch, with a fixed schema.

`datasets.map` is not used for this: its cache would lie in the host's home, and its rows cannot be
counted, stopped and reported one by one.
"""

import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from datasets import Dataset, disable_progress_bars

from ftq_worker.job.progress import Progress

Indices = npt.NDArray[np.int64]

BATCH = 500  # rows that are read, tokenized, compared and written together
BATCH_SIZE = 16 << 20  # characters in them; a longer row is alone

EXAMPLES = pa.schema(
    [
        ("file", pa.string()),
        ("line", pa.int64()),  # from 1, null where the format has no lines
        ("row", pa.int64()),  # position in the split, from 0
        ("example", pa.string()),  # Example as JSON
    ]
)
_IDS = pa.list_(pa.int32())
SEQUENCES = pa.schema([("input_ids", _IDS), ("labels", _IDS), ("length", pa.int64())])
CLASSES = pa.schema([("input_ids", _IDS), ("label", pa.int64()), ("length", pa.int64())])
CHOICES = pa.schema(
    [
        ("prompt", pa.string()),
        ("chosen", pa.string()),
        ("rejected", pa.string()),
        ("length", pa.int64()),
    ]
)


def batch_of(records: Sequence[Mapping[str, Any]], schema: pa.Schema) -> pa.RecordBatch:
    """Return records as a batch."""
    return pa.RecordBatch.from_arrays(
        [_column([record[field.name] for record in records], field.type) for field in schema],
        schema=schema,
    )


def _column(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    if kind != _IDS:
        return pa.array(values, kind)
    # Half of the time that Arrow takes for lists of lists.
    ends = np.cumsum([0, *map(len, values)])
    return list_array(ends, np.fromiter(chain.from_iterable(values), np.int32, int(ends[-1])))


def list_array(ends: Indices, values: npt.NDArray[np.int32]) -> pa.Array:
    """Return lists of tokens: list i has the values from ends[i] to ends[i + 1]."""
    return pa.ListArray.from_arrays(pa.array(ends.astype(np.int32)), pa.array(values))


class ArrowWriter:
    """Appends batches of rows to a file, each as an Arrow message of its own."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._path, self._schema = path, schema
        self._file = path.open("wb")
        self._ends, self._places = [0], [0]

    def write(self, batch: pa.RecordBatch) -> None:
        """Add rows; an empty batch adds nothing."""
        if batch.num_rows:
            self._file.write(batch.serialize())
            self._ends.append(self._ends[-1] + batch.num_rows)
            self._places.append(self._file.tell())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def rows(self) -> "ArrowRows":
        """Return what was written, once the file is closed."""
        return ArrowRows(self._path, self._schema, as_indices(self._ends), self._places)


@dataclass(frozen=True)
class ArrowRows:
    """The rows of such a file; what is in memory is the batch that is looked at.

    There is no memory map: it would keep in memory every page that was ever read.
    """

    path: Path
    schema: pa.Schema
    ends: Indices  # shape (batches + 1,): batch i holds the rows ends[i] to ends[i + 1]
    places: Sequence[int]  # the same in bytes

    def __len__(self) -> int:
        return int(self.ends[-1])

    def parts(self, rows: Indices) -> Iterator[tuple[int, slice]]:
        """Yield each batch that holds some of `rows`, which ascend, and where in `rows`."""
        cuts = np.searchsorted(rows, self.ends).tolist()
        for number, (start, end) in enumerate(pairwise(cuts)):
            if start < end:
                yield number, slice(start, end)

    def take(self, number: int, rows: Indices) -> pa.RecordBatch:
        """Return rows of one batch."""
        start, end = self.places[number : number + 2]
        with self.path.open("rb") as file:
            file.seek(start)
            data = file.read(end - start)
        batch = pa.ipc.read_record_batch(pa.py_buffer(data), self.schema)
        local = rows - self.ends[number]
        return batch if len(local) == batch.num_rows else batch.take(pa.array(local))

    def row(self, row: int) -> dict[str, Any]:
        """Return the values of one row."""
        number = int(np.searchsorted(self.ends, row, side="right")) - 1
        (values,) = self.take(number, as_indices([row])).to_pylist()
        return dict(values)


def save_set(source: ArrowRows, rows: Indices, folder: Path, progress: Progress) -> None:
    """Write the chosen rows, which ascend, as a dataset folder that `load_from_disk` reads."""
    disable_progress_bars()  # they would land in the job's log
    # The library writes a set of one row, or none; all rows are then put in the place of that one.
    first = pa.Table.from_pylist([source.row(int(row)) for row in rows[:1]], source.schema)
    dataset = Dataset(first, fingerprint=secrets.token_hex(8))
    dataset.save_to_disk(str(folder), num_shards=1)
    for file in folder.glob("*.arrow"):
        with pa.OSFile(str(file), "wb") as sink:
            _write_stream(
                source, rows, pa.ipc.new_stream(sink, dataset.features.arrow_schema), progress
            )


def _write_stream(
    source: ArrowRows, rows: Indices, stream: pa.RecordBatchStreamWriter, progress: Progress
) -> None:
    few: list[pa.RecordBatch] = []  # a batch that is too small to be one in the file
    with stream as writer:
        for number, place in source.parts(rows):
            few.append(source.take(number, rows[place]))
            progress.advance(few[-1].num_rows)
            large = sum(batch.nbytes for batch in few) >= BATCH_SIZE
            many = sum(batch.num_rows for batch in few) >= BATCH // 2
            if large or many or place.stop == len(rows):
                writer.write_batch(pa.concat_batches(few))
                few = []


def as_indices(rows: Sequence[int]) -> Indices:
    """Return row numbers as an array of shape (rows,)."""
    return np.asarray(rows, dtype=np.int64)
