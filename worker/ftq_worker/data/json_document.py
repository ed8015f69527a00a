"""A JSON text over many lines, taken apart as it is read: one value and one buffer are held."""

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from ftq_shared.errors import Refused
from ftq_worker.data.json_values import DEEP, Decoder
from ftq_worker.data.rows import BUFFER, ROW_MAX, TOO_LONG

_VALUE_LIMIT = 64 << 20  # characters of one value; a broken file is not read to its end
_SPACE = re.compile(r"[ \t\r\n]*")
_STEPS = np.zeros(256, np.int64)  # what opens and what closes
_STEPS[list(b"[{")], _STEPS[list(b"]}")] = 1, -1
_ESCAPED = re.compile(r"\\.", re.DOTALL)


class JsonDocument:
    """Walks over a JSON text. Every method raises Refused (`bad_row`) at a broken place."""

    def __init__(self, read: Callable[[int], str], name: str) -> None:
        self._read, self._name = read, name
        self._decoder = Decoder()
        self._text, self._at = "", 0  # what was read, and how much of it is used up
        self._line = 1  # of the character at `_at`
        self.ended = False  # whether the text was read to its end

    def elements(self) -> Iterator[tuple[int, Any, str]]:
        """Yield line, value and problem of each element of a list."""
        self._take("[")
        if self.peek() == "]":
            self._at += 1
            return
        while True:
            self.peek()
            yield self._line, *self.value()
            if self.peek() == "]":
                self._at += 1
                return
            self._take(",")

    def members(self) -> Iterator[str]:
        """Yield the keys of an object; the caller reads each key's value before it goes on."""
        self._take("{")
        if self.peek() == "}":
            self._at += 1
            return
        while True:
            if self.peek() != '"':
                raise self._broken("a key in quotes is missing", self._at)
            key, _ = self.value()
            self._take(":")
            self.peek()
            yield str(key)
            if self.peek() == "}":
                self._at += 1
                return
            self._take(",")

    def value(self) -> tuple[Any, str]:
        """Return the next value, and what is wrong with it as a row."""
        while True:
            held = len(self._text) - self._at
            if held > ROW_MAX and self._text[self._at] in "[{":
                return self._skipped(TOO_LONG)  # reading it again with each buffer takes minutes
            try:
                value, end, problem = self._decoder.decode(self._text, self._at)
            except RecursionError:
                return self._skipped(DEEP)
            except json.JSONDecodeError as error:
                # The value may only be cut by the end of the buffer; doubling it each time
                # keeps the repeated parsing linear.
                if held > _VALUE_LIMIT or not self._more(max(BUFFER, held)):
                    raise self._broken(error.msg, error.pos) from None
                continue
            # A number at the very end of the buffer may go on behind it.
            if end == len(self._text) and self._more():
                continue
            self._advance(end)
            return value, problem

    def row(self) -> tuple[int, Any, str]:
        """Return line, value and problem of the next value."""
        self.peek()
        return self._line, *self.value()

    def end(self) -> None:
        """Raise Refused when anything but white space is left."""
        if self.peek():
            raise self._broken("there is more behind its end", self._at)

    def peek(self) -> str:
        """Skip white space and return the next character, "" at the end."""
        while True:
            match = _SPACE.match(self._text, self._at)
            assert match is not None  # it matches the empty text as well
            self._advance(match.end())
            if self._at < len(self._text) or not self._more():
                return self._text[self._at : self._at + 1]

    def _take(self, expected: str) -> None:
        if self.peek() != expected:
            raise self._broken(f"{expected!r} is missing", self._at)
        self._at += 1

    def _skipped(self, problem: str) -> tuple[None, str]:
        """Go behind a list or an object without making one of it; returns None and `problem`."""
        depth, quoted, skipped, line = 0, False, 0, self._line
        while skipped <= _VALUE_LIMIT:
            part = _ESCAPED.sub("  ", self._text[self._at : self._at + BUFFER])
            part = part.removesuffix("\\")  # the first half of an escape
            if not part:
                if not self._more():
                    break
                continue
            depths, quoted = _depths(part, depth, quoted)
            ends = np.flatnonzero(depths == 0)
            used = int(ends[0]) + 1 if len(ends) else len(part)
            self._advance(self._at + used)
            if len(ends):
                return None, problem
            depth, skipped = int(depths[-1]), skipped + used
        self._line = line
        raise self._broken("a list or an object is opened here and never closed", self._at)

    def _advance(self, position: int) -> None:
        self._line += self._text.count("\n", self._at, position)
        self._at = position

    def _more(self, size: int | None = None) -> bool:
        chunk = self._read(size or BUFFER)
        self._text, self._at = self._text[self._at :] + chunk, 0
        self.ended = not chunk
        return bool(chunk)

    def _broken(self, what: str, position: int) -> Refused:
        line = self._line + self._text.count("\n", self._at, position)
        return Refused(
            f"{self._name}, line {line}: not JSON: {what}",
            code="bad_row",
            hint="mend the file; behind a broken place in a JSON text nothing can be read",
            file=self._name,
            line=line,
        )


def _depths(part: str, depth: int, quoted: bool) -> tuple[npt.NDArray[np.int64], bool]:
    """Return how deep each character of a part stands, and whether a text is open at its end."""
    raw = np.frombuffer(part.encode("ascii", "replace"), np.uint8)
    within = (quoted + np.cumsum(raw == ord('"'))) % 2
    return depth + np.cumsum(np.where(within, 0, _STEPS[raw])), bool(within[-1])
