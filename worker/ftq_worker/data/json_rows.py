"""Rows from JSON: one object a line, or a list of objects, which is taken apart as it is read."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ftq_shared.errors import Refused
from ftq_worker.data.rows import BUFFER, ROW_MAX, TOO_LONG, Row, has_surrogates, lines_of

_ELEMENT_LIMIT = 64 << 20  # characters of one element; a broken file is not read to its end
_DIGITS_MAX = 4300  # of a whole number; Python refuses to read more
_SPACE = re.compile(r"[ \t\r\n]*")
_HALF = re.compile(r"\\u[dD][89a-fA-F]")  # an escape that may stand for half a character
# A whole text, one that is cut off, or what opens and closes.
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*(?:"|\\?\Z)|[][{}]', re.DOTALL)

_DEEP = "not JSON that can be read: nested too deeply"
_DIGITS = f"holds a number of more than {_DIGITS_MAX:,} digits"


class _Decoder:
    """Reads a JSON value, and says what is wrong with it although it is JSON."""

    def __init__(self) -> None:
        self._json = json.JSONDecoder(parse_int=self._whole)
        self._problem = ""

    def _whole(self, digits: str) -> int:
        if len(digits) > _DIGITS_MAX:
            self._problem = _DIGITS
            return 0
        return int(digits)

    def decode(self, text: str, at: int) -> tuple[Any, int, str]:
        """Return value, end and problem. Raises JSONDecodeError, RecursionError."""
        self._problem = ""
        value, end = self._json.raw_decode(text, at)
        written = text[at:end]
        problem = self._problem or _shape(value)
        if len(written) > ROW_MAX:
            problem = TOO_LONG
        elif not problem and (has_surrogates(written) or _HALF.search(written)):
            problem = _half(value)
        return value, end, problem


def _shape(value: Any) -> str:
    if isinstance(value, dict):
        return ""
    kinds = {list: "list", str: "string", bool: "true or false", type(None): "null"}
    return f"is a {kinds.get(type(value), 'number')}, not an object with columns"


def _half(value: Any) -> str:
    """Return what is wrong with a value that may hold half a character."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        # A byte that is not UTF-8 comes through as one of these.
        byte = 0xDC80 <= ord(error.object[error.start]) <= 0xDCFF
        return "not UTF-8" if byte else "holds half a character (a lone surrogate)"
    except RecursionError:
        return _DEEP
    return ""


def read_jsonl(path: Path, first: int) -> Iterator[Row]:
    """Yield one row for each line that is not blank."""
    number = first
    with path.open("rb") as file:
        for line, raw in enumerate(lines_of(file, b"\n"), start=1):
            if line == 1:
                raw = raw.removeprefix(b"\xef\xbb\xbf")
            if not raw.strip():
                continue
            values, problem = _parse_line(raw)
            yield Row(path.name, number, line, values, problem)
            number += 1


def _parse_line(raw: bytes) -> tuple[dict[str, Any], str]:
    """Return the object of a line, or what is wrong with it."""
    if len(raw) > ROW_MAX:
        return {}, TOO_LONG
    try:
        text = raw.decode().strip()
        value, end, problem = _Decoder().decode(text, 0)
        if end < len(text):
            problem = f"not JSON: Extra data at column {end + 1}"
    except UnicodeDecodeError as error:
        problem = f"not UTF-8 at byte {error.start + 1}"
    except json.JSONDecodeError as error:
        problem = f"not JSON: {error.msg} at column {error.colno}"
    except RecursionError:
        problem = _DEEP
    return ({}, problem) if problem else (value, "")


def read_json(path: Path, first: int) -> Iterator[Row]:
    """Yield the rows of a list of objects, or of jsonl that goes by the name .json."""
    with path.open(encoding="utf-8-sig", errors="surrogateescape") as file:
        start = file.read(BUFFER).lstrip()
    if not start:
        return
    if start.startswith("["):
        yield from read_array(path, first)
        return
    with path.open("rb") as file:
        lines = (line.removeprefix(b"\xef\xbb\xbf") for line in lines_of(file, b"\n"))
        line = next(line for line in lines if line.strip())
    if _parse_line(line)[1].startswith("not JSON:"):
        raise Refused(
            f"{path.name} holds one object, not a list of rows",
            code="bad_file",
            hint="write a list of objects, or one object a line",
            file=path.name,
        )
    yield from read_jsonl(path, first)


def read_array(path: Path, first: int) -> Iterator[Row]:
    """Yield the elements of a list. Raises Refused (`bad_row`) at a broken place."""
    with path.open(encoding="utf-8-sig", errors="surrogateescape") as file:
        elements = _ArrayParser(file.read, path.name)
        for number, (line, value, problem) in enumerate(elements, start=first):
            yield Row(path.name, number, line, {} if problem else value, problem)


class _ArrayParser:
    """Takes a JSON array apart element by element; holds one element and one buffer."""

    def __init__(self, read: Callable[[int], str], name: str) -> None:
        self._read, self._name = read, name
        self._decoder = _Decoder()
        self._text, self._at = "", 0  # what was read, and how much of it is used up
        self._line = 1  # of the character at `_at`

    def __iter__(self) -> Iterator[tuple[int, Any, str]]:
        """Yield line, value and problem of each element; raises Refused at a broken place."""
        self._take("[")
        if self._peek() == "]":
            return
        while True:
            self._peek()
            yield self._line, *self._element()
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

    def _element(self) -> tuple[Any, str]:
        while True:
            try:
                value, end, problem = self._decoder.decode(self._text, self._at)
            except RecursionError:
                value, end, problem = None, self._end_of_deep(), _DEEP
            except json.JSONDecodeError as error:
                # The element may only be cut by the end of the buffer; doubling it each time
                # keeps the repeated parsing linear.
                held = len(self._text) - self._at
                if held > _ELEMENT_LIMIT or not self._more(max(BUFFER, held)):
                    raise self._broken(error.msg, error.pos) from None
                continue
            # A number at the very end of the buffer may go on behind it.
            if end == len(self._text) and self._more():
                continue
            self._advance(end)
            return value, problem

    def _end_of_deep(self) -> int:
        """Return where an element ends that is nested too deeply for the decoder."""
        while True:
            depth = 0
            for token in _TOKEN.finditer(self._text, self._at):
                depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(token[0], 0)
                if not depth:
                    return token.end()
            held = len(self._text) - self._at
            if held > _ELEMENT_LIMIT or not self._more(max(BUFFER, held)):
                raise self._broken("nested too deeply, and never closed", self._at)

    def _advance(self, position: int) -> None:
        self._line += self._text.count("\n", self._at, position)
        self._at = position

    def _more(self, size: int | None = None) -> bool:
        chunk = self._read(size or BUFFER)
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
