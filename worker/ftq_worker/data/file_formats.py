"""Readers of the five file formats: one row at a time, each with its line.

They are written here, not taken from `datasets`, because an error must name file and line and one
broken row must not lose the others. None of them holds more than a buffer of the file.
"""

import csv
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from datasets import ClassLabel, Features

from ftq_shared.errors import Refused
from ftq_worker.data.rows import Row

_BUFFER = 1 << 20  # bytes or characters read at a time
_FIELD_LIMIT = 16 << 20  # characters in one csv field; more means a quote was never closed
_ELEMENT_LIMIT = 64 << 20  # characters of one element; a broken file is not read to its end
_DELIMITERS = ",\t;|"
_SPACE = re.compile(r"[ \t\r\n]*")

Reader = Callable[[Path, int], Iterator[Row]]


def read_file(path: Path, first: int = 0) -> Iterator[Row]:
    """Yield the rows of a file, numbered from `first`.

    Raises Refused: `bad_file` when nothing of it can be read, `bad_row` when reading cannot go on
    behind a broken place.
    """
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise Refused(
            f"{path.name} is no kind of file that ftq reads",
            code="bad_file",
            hint=f"it reads {', '.join(sorted(_READERS))}",
            file=path.name,
        )
    try:
        yield from reader(path, first)
    except OSError as error:
        raise Refused(
            f"{path.name} cannot be read: {error.strerror or error}",
            code="bad_file",
            hint="check that the file is there and whole",
            file=path.name,
        ) from error


def parquet_schema(path: Path) -> tuple[int, list[str], dict[str, list[str]]]:
    """Return rows, columns and the names of ClassLabel columns; raises Refused (`bad_file`)."""
    with _parquet(path) as file:
        features = Features.from_arrow_schema(file.schema_arrow)
        return file.metadata.num_rows, list(features), label_names(features)


def label_names(features: Features) -> dict[str, list[str]]:
    """Return the label names of every ClassLabel column."""
    return {
        column: list(feature.names)
        for column, feature in features.items()
        if isinstance(feature, ClassLabel)
    }


def _read_jsonl(path: Path, first: int) -> Iterator[Row]:
    number = first
    with path.open("rb") as file:
        for line, raw in enumerate(file, start=1):
            if line == 1:
                raw = raw.removeprefix(b"\xef\xbb\xbf")
            if not raw.strip():
                continue
            values, problem = _parse_line(raw)
            yield Row(path.name, number, line, values, problem)
            number += 1


def _parse_line(raw: bytes) -> tuple[dict[str, Any], str]:
    """Return the object of a line, or what is wrong with it."""
    try:
        value = json.loads(raw.decode())
    except UnicodeDecodeError as error:
        return {}, f"not UTF-8 at byte {error.start + 1}"
    except json.JSONDecodeError as error:
        return {}, f"not JSON: {error.msg} at column {error.colno}"
    except RecursionError:
        return {}, "not JSON that can be read: nested too deeply"
    if not isinstance(value, dict):
        return {}, f"is a {_kind(value)}, not an object with columns"
    return value, ""


def _read_json(path: Path, first: int) -> Iterator[Row]:
    """Read a list of objects, or jsonl that goes by the name .json."""
    with path.open(encoding="utf-8-sig", errors="surrogateescape") as file:
        start = file.read(_BUFFER).lstrip()
    if not start:
        return
    if start.startswith("["):
        yield from _read_array(path, first)
        return
    if _parse_line(start.splitlines()[0].encode(errors="replace"))[1]:
        raise Refused(
            f"{path.name} holds one object, not a list of rows",
            code="bad_file",
            hint="write a list of objects, or one object a line",
            file=path.name,
        )
    yield from _read_jsonl(path, first)


def _read_array(path: Path, first: int) -> Iterator[Row]:
    with path.open(encoding="utf-8-sig", errors="surrogateescape") as file:
        elements = _ArrayParser(file.read, path.name)
        for number, (line, value) in enumerate(elements, start=first):
            if isinstance(value, dict):
                yield Row(path.name, number, line, value)
            else:
                problem = f"is a {_kind(value)}, not an object with columns"
                yield Row(path.name, number, line, problem=problem)


