"""The reader of every kind of file: one row at a time, each with its line.

They are written here, not taken from `datasets`, because an error must name file and line and one
broken row must not lose the others. None of them holds more than a buffer of the file, or a row;
a row above ROW_MAX is named and left out.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

from ftq_shared.errors import Refused
from ftq_shared.redaction import escape_control
from ftq_shared.sources import READ_KINDS, data_suffix
from ftq_worker.data.arrow_rows import arrow_schema, read_arrow
from ftq_worker.data.arrow_values import Schema
from ftq_worker.data.content_kind import HEAD, refuse_pointer
from ftq_worker.data.csv_rows import read_csv
from ftq_worker.data.json_rows import read_json, read_row
from ftq_worker.data.parquet_rows import parquet_schema, read_parquet
from ftq_worker.data.rows import Row, UnreadRow
from ftq_worker.data.text_rows import read_text

_READERS: dict[str, Callable[[Path, int, bool], Iterator[Row | UnreadRow]]] = {
    ".jsonl": read_json,
    ".ndjson": read_json,
    ".json": read_json,
    ".csv": read_csv,
    ".tsv": read_csv,
    ".txt": read_text,
    ".text": read_text,
    ".parquet": read_parquet,
    ".arrow": read_arrow,
    ".feather": read_arrow,
}
_SCHEMAS = {".parquet": parquet_schema, ".arrow": arrow_schema, ".feather": arrow_schema}


def read_file(path: Path, first: int = 0, *, cut: bool = False) -> Iterator[Row]:
    """Yield the rows of a file, as `read_later` does, each with its values."""
    return map(read_row, read_later(path, first, cut=cut))


def read_later(path: Path, first: int = 0, *, cut: bool = False) -> Iterator[Row | UnreadRow]:
    """Yield the rows of a file, numbered from `first`; JSON lines are not taken apart.

    `cut`: the file is the beginning of a longer one, and may end anywhere. Raises Refused:
    `bad_file` when nothing of it can be read, `bad_encoding` when it is not UTF-8, `bad_row` when
    reading cannot go on behind a broken place.
    """
    reader, name = _READERS.get(data_suffix(path.name)), escape_control(path.name)
    if reader is None:
        raise Refused(
            f"{name} is no kind of file that ftq reads",
            code="bad_file",
            hint=f"it reads {READ_KINDS}",
            file=name,
        )
    try:
        _refuse_pointer(path)
        yield from reader(path, first, cut)
    except (OSError, ValueError) as error:
        raise _unreadable(name, error) from error


def schema_of_file(path: Path) -> Schema | None:
    """Return what a table says of its rows, None for text. Raises Refused (`bad_file`)."""
    reader = _SCHEMAS.get(data_suffix(path.name))
    if reader is None:
        return None
    try:
        _refuse_pointer(path)
    except OSError as error:
        raise _unreadable(escape_control(path.name), error) from error
    return reader(path)


def _refuse_pointer(path: Path) -> None:
    with path.open("rb") as file:
        refuse_pointer(path.name, file.read(HEAD))


def _unreadable(name: str, error: OSError | ValueError) -> Refused:
    return Refused(
        f"{name} cannot be read: {getattr(error, 'strerror', None) or error}",
        code="bad_file",
        hint="check that the file is there and whole",
        file=name,
    )
