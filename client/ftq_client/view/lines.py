"""Lines of styled text: what every view is made of, before a terminal or a file shows them.

A line is a tuple of (text, style) pairs. Only `live` turns styles into colours, so nothing here
needs rich, and text from outside is never read as markup.
"""

import sys
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import TextIO

from ftq_shared.redaction import escape_control


class Style(StrEnum):
    """How a piece of text looks; each value is rich's name of that style."""

    PLAIN = ""  # most text
    STRONG = "bold"  # what the eye should find first
    DIM = "dim"  # what it may skip
    GOOD = "green"  # went well
    BAD = "bold red"  # ended something
    WARN = "yellow"  # to know about
    ACCENT = "cyan"  # what goes on now


Span = tuple[str, Style]
Line = tuple[Span, ...]


@dataclass(frozen=True)
class Glyphs:
    """The signs that a terminal can show."""

    good: str
    bad: str
    warn: str
    point: str  # in front of a line that is neither
    now: str  # the phase that runs
    later: str  # a phase to come
    then: str  # between two phases
    to: str  # from one figure to another
    sep: str  # between parts of one line
    rule: str
    quote: str  # in front of a sample's context
    trained: str  # in front of what the loss counts
    full: str  # a bar's done part
    tip: str  # its end
    empty: str  # its rest
    spark: str  # eight heights, low to high
    hole: str  # a value that is not a finite number
    cut: str  # text goes on here


UNICODE = Glyphs(
    good="✓", bad="✗", warn="!", point="·", now="●", later="○", then="▸", to="→", sep="·",
    rule="─", quote="│", trained="┃", full="━", tip="╸", empty="─", spark="▁▂▃▄▅▆▇█", hole="✗",
    cut="…",
)  # fmt: skip
ASCII = Glyphs(
    good="+", bad="x", warn="!", point="-", now="*", later=".", then=">", to="->", sep="|",
    rule="-", quote="|", trained=">", full="=", tip=">", empty=".", spark="_.-~=+*#", hole="x",
    cut="...",
)  # fmt: skip


def glyphs_for(encoding: str | None) -> Glyphs:
    """Return the signs that text in `encoding` can carry; None means it takes any."""
    return UNICODE if encoding is None or encoding.lower().startswith("utf") else ASCII


def shown(value: object) -> str:
    """Return text from outside for one line: characters that steer a terminal are escaped."""
    return escape_control(str(value).replace("\t", "    "), keep_newlines=False)


def cells(text: str) -> int:
    """Return how many columns `text` takes on a terminal."""
    return len(text) if text.isascii() else sum(map(_cells_of, text))


@lru_cache(4096)  # a few characters stand in almost every line
def _cells_of(char: str) -> int:
    if unicodedata.category(char) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def text_of(line: Iterable[Span]) -> str:
    """Return a line's text without its styles."""
    return "".join([text for text, _ in line])


def width_of(line: Iterable[Span]) -> int:
    """Return how many columns a line takes."""
    return cells(text_of(line))


def crop(line: Line, width: int, cut: str = "…") -> Line:
    """Return a line of at most `width` columns; `cut` stands where something is missing."""
    if width_of(line) <= width:
        return line
    room, kept = max(width - cells(cut), 0), []
    for char, style in _chars(line):
        room -= _cells_of(char)
        if room < 0:
            break
        kept.append((char, style))
    return _joined([*kept, (cut[:width], Style.DIM)])


def wrap(line: Line, width: int, indent: int = 0) -> list[Line]:
    """Return a line as lines of at most `width` columns; all but the first are indented.

    Breaks at spaces where there are any in the second half, else anywhere.
    """
    lines: list[Line] = []
    rest = list(_chars(line))
    margin = indent if width > 2 * indent else 0
    while rest:
        room = max(width - (margin if lines else 0), 2)
        end = _break(rest, room)
        pad: list[Span] = [(" " * margin, Style.PLAIN)] if lines and margin else []
        lines.append(_joined([*pad, *rest[:end]]))
        while end < len(rest) and rest[end][0] == " ":
            end += 1
        rest = rest[end:]
    return lines or [()]


def _break(chars: list[Span], room: int) -> int:
    """Return how many characters go on a line of `room` columns; at least one."""
    used = 0
    for end, (char, _) in enumerate(chars):
        used += _cells_of(char)
        if used > room:
            space = next((i for i in range(end, end // 2, -1) if _may_break(chars, i)), 0)
            return space or max(end, 1)
    return len(chars)


def _may_break(chars: list[Span], at: int) -> bool:
    """Return whether a line may end before `at`: at a space, but not before a separator."""
    after = chars[at + 1][0] if at + 1 < len(chars) else ""
    return chars[at][0] == " " and after not in (UNICODE.sep, ASCII.sep)


def _chars(line: Iterable[Span]) -> Iterator[Span]:
    return ((char, style) for text, style in line for char in text)


def _joined(chars: Iterable[Span]) -> Line:
    """Return the spans with neighbours of one style put together."""
    spans: list[Span] = []
    for text, style in chars:
        if spans and spans[-1][1] is style:
            spans[-1] = (spans[-1][0] + text, style)
        else:
            spans.append((text, style))
    return tuple(spans)


def write_note(text: str) -> None:
    """Write words for people to stderr, line by line, with control characters escaped."""
    for line in text.splitlines():
        write_line(sys.stderr, shown(line))


def write_line(stream: TextIO, line: str) -> None:
    """Write one line and flush it; what the stream's encoding lacks is shown escaped."""
    try:
        stream.write(f"{line}\n")
    except UnicodeEncodeError:
        encoding = getattr(stream, "encoding", None) or "ascii"
        stream.write(line.encode(encoding, "backslashreplace").decode(encoding) + "\n")
    stream.flush()
