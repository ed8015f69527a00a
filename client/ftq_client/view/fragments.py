"""Pieces of text that several views share: parts side by side, scores, places, a step's line."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from ftq_client.view import format as fmt
from ftq_client.view.lines import Glyphs, Line, Span, Style, shown, width_of
from ftq_shared.events import Data


@dataclass(frozen=True)
class Phrase:
    """One event in words."""

    head: str  # what kind of line it is: the event's type, or a plainer word for it
    line: Line
    style: Style = Style.PLAIN  # GOOD and BAD are results, WARN is to know about
    subject: str = ""  # what a result is about, already shown
    hint: str = ""  # what to do, already shown
    more: tuple[Line, ...] = ()  # lines that belong below


def plain_line(text: str) -> Line:
    """Return a text as a line."""
    return ((text, Style.PLAIN),)


def parts_line(glyphs: Glyphs, *parts: str, first: Style = Style.PLAIN) -> Line:
    """Return the parts that are not empty on one line, the first in a style of its own."""
    there = [part for part in parts if part]
    rest: list[Span] = [(f" {glyphs.sep} {part}", Style.DIM) for part in there[1:]]
    return ((there[0], first), *rest) if there else ()


def field(data: Data, key: str, before: str = "", after: str = "") -> str:
    """Return a field as shown text between `before` and `after`, empty when it has no value."""
    value = data.get(key)
    return f"{before}{shown(value)}{after}" if value not in (None, "", [], {}) else ""


def yaml_word(value: object) -> str:
    """Return a value as a spec writes it: false, null; text as it is shown."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return "null" if value is None else shown(value)


def names(value: object) -> str:
    """Return a list's items with commas between; anything else as it is shown."""
    return ", ".join(shown(v) for v in value) if isinstance(value, list) else shown(value)


def took(seconds: object) -> str:
    """Return how long something took; empty when that is unknown or would be shown as 0.0s."""
    known = fmt.number(seconds)
    return fmt.duration(known) if known is not None and known >= 0.05 else ""


def percent_of(done: object, total: float | None) -> str:
    """Return how much of a total is done, in whole percent; empty without a total."""
    part = fmt.number(done)
    if not total or part is None:
        return ""
    # Rounded down: 100% means done.
    return f"{int(100 * min(max(part / total, 0.0), 1.0))}%"


class Metric(NamedTuple):
    """One score of an evaluation."""

    key: str  # its field in the event; the ends of its interval are <key>_low and <key>_high
    name: str
    text: Callable[[object], str]


METRICS = (
    Metric("loss", "loss", fmt.figure),
    Metric("accuracy", "accuracy", fmt.percent),
    Metric("tokens_accuracy", "token accuracy", fmt.percent),
    Metric("f1_macro", "F1", fmt.percent),
)


def score(scores: Data, metric: Metric) -> str:
    """Return one score of an `eval` event, with its 95 % interval where it has one."""
    text, ends = metric.text(scores.get(metric.key)), (f"{metric.key}_low", f"{metric.key}_high")
    known = [scores[end] for end in ends if end in scores]
    if len(known) < 2 or None in known:
        return text
    return f"{text} [{', '.join(map(metric.text, known))}]"


def where(data: Data) -> str:
    """Return where an error was found: those of file, line, row and field that it names."""
    parts = (
        field(data, "file"),
        field(data, "line", "line "),
        field(data, "row", "row "),
        field(data, "field", "field "),
    )
    return ", ".join(part for part in parts if part)


class _Figure(NamedTuple):
    """One figure of a step; where room is short, the highest rank is dropped first."""

    rank: int
    spans: tuple[Span, ...]


def step_line(data: Data, *, width: int | None = None, pad: bool = False, eta: bool = True) -> Line:
    """Return `12/300  loss 1.8300  lr 2.0e-04 ...` in at most `width` columns.

    `pad` gives figures a fixed width, so that a run's lines stand in columns; without `eta` the
    time that is left is not shown.
    """
    figures = _figures(data, pad)
    if eta and data.get("eta_s"):  # the last step has none
        text = fmt.duration(data["eta_s"])
        figures.append(_Figure(2, (("eta ", Style.DIM), (text, Style.PLAIN))))
    if width is not None:
        figures = _fitting(figures, width)
    line: list[Span] = []
    for figure in figures:
        line += [("  ", Style.PLAIN)] if line else []
        line += figure.spans
    return tuple(line)


def _fitting(figures: list[_Figure], width: int) -> list[_Figure]:
    """Return the figures for which there is room; the first one always stays."""
    used = sum(width_of(figure.spans) + 2 for figure in figures) - 2
    for figure in sorted(figures[1:], key=lambda figure: -figure.rank):
        if used <= width:
            break
        used -= width_of(figure.spans) + 2
        figures.remove(figure)
    return figures


def _figures(data: Data, pad: bool) -> list[_Figure]:
    bad = data.get("nonfinite") or ()
    nonfinite = bad if isinstance(bad, list | tuple) else ()

    def figure(rank: int, name: str, key: str, text: str, width: int) -> _Figure:
        style = Style.BAD if key in nonfinite else Style.STRONG if key == "loss" else Style.PLAIN
        value = (text.rjust(width) if pad else text, style)
        return _Figure(rank, ((f"{name} ", Style.DIM), value))

    step, steps = shown(data.get("step")), shown(data.get("steps"))
    count = (f"{step.rjust(len(steps)) if pad else step}/{steps}", Style.STRONG)
    figures = [_Figure(0, (count,)), figure(1, "loss", "loss", fmt.figure(data.get("loss")), 6)]
    if data.get("lr") is not None:
        figures.append(figure(4, "lr", "lr", fmt.rate(data["lr"]), 7))
    if "grad_norm" in data:
        figures.append(figure(6, "grad", "grad_norm", fmt.short(data["grad_norm"]), 4))
    for rate, unit in ((data.get("tokens_per_s"), "tok/s"), (data.get("examples_per_s"), "ex/s")):
        if rate is not None:
            text = fmt.count(rate)
            value = (text.rjust(6) if pad else text, Style.PLAIN)
            figures.append(_Figure(5, (value, (f" {unit}", Style.DIM))))
            break
    if data.get("tokens_accuracy") is not None:
        figures.append(figure(7, "acc", "tokens_accuracy", fmt.percent(data["tokens_accuracy"]), 6))
    if data.get("epoch") is not None:
        figures.append(figure(8, "epoch", "epoch", fmt.short(data["epoch"]), 4))
    return figures