class _ArrayParser:
    """Takes a JSON array apart element by element; holds one element and one buffer."""

    def __init__(self, read: Callable[[int], str], name: str) -> None:
        self._read, self._name = read, name
        self._decoder = json.JSONDecoder()
        self._text, self._at = "", 0  # what was read, and how much of it is used up
        self._line = 1  # of the character at `_at`

    def __iter__(self) -> Iterator[tuple[int, Any]]:
        """Yield line and value of each element; raises Refused at a broken place."""
        self._take("[")
        if self._peek() == "]":
            return
        while True:
            self._peek()
            yield self._line, self._element()
            if self._peek() == "]":
                return
            self._take(",")

    def _peek(self) -> str:
        """Skip white space and return the next character, "" at the end."""
        while True:
            match = _SPACE.match(self._text, self._at)
            assert match is not None  # it matches the empty text as well
            self._advance(match.end())
            if self._at < len(self._text) or not self._more():
                return self._text[self._at : self._at + 1]

    def _take(self, expected: str) -> None:
        if self._peek() != expected:
            raise self._broken(f"{expected!r} is missing", self._at)
        self._at += 1

    def _element(self) -> Any:
        while True:
            try:
                value, end = self._decoder.raw_decode(self._text, self._at)
            except json.JSONDecodeError as error:
                # The element may only be cut by the end of the buffer; doubling it each time
                # keeps the repeated parsing linear.
                held = len(self._text) - self._at
                if held > _ELEMENT_LIMIT or not self._more(max(_BUFFER, held)):
                    raise self._broken(error.msg, error.pos) from None
                continue
            # A number at the very end of the buffer may go on behind it.
            if end == len(self._text) and self._more():
                continue
            self._advance(end)
            return value

    def _advance(self, position: int) -> None:
        self._line += self._text.count("\n", self._at, position)
        self._at = position

    def _more(self, size: int | None = None) -> bool:
        chunk = self._read(size or _BUFFER)
        self._text, self._at = self._text[self._at :] + chunk, 0
        return bool(chunk)

    def _broken(self, what: str, position: int) -> Refused:
        line = self._line + self._text.count("\n", self._at, position)
        return Refused(
            f"{self._name}, line {line}: not JSON: {what}",
            code="bad_row",
            hint="mend the file; behind a broken place in a JSON list nothing can be read",
            file=self._name,
            line=line,
        )


def _read_csv(path: Path, first: int) -> Iterator[Row]:
    csv.field_size_limit(_FIELD_LIMIT)
    # Bytes that are not UTF-8 come through as surrogates, so that only their row is lost.
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        delimiter = max(_DELIMITERS, key=file.readline().count)
        file.seek(0)
        reader = csv.reader(file, delimiter=delimiter)
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
        raise Refused(
            f"{path.name}, line {line}: {error}",
            code="bad_row",
            hint="look for a quote that is opened here and never closed",
            file=path.name,
            line=line,
        ) from error


def _csv_problem(fields: list[str], header: list[str]) -> str:
    if len(fields) != len(header):
        return f"has {len(fields)} fields, the header has {len(header)}"
    if any(_has_surrogates(field) for field in fields):
        return "not UTF-8"
    return ""


def _read_parquet(path: Path, first: int) -> Iterator[Row]:
    number = first
    with _parquet(path) as file:
        for batch in file.iter_batches(batch_size=1000):
            for values in batch.to_pylist():
                yield Row(path.name, number, None, values)
                number += 1


def _parquet(path: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path, memory_map=True)
    except (OSError, ValueError) as error:  # pyarrow's ArrowInvalid is a ValueError
        raise Refused(
            f"{path.name} is no parquet file: {error}",
            code="bad_file",
            hint="check that the file is whole",
            file=path.name,
        ) from error


def _read_txt(path: Path, first: int) -> Iterator[Row]:
    number = first
    with path.open(encoding="utf-8-sig", errors="surrogateescape") as file:
        for line, text in enumerate(file, start=1):
            if not text.strip():
                continue
            problem = "not UTF-8" if _has_surrogates(text) else ""
            yield Row(
                path.name, number, line, {} if problem else {"text": text.rstrip("\n")}, problem
            )
            number += 1


def _has_surrogates(text: str) -> bool:
    return not text.isascii() and any("\ud800" <= c <= "\udfff" for c in text)


def _kind(value: Any) -> str:
    kinds = {list: "list", str: "string", bool: "true or false", type(None): "null"}
    return kinds.get(type(value), "number")


_READERS: dict[str, Reader] = {
    ".jsonl": _read_jsonl,
    ".json": _read_json,
    ".csv": _read_csv,
    ".parquet": _read_parquet,
    ".txt": _read_txt,
}
