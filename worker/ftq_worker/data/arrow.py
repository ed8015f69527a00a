"""Arrow files on disk: written row by row with a fixed schema, read through a memory map.

`datasets.map` is not used for this: its cache would lie in the host's home, and its rows cannot be
counted, stopped and reported one by one.
"""

from collections.abc import Mapping, Sequence, Sized
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from datasets import Dataset, disable_progress_bars

Indices = npt.NDArray[np.int64]

_BATCH = 1000  # rows held in memory before they are written
_BATCH_SIZE = 32 << 20  # characters or numbers in them

EXAMPLES = pa.schema(
    [
        ("file", pa.string()),
        ("line", pa.int64()),  # from 1, null where the format has no lines
        ("row", pa.int64()),  # position in the split, from 0
        ("example", pa.string()),  # Example as JSON
        ("label", pa.int64()),  # number of the label in order of first use, -1 without one
        ("key", pa.uint64()),  # equal for equal texts
        ("group", pa.uint64()),  # equal for rows that stay on one side of a split
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


class ArrowWriter:
    """Appends rows to an Arrow file; what it holds in memory is one batch."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._schema = schema
        self._file = pa.OSFile(str(path), "wb")
        self._writer = pa.ipc.new_stream(self._file, schema)
        self._rows: list[Mapping[str, object]] = []
        self._size = 0

    def append(self, row: Mapping[str, object]) -> None:
        """Add one row; its keys are the columns of the schema."""
        self._rows.append(row)
        self._size += sum(len(value) for value in row.values() if isinstance(value, Sized))
        if len(self._rows) >= _BATCH or self._size >= _BATCH_SIZE:
            self._flush()

    def _flush(self) -> None:
        if self._rows:
            batch = pa.RecordBatch.from_pylist(self._rows, schema=self._schema)
            self._writer.write_batch(batch)
            self._rows, self._size = [], 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            self._flush()
        self._writer.close()
        self._file.close()


def open_arrow(path: Path) -> Dataset:
    """Return a dataset over an Arrow file; only the rows that are looked at are in memory."""
    return Dataset.from_file(str(path))


def numbers(data: Dataset, column: str) -> Any:
    """Return a column of numbers as a numpy array of shape (rows,)."""
    return data.data.column(column).to_numpy()


def save_set(data: Dataset, rows: Indices, folder: Path) -> None:
    """Write the chosen rows as a dataset folder that `datasets.load_from_disk` reads."""
    disable_progress_bars()  # they would land in the job's log
    data.select(rows).save_to_disk(str(folder))


def as_indices(rows: Sequence[int]) -> Indices:
    """Return row numbers as an array of shape (rows,)."""
    return np.asarray(rows, dtype=np.int64)
