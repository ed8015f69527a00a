"""The lines that an event leaves on a terminal for good, above the live region."""

from typing import Any

from ftq_client.view.format import amount, clock
from ftq_client.view.lines import Glyphs, Ink, Line, Span, crop, shown, text_of, width_of, wrap
from ftq_client.view.model import JobView, Task
from ftq_client.view.phrases import Phrase, facts_line, took
from ftq_client.view.steps import step_line
from ftq_client.view.wording import phrase
from ftq_client.view.wording_data import found_nothing
from ftq_shared.events import Event, EventType

_SUBJECT = 15  # columns for what a line is about: `dataset licence` is the longest
_CLOCK_FROM = 76  # a narrower terminal has no room for the time of day
_SAMPLE_ROWS = 14  # of one sample; the whole of it is in `ftq tail --json`


def permanent_lines(event: Event, view: JobView, *, width: int, glyphs: Glyphs) -> list[Line]:
    """Apply an event to its job and return the lines that it leaves, often none.

    States and progress live in the region; they leave a line where they say something that will
    still matter when it has moved on.
    """
    unfinished = {name for name, task in view.tasks.items() if not task.finished}
    waiting, idle_rules = view.waiting, view.idle_rules
    view.apply(event)
    if event.type is EventType.CLEANING and view.idle_rules > idle_rules:
        return []  # told in one line, once the rules are through
    lines: list[Line] = []
    if idle_rules and not view.idle_rules:
        lines = _laid_out(event, found_nothing(idle_rules), width, glyphs)
    return lines + _lines_of(event, view, unfinished, waiting, width, glyphs)


def _lines_of(
    event: Event,
    view: JobView,
    unfinished: set[str],
    waiting: dict[str, Any],
    width: int,
    glyphs: Glyphs,
) -> list[Line]:
    """Return an event's own lines; `unfinished` and `waiting` are as they were before it."""
    match event.type:
        case EventType.PROGRESS:
            task = view.tasks.get(str(event.data.get("task")))
            new = task is not None and task.finished and task.name in unfinished
            return _laid_out(event, _task_done(task), width, glyphs) if task and new else []
        # How it ended is what the closing block says.
        case EventType.STATE if view.terminal or not event.data.get("reason"):
            return []
        case EventType.WAITING if waiting == view.waiting:
            return []
        case EventType.PHASE_STARTED:
            return [(), _phase_rule(event, width, glyphs)]
        case EventType.STEP:
            return [_step(event, width, glyphs)]
        case _:
            return _laid_out(event, phrase(event, glyphs), width, glyphs)


def _task_done(task: Task) -> Phrase:
    seconds = took(task.updated - task.started)
    line: Line = (
        (f"{shown(task.name)}  ", Ink.PLAIN),
        (amount(task.done, task.unit), Ink.STRONG),
        (f"  {seconds}" if seconds else "", Ink.DIM),
    )
    return Phrase("done", line, Ink.GOOD)


def _phase_rule(event: Event, width: int, glyphs: Glyphs) -> Line:
    """Return the line that a phase begins with: its name, and where it runs."""
    facts = text_of(phrase(event, glyphs).line)
    lead: Line = (
        (f"{glyphs.rule * 2} ", Ink.ACCENT),
        (str(event.phase or "phase"), Ink.STRONG),
        (f"  {facts} ", Ink.DIM),
    )
    rule = glyphs.rule * max(width - width_of(lead), 2)
    return crop((*lead, (rule, Ink.DIM)), width, glyphs.cut)


def _gutter(event: Event, sign: Span, subject: str, width: int) -> Line:
    """Return what stands left of the words: time, sign, and what they are about."""
    spans: list[Span] = [(f"{clock(event.time)} ", Ink.DIM)] if width >= _CLOCK_FROM else []
    ink = sign[1] if sign[1] is Ink.BAD else Ink.PLAIN
    return (*spans, (f"{sign[0]} ", sign[1]), (f"{subject:<{_SUBJECT}} ", ink))


def _step(event: Event, width: int, glyphs: Glyphs) -> Line:
    start: Line = (*_gutter(event, (glyphs.point, Ink.DIM), "", width)[:-1], ("step ", Ink.DIM))
    return (*start, *step_line(event.data, width=width - width_of(start), pad=True))


def _laid_out(event: Event, words: Phrase, width: int, glyphs: Glyphs) -> list[Line]:
    """Return words with their gutter, wrapped to the terminal, and what belongs below them."""
    signs = {Ink.GOOD: glyphs.good, Ink.BAD: glyphs.bad, Ink.WARN: glyphs.warn}
    sign = (signs.get(words.ink, glyphs.point), words.ink or Ink.DIM)
    start = _gutter(event, sign, words.subject or words.head, width)
    indent = width_of(start) if width >= 50 else 4
    lines = wrap((*start, *words.line), width, indent)
    below = [_below(words, line, max(width - indent, 10)) for line in words.more]
    if words.hint:
        hint: Line = ((f"{glyphs.to} {words.hint}", Ink.STRONG),)
        below.insert(0, wrap(hint, max(width - indent, 10), 2))
    rows = [row for part in below for row in part]
    return lines + [((" " * indent, Ink.PLAIN), *row) for row in _shortened(words, rows, glyphs)]


def _below(words: Phrase, line: Line, width: int) -> list[Line]:
    if words.head != "sample":
        return wrap(line, width, 2)
    # The sign in front says which part is trained: each row of a long line carries it.
    sign, *rest = line
    return [(sign, *row) for row in wrap(tuple(rest), width - 2)]


def _shortened(words: Phrase, rows: list[Line], glyphs: Glyphs) -> list[Line]:
    if words.head != "sample" or len(rows) <= _SAMPLE_ROWS:
        return rows
    hidden = len(rows) - _SAMPLE_ROWS + 1
    more = facts_line(glyphs, f"{glyphs.cut} {hidden} more lines", first=Ink.DIM)
    half = _SAMPLE_ROWS // 2
    return [*rows[: half + 1], more, *rows[half + 1 + hidden :]]
