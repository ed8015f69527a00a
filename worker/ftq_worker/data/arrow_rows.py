"""Rows from Arrow files: the stream that `datasets` writes, the file format, Feather."""

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pyarrow as pa

from ftq_shared.errors import Refused
from ftq_shared.redaction import one_line
from ftq_worker.data.arrow_values import (
    ERRORS,
    Meter,
    Schema,
    capped_memory,
    rows_of_batch,
    schema_of,
)
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
        yield from batch_rows(reader, path.name, Meter(path.name, path.stat().st_size), first)


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


def batch_rows(reader: Any, name: str, meter: Meter, first: int = 0) -> Iterator[Row]:
    """Yield the rows of an opened file. Raises ERRORS, and Refused by `meter`."""
    number = first
    for batch in _batches(reader, name):
        for at in range(0, batch.num_rows, _BATCH_ROWS):
            part = batch.slice(at, _BATCH_ROWS)
            yield from rows_of_batch(part, name, number, meter)
            number += part.num_rows


def _batches(reader: Any, name: str) -> Iterator[pa.RecordBatch]:
    """Yield the batches, each checked: the format itself lets an offset point anywhere."""
    by_number = isinstance(reader, pa.ipc.RecordBatchFileReader)
    count = reader.num_record_batches if by_number else None
    for number in itertools.count() if count is None else range(count):
        with capped_memory(name):
            try:
                batch = reader.get_batch(number) if by_number else reader.read_next_batch()
            except StopIteration:
                return
            batch.validate(full=True)
        yield batch


@contextmanager
def _refusing(name: str) -> Iterator[None]:
    try:
        yield
    except ERRORS as error:
        raise bad_arrow(name, error) from error


def bad_arrow(name: str, why: object, hint: str = "check that the file is whole") -> Refused:
    """Return the refusal of a file that cannot be read."""
    what = f"{name} is no Arrow file: {one_line(why)}"
    return Refused(what, code="bad_file", hint=hint, file=name)
