"""Rows from parquet, in batches whose size follows what they really take in memory.

A file of a few hundred bytes may stand for gigabytes: equal texts are written once, and the pages
are compressed. So the footer is asked first, texts stay numbers into a dictionary until they are
measured, and a row above ROW_MAX is named and left out.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

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

BATCH_ROWS = 1000
_BATCH_BYTES = 64 << 20  # that a batch should take
_CHUNK_MAX = 4 << 30  # bytes that one column of a row group may take unpacked


def parquet_schema(path: Path) -> Schema:
    """Return what a file says of its rows; raises Refused (`bad_file`)."""
    try:
        with pq.ParquetFile(path) as file:
            return schema_of(file.schema_arrow, path.name, file.metadata.num_rows)
    except ERRORS as error:
        raise bad_parquet(path.name, error) from error


def read_parquet(path: Path, first: int, cut: bool = False) -> Iterator[Row]:
    """Yield the rows of a file. Raises Refused (`bad_file`). `cut` makes no difference."""
    try:
        with open_parquet(path) as file:
            schema_of(file.schema_arrow, path.name)
            meter = Meter(path.name, path.stat().st_size)
            yield from rows_of(file, path.name, meter, first)
    except ERRORS as error:
        raise bad_parquet(path.name, error) from error


def open_parquet(source: Path | IO[bytes], **options: Any) -> pq.ParquetFile:
    """Open a file so that equal texts stay one text in memory. Raises ERRORS."""
    plain = pq.ParquetFile(source, **options)
    leaves = [plain.schema.column(n) for n in range(len(plain.schema))]
    texts = [leaf.path for leaf in leaves if leaf.physical_type == "BYTE_ARRAY"]
    return pq.ParquetFile(source, metadata=plain.metadata, read_dictionary=texts, **options)


def rows_of(
    file: pq.ParquetFile,
    name: str,
    meter: Meter,
    first: int = 0,
    *,
    batch_rows: int = BATCH_ROWS,
) -> Iterator[Row]:
    """Yield the rows of a file that `open_parquet` has opened. Raises Refused, and ERRORS."""
    number = first
    for group in range(file.metadata.num_row_groups):
        # Damaged statistics end the process when they are asked for; reading one row raises first.
        next(_batches(file, group, 1, name), None)
        rows = min(batch_rows, _batch_rows(file.metadata.row_group(group), name))
        for batch in _batches(file, group, rows, name):
            yield from rows_of_batch(batch, name, number, meter)
            number += batch.num_rows


def _batches(file: pq.ParquetFile, group: int, rows: int, name: str) -> Iterator[pa.RecordBatch]:
    batches = file.iter_batches(rows, row_groups=[group], use_threads=False)
    while True:
        with capped_memory(name):
            batch = next(batches, None)
        if batch is None:
            return
        yield batch


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


def bad_parquet(name: str, why: object, hint: str = "check that the file is whole") -> Refused:
    """Return the refusal of a file that cannot be read."""
    what = f"{name} is no parquet file: {one_line(why)}"
    return Refused(what, code="bad_file", hint=hint, file=name)
