"""What parquet and Arrow files share: the columns of a schema, and rows from a batch."""

import json
import resource
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ftq_shared.errors import Refused
from ftq_shared.redaction import one_line
from ftq_worker.data.rows import ROW_MAX, TOO_LONG, Row

_PIECE_MAX = 2 << 30  # bytes of memory that a row group's page, or a batch, may take at a time
_STATM = Path("/proc/self/statm")
# Long texts that many rows share are stored once, so a table may stand for more than packed text.
_ALWAYS = 8 << 30  # bytes that any table may stand for
_RATIO = 1000
_MEMBER = 8  # bytes that a member of a list takes, whatever it is
_ROW_LEAST = 1 << 10  # bytes that a row counts for, whatever it holds
# What pyarrow raises for a file that is damaged, or was made to be.
ERRORS = (pa.ArrowException, OSError, ValueError, TypeError, OverflowError, KeyError)


@dataclass(frozen=True)
class Schema:
    """What a file says of its rows without reading one."""

    rows: int | None  # None where only reading tells
    columns: list[str]
    labels: dict[str, list[str]] = field(default_factory=dict)  # names of ClassLabel columns


def schema_of(schema: pa.Schema, name: str, rows: int | None = None) -> Schema:
    """Return the columns and label names of a file. Raises Refused (`bad_file`).

    Label names are taken from what `datasets` writes into the metadata; its other types, also those
    of versions to come, do not matter here.
    """
    columns = list(schema.names)
    twice = [column for column, count in Counter(columns).items() if count > 1]
    if twice:
        raise Refused(
            f"{name} has more than one column {twice[0]!r}",
            code="bad_file",
            hint="rename one of them and write the file again",
            file=name,
            field=twice[0],
        )
    return Schema(rows, columns, _label_names(schema.metadata or {}, columns))


def _label_names(metadata: dict[bytes, bytes], columns: list[str]) -> dict[str, list[str]]:
    try:
        features = json.loads(metadata.get(b"huggingface", b"{}"))["info"]["features"]
        kinds = {column: features.get(column) for column in columns}
        return {
            column: [str(name) for name in kind["names"]]
            for column, kind in kinds.items()
            if isinstance(kind, dict) and kind.get("_type") == "ClassLabel" and kind.get("names")
        }
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return {}  # free text of whoever wrote the file


class Meter:
    """Counts what the rows of a table take, against what a file of its size may stand for."""

    def __init__(self, name: str, file_bytes: int) -> None:
        self._name, self._most = name, max(_ALWAYS, file_bytes * _RATIO)
        self._count = 0

    def add(self, rows: int, size: int = 0) -> None:
        """Count rows and what they take. Raises Refused (`bad_file`)."""
        self._count += max(size, rows * _ROW_LEAST)
        if self._count > self._most:
            raise Refused(
                f"{self._name} stands for more than {self._most / 1e9:.1f} GB of rows, far more"
                " than a file of its size ever holds",
                code="bad_file",
                hint="look at how it was made: the same values are meant again and again; where"
                " they are right, write each row once",
                file=self._name,
            )


@contextmanager
def capped_memory(name: str) -> Iterator[None]:
    """Let a piece of a file take up to _PIECE_MAX bytes of memory. Raises Refused beyond.

    What a piece unpacks to stands in no place that could be asked first and believed.
    """
    if not _STATM.exists():  # only Linux says how much there is already
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    now = int(_STATM.read_text().split()[5]) * resource.getpagesize()
    most = min([now + _PIECE_MAX, *(limit for limit in (soft, hard) if limit >= 0)])
    resource.setrlimit(resource.RLIMIT_DATA, (most, hard))
    try:
        yield
    except MemoryError as error:
        raise Refused(
            f"{name}: a piece of it takes more than {_PIECE_MAX >> 20:,} MiB of memory",
            code="bad_file",
            hint="write it in smaller row groups or batches, with shorter rows",
            file=name,
        ) from error
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def rows_of_batch(batch: pa.RecordBatch, name: str, first: int, meter: Meter) -> Iterator[Row]:
    """Yield the rows of a batch, numbered from `first`. Raises ERRORS, and Refused by `meter`."""
    for number, (values, problem) in enumerate(_values(batch, meter), start=first):
        yield Row(name, number, None, values, problem)


def _values(batch: pa.RecordBatch, meter: Meter) -> Iterator[tuple[dict[str, Any], str]]:
    """Yield the values of each row, or what is wrong with it."""
    size = _bytes(batch.columns)
    if size <= ROW_MAX:
        meter.add(batch.num_rows, size)
        try:
            rows = _plain(batch).to_pylist()
        except (*ERRORS, RecursionError):  # one of the values; which one is looked for below
            rows = None
        if rows is not None:
            texts = [at.name for at in batch.schema if _is_binary(at.type)]
            yield from ((_decoded(values, texts), "") for values in rows)
            return
    for at in range(batch.num_rows):  # one at a time: equal texts become many
        row = batch.slice(at, 1)
        size = _bytes(row.columns)
        meter.add(1, size if size <= ROW_MAX else 0)
        yield ({}, TOO_LONG) if size > ROW_MAX else _single(row)


