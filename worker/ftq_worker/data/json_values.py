"""One JSON value at a time, and what is wrong with it although it is JSON."""

import json
import re
from typing import Any

from ftq_worker.data.rows import ROW_MAX, TOO_LONG, has_surrogates

_DIGITS_MAX = 4300  # of a whole number; Python refuses to read more
_DEPTH_MAX = 200  # of lists and objects within one another; what walks over a row is recursive
_HALF = re.compile(r"\\u[dD][89a-fA-F]")  # an escape that may stand for half a character
DEEP = "not JSON that can be read: nested too deeply"
_DIGITS = f"holds a number of more than {_DIGITS_MAX:,} digits"


class Decoder:
    """Reads a JSON value, and says what is wrong with it although it is JSON."""

    def __init__(self) -> None:
        self._json = json.JSONDecoder(parse_int=self._whole, object_pairs_hook=self._object)
        self._problem = ""

    def _whole(self, digits: str) -> int:
        if len(digits) > _DIGITS_MAX:
            self._problem = _DIGITS
            return 0
        return int(digits)

    def _object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):  # all but the last value would be lost
            keys = [key for key, _ in pairs]
            twice = next(key for key in keys if keys.count(key) > 1)
            self._problem = f"names the key {twice!r} more than once; give each key one value"
        return found

    def decode(self, text: str, at: int) -> tuple[Any, int, str]:
        """Return value, end and problem. Raises JSONDecodeError, RecursionError."""
        self._problem = ""
        value, end = self._json.raw_decode(text, at)
        written = text[at:end]
        problem = self._problem or _shape(value)
        if len(written) > ROW_MAX:
            problem = TOO_LONG
        elif not problem and is_deep(written, value):
            problem = DEEP
        elif not problem and (has_surrogates(written) or _HALF.search(written)):
            problem = _half(value)
        return value, end, problem


def is_deep(written: str, value: Any) -> bool:
    """Return whether a value, written as JSON, is nested too deeply to be walked over."""
    if written.count("[") + written.count("{") <= _DEPTH_MAX:
        return False
    inner = [value]
    for _ in range(_DEPTH_MAX):
        members = (each.values() if isinstance(each, dict) else each for each in inner)
        inner = [each for group in members for each in group if isinstance(each, dict | list)]
        if not inner:
            return False
    return True


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
        return DEEP
    return ""


_DECODER = Decoder()  # making one takes as long as reading a short line


def parse_line(raw: bytes) -> tuple[Any, str]:
    """Return the object of a line, or what is wrong with it."""
    if len(raw) > ROW_MAX:
        return {}, TOO_LONG
    try:
        text = raw.decode().strip()
        value, end, problem = _DECODER.decode(text, 0)
        if end < len(text):
            problem = f"not JSON: Extra data at column {end + 1}"
    except UnicodeDecodeError as error:
        problem = f"not UTF-8 at byte {error.start + 1}"
    except json.JSONDecodeError as error:
        problem = f"not JSON: {error.msg} at column {error.colno}"
    except RecursionError:
        problem = DEEP
    return ({}, problem) if problem else (value, "")


def is_cut(line: bytes) -> bool:
    """Return whether a line is the beginning of JSON, cut between two of its tokens."""
    try:
        text = line.decode().strip()
        json.loads(text)
    except json.JSONDecodeError as error:
        return error.pos >= len(text)
    except (UnicodeDecodeError, ValueError, RecursionError):
        return False
    return False
