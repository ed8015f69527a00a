"""What every reader yields: a row with the place it came from, or what is wrong with it."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import IO, Any, AnyStr

from ftq_shared.errors import Where

BUFFER = 1 << 20  # bytes or characters read at a time
ROW_MAX = 16 << 20  # bytes, or characters where a file is read as text, that a row may have
TOO_LONG = f"is longer than {ROW_MAX >> 20} MiB"
_MEMBER = 50  # characters that a member of a list or an object counts for, whatever it holds
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a source; either `values` or `problem` is filled."""

    file: str  # its name, without folders
    number: int  # position in its split, from 0
    line: int | None  # line of the file, from 1; None where the format has no lines
    values: Mapping[str, Any] = field(default_factory=dict)
    problem: str = ""  # why it cannot be read

    def where(self) -> Where:
        where: Where = {"file": self.file, "row": self.number}
        if self.line is not None:
            where["line"] = self.line
        return where


@dataclass(frozen=True, slots=True)
class UnreadRow:
    """A row that is a line of JSON: it is taken apart where it is used, in any process."""

    file: str
    number: int
    line: int
    json: bytes


@dataclass(frozen=True)
class SplitSource:
    """One split of a dataset. Reading it again starts at its first row."""

    split: str
    columns: list[str]  # empty while unknown: a jsonl file says it row by row
    read: Callable[[], Iterator[Row]]
    rows: int | None = None  # None while unknown
    label_names: Mapping[str, list[str]] = field(default_factory=dict)  # ClassLabel columns
    # The same rows, some of them unread; None where `read` is the only way.
    read_later: Callable[[], Iterator[Row | UnreadRow]] | None = None


SplitSources = dict[str, Callable[[], SplitSource]]  # by split: what opens it


def lines_of(file: IO[AnyStr], end: AnyStr) -> Iterator[AnyStr]:
    """Yield the lines of a file; of one above ROW_MAX only its beginning, one too long."""
    while line := file.readline(ROW_MAX + 1):
        yield line
        cut = len(line) > ROW_MAX and not line.endswith(end)
        while cut:
            rest = file.readline(BUFFER)
            cut = bool(rest) and not rest.endswith(end)


def has_surrogates(text: str) -> bool:
    """Return whether a text holds half a character, which no encoding can write."""
    return not text.isascii() and _SURROGATE.search(text) is not None


def size_of(values: Mapping[str, Any]) -> int:
    """Return the characters of a row, and what its lists and objects take besides."""
    weight, inner = 0, [values.values()]
    while inner:
        members = inner.pop()
        weight += _MEMBER * len(members)
        for value in members:
            if isinstance(value, str | bytes):
                weight += len(value)
            elif isinstance(value, dict):
                inner.append(value.values())
            elif isinstance(value, list | tuple):
                inner.append(value)  # type: ignore[arg-type]
    return weight
