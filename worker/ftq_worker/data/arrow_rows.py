"""Rows from Arrow files: the stream that `datasets` writes, the file format, Feather."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pyarrow as pa

from ftq_shared.errors import Refused
from ftq_worker.data.arrow_values import ERRORS, Schema, rows_of_batch, schema_of
from ftq_worker.data.rows import Row

_FILE, _FEATHER_1 = b"ARROW1", b"FEA1"
_BATCH_ROWS = 1000  # of which values are held at a time


def arrow_schema(path: Path) -> Schema:
    """Return what a file says of its rows. Raises Refused (`bad_file`)."""
    with _refusing(path.name), open_arrow_file(path) as reader:
        return schema_of(reader.schema, path.name)


def read_arrow(path: Path, first: int, cut: bool = False) -> Iterator[Row]:
    """Yield the rows of a file. Raises Refused (`bad_file`). `cut` makes no difference."""
    with _refusing(path.name), open_arrow_file(path) as reader:
        schema_of(reader.schema, path.name)
        yield from batch_rows(reader, path.name, first)


@contextmanager
def open_arrow_file(source: Path | IO[bytes]) -> Iterator[Any]:
    """Open a file in one of the formats, memory-mapped where it lies on disk. Raises ERRORS."""
    file = (
        pa.memory_map(str(source)) if isinstance(source, Path) else pa.PythonFile(source, mode="r")
    )
    with file:
        mark = file.read(len(_FILE))
        file.seek(0)
        if mark.startswith(_FEATHER_1):
            raise ValueError("it is Feather version 1, which is not read; write version 2")
        opened = pa.ipc.open_file(file) if mark == _FILE else pa.ipc.open_stream(file)
        with opened as reader:
            yield reader


def batch_rows(reader: Any, name: str, first: int = 0) -> Iterator[Row]:
    """Yield the rows of an opened file. Raises ERRORS."""
    number = first
    for batch in _batches(reader):
        # The format is not checked when it is read: an offset of a damaged file may point anywhere.
        batch.validate(full=True)
        for at in range(0, batch.num_rows, _BATCH_ROWS):
            part = batch.slice(at, _BATCH_ROWS)
            yield from rows_of_batch(part, name, number)
            number += part.num_rows


def _batches(reader: Any) -> Iterator[pa.RecordBatch]:
    if isinstance(reader, pa.ipc.RecordBatchFileReader):
        yield from (reader.get_batch(n) for n in range(reader.num_record_batches))
    else:
        yield from reader


@contextmanager
def _refusing(name: str) -> Iterator[None]:
    try:
        yield
    except ERRORS as error:
        raise bad_arrow(name, error) from error


def bad_arrow(name: str, why: object, hint: str = "check that the file is whole") -> Refused:
    """Return the refusal of a file that cannot be read."""
    return Refused(f"{name} is no Arrow file: {why}", code="bad_file", hint=hint, file=name)
