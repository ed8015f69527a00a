"""What an event leaves in the scrollback of a live view: its lines, laid out to the terminal."""

from ftq_client.view.event_wording import found_nothing, phrase
from ftq_client.view.format import amount, clock
from ftq_client.view.fragments import Phrase, parts_line, step_line, took
from ftq_client.view.lines import Glyphs, Line, Span, Style, crop, shown, text_of, width_of, wrap
from ftq_client.view.model import JobView, ProgressTask
from ftq_client.view.next_commands import with_job
from ftq_shared.events import Data, Event, EventType

_SUBJECT = 15  # columns for what a line is about: `dataset licence` is the longest
_CLOCK_FROM = 76  # a narrower terminal has no room for the time of day
_SAMPLE_ROWS = 14  # of one sample; the whole of it is in `ftq tail --json`


def scrollback_lines(event: Event, view: JobView, *, width: int, glyphs: Glyphs) -> list[Line]:
    """Apply an event to its job and return the lines that it leaves, often none.

    The region shows states and progress. Of these only what still matters later leaves a line: a
    state with a reason, a task that is finished.
    """
    unfinished = {name for name, task in view.tasks.items() if not task.finished}
    waiting, idle_rules = view.waiting, view.idle_rules
    view.apply(event)
    if view.idle_rules > idle_rules:
        return []  # counted: one line for all of them, once another event comes
    lines: list[Line] = []
    if idle_rules and not view.idle_rules:
        lines = _laid_out(event, found_nothing(idle_rules), width, glyphs)
    return lines + _lines_of(event, view, unfinished, waiting, width, glyphs)


def _lines_of(
    event: Event,
    view: JobView,
    unfinished: set[str],
    waiting: Data,
    width: int,
    glyphs: Glyphs,
) -> list[Line]:
    """Return an event's own lines; `unfinished` and `waiting` are as they were before it."""
    match event.type:
        case EventType.PROGRESS:
            done = [task for task in view.tasks.values() if task.finished]
            new = [_task_done(task) for task in done if task.name in unfinished]
            return [line for words in new for line in _laid_out(event, words, width, glyphs)]
        case EventType.STATE if view.terminal:
            return []  # the summary says how the job ended
        case EventType.STATE if not event.data.get("reason"):
            return []
        case EventType.WAITING if waiting == view.waiting:
            return []
        case EventType.PHASE_STARTED:
            return [(), _phase_rule(event, width, glyphs)]
        case EventType.STEP:
            return [_step(event, view.step, width, glyphs)]
        case _:
            return _laid_out(event, phrase(event, glyphs), width, glyphs)


def _task_done(task: ProgressTask) -> Phrase:
    seconds = took(task.updated - task.started)
    line: Line = (
        (f"{shown(task.name)}  ", Style.PLAIN),
        (amount(task.done, task.unit), Style.STRONG),
        (f"  {seconds}" if seconds else "", Style.DIM),
    )
    return Phrase("done", line, Style.GOOD)


def _phase_rule(event: Event, width: int, glyphs: Glyphs) -> Line:
    """Return the line that a phase begins with: its name, and where it runs."""
    place = text_of(phrase(event, glyphs).line)
    lead: Line = (
        (f"{glyphs.rule * 2} ", Style.ACCENT),
        (str(event.phase or "phase"), Style.STRONG),
        (f"  {place} ", Style.DIM),
    )
    rule = glyphs.rule * max(width - width_of(lead), 2)
    return crop((*lead, (rule, Style.DIM)), width, glyphs.cut)


def _gutter(event: Event, sign: Span, subject: str, width: int) -> Line:
    """Return what stands left of the words: the time, a sign, and the subject."""
    spans: list[Span] = [(f"{clock(event.time)} ", Style.DIM)] if width >= _CLOCK_FROM else []
    style = sign[1] if sign[1] is Style.BAD else Style.PLAIN
    return (*spans, (f"{sign[0]} ", sign[1]), (f"{subject:<{_SUBJECT}} ", style))


def _step(event: Event, data: Data, width: int, glyphs: Glyphs) -> Line:
    start: Line = (*_gutter(event, (glyphs.point, Style.DIM), "", width)[:-1], ("step ", Style.DIM))
    return (*start, *step_line(data, width=width - width_of(start), pad=True))


def _laid_out(event: Event, words: Phrase, width: int, glyphs: Glyphs) -> list[Line]:
    """Return words with their gutter, wrapped to the terminal, and what belongs below them."""
    signs = {Style.GOOD: glyphs.good, Style.BAD: glyphs.bad, Style.WARN: glyphs.warn}
    sign = (signs.get(words.style, glyphs.point), words.style or Style.DIM)
    start = _gutter(event, sign, words.subject or words.head, width)
    indent = width_of(start) if width >= 50 else 4
    lines = wrap((*start, *words.line), width, indent)
    below = [_below(words, line, max(width - indent, 10)) for line in words.more]
    if words.hint:
        hint: Line = ((f"{glyphs.to} {with_job(words.hint, event.job)}", Style.STRONG),)
        below.insert(0, wrap(hint, max(width - indent, 10), 2))
    rows = [row for part in below for row in part]
    return lines + [((" " * indent, Style.PLAIN), *row) for row in _shortened(words, rows, glyphs)]


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
    more = parts_line(glyphs, f"{glyphs.cut} {hidden} more lines", first=Style.DIM)
    half = _SAMPLE_ROWS // 2
    return [*rows[: half + 1], more, *rows[half + 1 + hidden :]]
