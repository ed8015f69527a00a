"""The small pieces of wording: facts side by side, figures with intervals, places."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ftq_client.view import format as fmt
from ftq_client.view.lines import Glyphs, Ink, Line, Span, shown
from ftq_shared.events import Event


@dataclass(frozen=True)
class Phrase:
    """One event in words."""

    head: str  # what kind of line it is: the event's type, or a plainer word for it
    line: Line
    ink: Ink = Ink.PLAIN  # GOOD and BAD are results, WARN is to know about
    subject: str = ""  # what a result is about, already shown
    hint: str = ""  # what to do, already shown
    more: tuple[Line, ...] = ()  # lines that belong below


Data = Mapping[str, Any]
Wording = Callable[[Event, Data, Glyphs], Phrase]


def plain_line(text: str) -> Line:
    """Return a line of one plain text."""
    return ((text, Ink.PLAIN),)


def facts_line(glyphs: Glyphs, *facts: str, first: Ink = Ink.PLAIN) -> Line:
    """Return the facts that are there, on one line; the first one leads."""
    there = [fact for fact in facts if fact]
    rest: list[Span] = [(f" {glyphs.sep} {fact}", Ink.DIM) for fact in there[1:]]
    return ((there[0], first), *rest) if there else ()


def said(data: Data, key: str, before: str = "", after: str = "") -> str:
    """Return a field as shown text between two words, empty when it is not there."""
    value = data.get(key)
    return f"{before}{shown(value)}{after}" if value not in (None, "", [], {}) else ""


def names(value: Any) -> str:
    """Return a list as names with commas between."""
    return ", ".join(shown(v) for v in value) if isinstance(value, list) else shown(value)


def took(seconds: Any) -> str:
    """Return the time that something took; empty where it is not said, or next to nothing."""
    known = fmt.number(seconds)
    # Below this it would be shown as 0.0s.
    return fmt.duration(known) if known is not None and known >= 0.05 else ""


def percent_of(done: Any, total: float | None) -> str:
    """Return how much of a total is done, in whole percent; empty without a total."""
    part = fmt.number(done)
    if not total or part is None:
        return ""
    # Rounded down: 100% means done.
    return f"{int(100 * min(max(part / total, 0.0), 1.0))}%"


def interval(data: Data, key: str, word: Callable[[Any], str]) -> str:
    """Return a figure with its 95 % interval where it has one."""
    low, high = data.get(f"{key}_low"), data.get(f"{key}_high")
    ends = f" [{word(low)}, {word(high)}]" if low is not None and high is not None else ""
    return f"{word(data[key])}{ends}"


METRICS: tuple[tuple[str, str, Callable[[Any], str]], ...] = (
    ("loss", "loss", fmt.figure),
    ("accuracy", "accuracy", fmt.percent),
    ("tokens_accuracy", "token accuracy", fmt.percent),
    ("f1_macro", "F1", fmt.percent),
)


def where(data: Data) -> str:
    """Return where an error was found: file, line, row and field, those that it names."""
    parts = (
        said(data, "file"),
        said(data, "line", "line "),
        said(data, "row", "row "),
        said(data, "field", "field "),
    )
    return ", ".join(part for part in parts if part)
