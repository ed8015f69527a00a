"""What parquet and Arrow files share: the columns of a schema, and rows from a batch."""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ftq_shared.errors import Refused
from ftq_worker.data.rows import ROW_MAX, TOO_LONG, Row

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


def rows_of_batch(batch: pa.RecordBatch, name: str, first: int) -> Iterator[Row]:
    """Yield the rows of a batch, numbered from `first`. Raises ERRORS."""
    for number, (values, problem) in enumerate(_values(batch), start=first):
        yield Row(name, number, None, values, problem)


def _values(batch: pa.RecordBatch) -> Iterator[tuple[dict[str, Any], str]]:
    """Yield the values of each row, or what is wrong with it."""
    if _bytes(batch.columns) <= ROW_MAX:
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
        yield ({}, TOO_LONG) if _bytes(row.columns) > ROW_MAX else _single(row)


def _single(row: pa.RecordBatch) -> tuple[dict[str, Any], str]:
    """Return the values of a batch of one row, or which of them cannot be read."""
    values: dict[str, Any] = {}
    for column, array in zip(row.schema.names, row.columns, strict=True):
        try:
            values[column] = array[0].as_py()
        except (*ERRORS, RecursionError) as error:
            if not pa.types.is_temporal(array.type):
                return {}, f"{column} cannot be read: {error}"[:200]
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
    kind = array.type
    if pa.types.is_dictionary(kind):
        if not _is_text(kind.value_type):
            return int(array.dictionary.nbytes) + int(array.indices.nbytes)
        lengths = pc.binary_length(array.dictionary)
        return int(pc.sum(lengths.take(array.indices).cast(pa.int64())).as_py() or 0)
    if pa.types.is_struct(kind):
        return _bytes(array.flatten())
    if pa.types.is_map(kind):
        return _bytes([array.keys, array.items])
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return _size(array.flatten())
    return int(array.nbytes)


def _is_text(kind: pa.DataType) -> bool:
    return _is_binary(kind) or bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))
