"""Readers of the five file formats: one row at a time, each with its line.

They are written here, not taken from `datasets`, because an error must name file and line and one
broken row must not lose the others. None of them holds more than a buffer of the file, or a row;
a row above ROW_MAX is named and left out.
"""

import csv
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from ftq_shared.errors import Refused
from ftq_shared.redaction import escape_control
from ftq_worker.data.json_rows import read_json, read_jsonl
from ftq_worker.data.parquet_rows import read_parquet
from ftq_worker.data.rows import ROW_MAX, TOO_LONG, Row, has_surrogates, lines_of

_FIELD_LIMIT = ROW_MAX  # characters in one csv field; more means a quote was never closed
_DELIMITERS = ",\t;|"

Reader = Callable[[Path, int], Iterator[Row]]


def read_file(path: Path, first: int = 0) -> Iterator[Row]:
    """Yield the rows of a file, numbered from `first`.

    Raises Refused: `bad_file` when nothing of it can be read, `bad_row` when reading cannot go on
    behind a broken place.
    """
    reader, name = _READERS.get(path.suffix.lower()), escape_control(path.name)
    if reader is None:
        raise Refused(
            f"{name} is no kind of file that ftq reads",
            code="bad_file",
            hint=f"it reads {', '.join(sorted(_READERS))}",
            file=name,
        )
    try:
        yield from reader(path, first)
    except (OSError, ValueError) as error:
        raise Refused(
            f"{name} cannot be read: {getattr(error, 'strerror', None) or error}",
            code="bad_file",
            hint="check that the file is there and whole",
            file=name,
        ) from error


def _read_csv(path: Path, first: int) -> Iterator[Row]:
    csv.field_size_limit(_FIELD_LIMIT)
    # Bytes that are not UTF-8 come through as surrogates, so that only their row is lost.
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        delimiter = max(_DELIMITERS, key=file.readline(ROW_MAX).count)
        file.seek(0)
        reader = csv.reader(_csv_lines(file, path), delimiter=delimiter)
        header = _next_fields(reader, path, 1)
        if header is None:
            return
        number, line = first, reader.line_num + 1
        while (fields := _next_fields(reader, path, line)) is not None:
            if fields:  # a blank line is no row
                problem = _csv_problem(fields, header)
                values = {} if problem else dict(zip(header, fields, strict=True))
                yield Row(path.name, number, line, values, problem)
                number += 1
            line = reader.line_num + 1


def _next_fields(reader: Any, path: Path, line: int) -> list[str] | None:
    """Return the fields of the next row, None at the end; raises Refused (`bad_row`)."""
    try:
        return next(reader, None)
    except csv.Error as error:
        raise _bad_csv(path, line, error) from error


def _csv_lines(file: IO[str], path: Path) -> Iterator[str]:
    """Yield the lines of a file; raises Refused (`bad_row`) where one never ends."""
    for number, line in enumerate(lines_of(file, "\n"), start=1):
        if len(line) > ROW_MAX:
            raise _bad_csv(path, number, TOO_LONG)
        yield line


def _bad_csv(path: Path, line: int, what: object) -> Refused:
    return Refused(
        f"{path.name}, line {line}: {what}",
        code="bad_row",
        hint="look for a quote that is opened here and never closed",
        file=path.name,
        line=line,
    )


def _csv_problem(fields: list[str], header: list[str]) -> str:
    if len(fields) != len(header):
        return f"has {len(fields)} fields, the header has {len(header)}"
    if sum(map(len, fields)) > ROW_MAX:
        return TOO_LONG
    if any(has_surrogates(field) for field in fields):
        return "not UTF-8"
    return ""


def _read_txt(path: Path, first: int) -> Iterator[Row]:
    number = first
    with path.open(encoding="utf-8-sig", errors="surrogateescape") as file:
        for line, text in enumerate(lines_of(file, "\n"), start=1):
            if not text.strip():
                continue
            problem = "not UTF-8" if has_surrogates(text) else ""
            problem = TOO_LONG if len(text) > ROW_MAX else problem
            yield Row(
                path.name, number, line, {} if problem else {"text": text.rstrip("\n")}, problem
            )
            number += 1


_READERS: dict[str, Reader] = {
    ".jsonl": read_jsonl,
    ".json": read_json,
    ".csv": _read_csv,
    ".parquet": read_parquet,
    ".txt": _read_txt,
}
