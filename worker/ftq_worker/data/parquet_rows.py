"""Rows from parquet, in batches whose size follows what they really take in memory.

A file of a few hundred bytes may stand for gigabytes: equal texts are written once, and the pages
are compressed. So the footer is asked first, texts stay numbers into a dictionary until they are
measured, and a row above ROW_MAX is named and left out.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from datasets import ClassLabel, Features

from ftq_shared.errors import Refused
from ftq_worker.data.rows import ROW_MAX, TOO_LONG, Row

BATCH_ROWS = 1000
_BATCH_BYTES = 64 << 20  # that a batch should take
_CHUNK_MAX = 4 << 30  # bytes that one column of a row group may take unpacked
# What pyarrow raises for a file that is damaged, or was made to be.
ERRORS = (pa.ArrowException, OSError, ValueError, TypeError, OverflowError, KeyError)


def parquet_schema(path: Path) -> tuple[int, list[str], dict[str, list[str]]]:
    """Return rows, columns and the names of ClassLabel columns; raises Refused (`bad_file`)."""
    try:
        with pq.ParquetFile(path) as file:
            features = Features.from_arrow_schema(file.schema_arrow)
            return file.metadata.num_rows, list(features), label_names(features)
    except (*ERRORS, AttributeError, RecursionError) as error:  # `datasets` reads JSON in there
        raise bad_parquet(path.name, error) from error


def label_names(features: Features) -> dict[str, list[str]]:
    """Return the label names of every ClassLabel column."""
    return {
        column: list(feature.names)
        for column, feature in features.items()
        if isinstance(feature, ClassLabel)
    }


def read_parquet(path: Path, first: int) -> Iterator[Row]:
    """Yield the rows of a file. Raises Refused (`bad_file`)."""
    try:
        with open_parquet(path) as file:
            yield from rows_of(file, path.name, first)
    except ERRORS as error:
        raise bad_parquet(path.name, error) from error


def open_parquet(source: Path | IO[bytes], **options: Any) -> pq.ParquetFile:
    """Open a file so that equal texts stay one text in memory. Raises ERRORS."""
    plain = pq.ParquetFile(source, **options)
    leaves = [plain.schema.column(n) for n in range(len(plain.schema))]
    texts = [leaf.path for leaf in leaves if leaf.physical_type == "BYTE_ARRAY"]
    return pq.ParquetFile(source, metadata=plain.metadata, read_dictionary=texts, **options)


def rows_of(
    file: pq.ParquetFile, name: str, first: int = 0, *, batch_rows: int = BATCH_ROWS
) -> Iterator[Row]:
    """Yield the rows of a file that `open_parquet` has opened. Raises Refused, and ERRORS."""
    number = first
    for group in range(file.metadata.num_row_groups):
        rows = min(batch_rows, _batch_rows(file.metadata.row_group(group), name))
        for batch in file.iter_batches(rows, row_groups=[group], use_threads=False):
            for values, problem in _values(batch):
                yield Row(name, number, None, values, problem)
                number += 1


def _batch_rows(group: Any, name: str) -> int:
    """Return how many rows of a row group are read at a time. Raises Refused."""
    columns = [group.column(n) for n in range(group.num_columns)]
    sizes = [column.total_uncompressed_size for column in columns]
    counts = [column.num_values for column in columns]
    if max(sizes, default=0) > _CHUNK_MAX:
        why = f"a column unpacks to {max(sizes) / 1e9:.1f} GB in one piece"
        raise bad_parquet(name, why, "write it in smaller row groups")
    each = max(sum(sizes), sum(counts)) // max(1, group.num_rows) + 1
    return max(1, min(BATCH_ROWS, int(_BATCH_BYTES // each)))


def _values(batch: pa.RecordBatch) -> Iterator[tuple[dict[str, Any], str]]:
    """Yield the values of each row, or what is wrong with it."""
    if _bytes(batch.columns) <= ROW_MAX:
        for values in _plain(batch).to_pylist():
            yield values, ""
        return
    for at in range(batch.num_rows):  # one at a time: equal texts become many
        row = batch.slice(at, 1)
        if _bytes(row.columns) > ROW_MAX:
            yield {}, TOO_LONG
        else:
            yield row.to_pylist()[0], ""


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
        lengths = pc.binary_length(array.dictionary)
        return int(pc.sum(lengths.take(array.indices).cast(pa.int64())).as_py() or 0)
    if pa.types.is_struct(kind):
        return _bytes(array.flatten())
    if pa.types.is_map(kind):
        return _bytes([array.keys, array.items])
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return _size(array.flatten())
    return int(array.nbytes)


def bad_parquet(name: str, why: object, hint: str = "check that the file is whole") -> Refused:
    """Return the refusal of a file that cannot be read."""
    return Refused(f"{name} is no parquet file: {why}", code="bad_file", hint=hint, file=name)
