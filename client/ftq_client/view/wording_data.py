"""The words of the prepare phase: the dataset, its sample rows, the cleaning, the golden set."""

from collections.abc import Mapping
from typing import Any

from ftq_client.view import format as fmt
from ftq_client.view.lines import Glyphs, Ink, Line, shown
from ftq_client.view.phrases import Data, Phrase, facts_line, names, said
from ftq_shared.events import Event


def dataset(event: Event, data: Data, glyphs: Glyphs) -> Phrase:
    """Word what the dataset looks like."""
    tokens, splits = data.get("tokens"), data.get("splits")
    rows = data.get("rows")
    facts = (
        "rows not counted yet" if rows is None else f"{fmt.count(rows)} rows",
        f"columns {names(data['columns'])}" if data.get("columns") else "",
        said(data, "shape", "read as "),
        said(data, "task", "task "),
        said(data, "labels", "", " labels"),
        f"tokens per row {_pairs(tokens)}" if isinstance(tokens, Mapping) else "",
        f"splits {_pairs(splits)}" if isinstance(splits, Mapping) else "",
        said(data, "source", "from "),
    )
    return Phrase("dataset", facts_line(glyphs, *facts, first=Ink.STRONG))


def _pairs(table: Mapping[str, Any]) -> str:
    """Return names with their figures; a figure that is not known yet is left out."""
    return ", ".join(
        shown(key) if value is None else f"{shown(key)} {fmt.count(value)}"
        for key, value in table.items()
    )


def sample(event: Event, data: Data, glyphs: Glyphs) -> Phrase:
    """Word a row as the model will see it; the part that is trained has a sign of its own."""
    whole = str(data.get("text") or "")
    at = _trained_from(whole, str(data.get("trained") or ""))
    # All of it is trained: nothing to tell apart.
    split = at if 0 < at < len(whole) else None
    facts = (
        f"row {shown(data.get('row'))}",
        said(data, "set"),
        said(data, "label", "label "),
        said(data, "tokens", "", " tokens"),
        f"{glyphs.trained} is what the loss counts" if split else "",
    )
    lines = _quoted(whole[:split], f"{glyphs.quote} ", Ink.PLAIN)
    if split:
        lines += _quoted(whole[split:], f"{glyphs.trained} ", Ink.GOOD)
    return Phrase("sample", facts_line(glyphs, *facts, first=Ink.STRONG), more=tuple(lines))


def _quoted(text: str, sign: str, ink: Ink) -> list[Line]:
    return [((sign, ink), (shown(row), ink)) for row in text.strip("\r\n").split("\n")]


def _trained_from(whole: str, trained: str) -> int:
    """Return where the trained part begins, -1 when it cannot be told.

    The event's text is cut, so the end of the trained part may be missing.
    """
    at = whole.rfind(trained) if trained else -1
    if trained and at < 0:
        at = whole.find(trained[:40])
        at = at if at >= 0 and trained.startswith(whole[at:]) else -1
    return at


def cleaning(event: Event, data: Data, glyphs: Glyphs) -> Phrase:
    """Word what one cleaning rule did."""
    rows_in, rows_out = fmt.number(data.get("rows_in")), fmt.number(data.get("rows_out"))
    gone = rows_in - rows_out if rows_in is not None and rows_out is not None else 0
    line: Line = (
        (f"{shown(data.get('rule')):<24} ", Ink.PLAIN),
        (f"{fmt.count(rows_in)} {glyphs.to} {fmt.count(rows_out)} rows", Ink.PLAIN),
        (f"  {-gone:+,.0f}" if gone else "", Ink.WARN),
        (said(data, "reason", "  "), Ink.DIM),
    )
    examples = data.get("examples")
    found = examples if isinstance(examples, list) else []
    return Phrase("cleaning", line, more=tuple(((_finding(e), Ink.DIM),) for e in found[:3]))


def found_nothing(rules: int) -> Phrase:
    """Word the cleaning rules that left every row as it was."""
    text = "1 rule found nothing" if rules == 1 else f"{rules} rules found nothing"
    return Phrase("cleaning", ((text, Ink.DIM),))


def _finding(example: Any) -> str:
    """Return one finding of a cleaning rule: where it was, and what was wrong."""
    if not isinstance(example, Mapping):
        return shown(example)
    where = " ".join(
        (f"{key} " if key != "file" else "") + shown(example[key])
        for key in ("file", "line", "row", "field")
        if example.get(key) is not None
    )
    known = ("file", "line", "row", "field")
    rest = ", ".join(shown(value) for key, value in example.items() if key not in known)
    return ": ".join(part for part in (where, rest) if part)


def golden(event: Event, data: Data, glyphs: Glyphs) -> Phrase:
    """Word the golden set."""
    strata = data.get("strata")
    facts = (
        f"{fmt.count(data.get('rows'))} rows from {shown(data.get('source'))}",
        said(data, "reason"),
        f"{len(strata)} strata" if isinstance(strata, Mapping) and strata else "",
        f"validation {fmt.count(data['validation_rows'])} rows"
        if data.get("validation_rows") is not None
        else "",
        f"{fmt.count(data['removed_from_train'])} equal rows left train"
        if data.get("removed_from_train")
        else "",
        f"sha256 {shown(data.get('sha256'))[:12]}",
    )
    return Phrase("golden", facts_line(glyphs, *facts, first=Ink.STRONG))