def _single(row: pa.RecordBatch) -> tuple[dict[str, Any], str]:
    """Return the values of a batch of one row, or which of them cannot be read."""
    values: dict[str, Any] = {}
    for column, array in zip(row.schema.names, row.columns, strict=True):
        try:
            values[column] = array[0].as_py()
        except (*ERRORS, RecursionError) as error:
            if not pa.types.is_temporal(array.type):
                return {}, f"{column} cannot be read: {one_line(error)}"
            # A date that Python has no value for, mostly in a column that nobody needs.
            values[column] = str(array[0].value)
    return _decoded(values, [at.name for at in row.schema if _is_binary(at.type)]), ""


def _is_binary(kind: pa.DataType) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    kinds = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view)
    return any(is_kind(kind) for is_kind in kinds)


def _decoded(values: dict[str, Any], texts: list[str]) -> dict[str, Any]:
    """Decode columns of bytes where they are UTF-8: several writers do not mark text as text."""
    for column in texts:
        value = values[column]
        if isinstance(value, bytes):
            try:
                values[column] = value.decode()
            except UnicodeDecodeError:
                continue  # a picture, or text that nobody can know
    return values


def _plain(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Return a batch with every text in its own place: seven times as fast to read from."""
    schema = pa.schema([field.with_type(_plain_type(field.type)) for field in batch.schema])
    return batch.cast(schema)


def _plain_type(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_dictionary(kind):
        return kind.value_type
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(_plain_type(field.type)) for field in kind])
    if pa.types.is_map(kind):
        return pa.map_(_plain_type(kind.key_type), _plain_type(kind.item_type))
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        make = pa.large_list if pa.types.is_large_list(kind) else pa.list_
        return make(kind.value_field.with_type(_plain_type(kind.value_type)))
    return kind


def _bytes(arrays: list[pa.Array]) -> int:
    """Return how many bytes the values take, once every text stands for itself."""
    return sum(map(_size, arrays))


def _size(array: pa.Array) -> int:
    kind, rows = array.type, len(array)
    if isinstance(array, pa.ExtensionArray):
        return _size(array.storage)
    if pa.types.is_dictionary(kind):
        return _repeated(array.dictionary, array.indices)
    if pa.types.is_run_end_encoded(kind):
        first, last = array.find_physical_offset(), array.find_physical_length()
        numbers = pa.array(range(first, first + last), pa.int32())
        ends = array.run_ends.slice(first, last).cast(pa.int64()).to_numpy() - array.offset
        lengths = np.diff(ends.clip(0, rows), prepend=0)
        return _repeated(array.values, numbers, lengths)
    if pa.types.is_struct(kind):
        return _bytes(array.flatten())
    if pa.types.is_map(kind):
        return _bytes([array.keys, array.items])
    if _is_list(kind):
        members = int(pc.sum(pc.list_value_length(array)).as_py() or 0)
        least = members * _MEMBER
        return least if least > ROW_MAX else max(least, _size(array.flatten()))
    if pa.types.is_union(kind):  # a value may stand for many rows, and few writers know the type
        return int(array.nbytes) * rows
    if _is_view(kind):
        views = np.frombuffer(array.buffers()[1], np.int32)  # four each, the first is the length
        return int(views[0::4][array.offset : array.offset + rows].sum(dtype=np.int64))
    return int(array.nbytes)


def _repeated(values: pa.Array, numbers: pa.Array, times: Any = None) -> int:
    """Return what values take, each as often as its number stands in `numbers`, or as `times`."""
    if _is_text(values.type):
        lengths = pc.binary_length(values).take(numbers).fill_null(0).cast(pa.int64())
        return int(np.dot(lengths, np.ones(len(lengths), int) if times is None else times))
    rows = len(numbers) if times is None else int(times.sum())
    if not pa.types.is_nested(values.type):
        return rows * int(values.nbytes) // max(1, len(values))
    chosen = numbers.drop_null().cast(pa.int64()).to_numpy()
    counted = np.bincount(chosen, weights=times)
    return sum(int(counted[at]) * _size(values.slice(at, 1)) for at in np.flatnonzero(counted))


def _is_list(kind: pa.DataType) -> bool:
    kinds = (
        *(pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list),
        *(pa.types.is_list_view, pa.types.is_large_list_view),
    )
    return any(is_kind(kind) for is_kind in kinds)


def _is_view(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string_view(kind) or pa.types.is_binary_view(kind))


def _is_text(kind: pa.DataType) -> bool:
    return _is_binary(kind) or bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))
