"""The live view of a terminal: lines that scroll up, and a region at the foot that moves.

An event that comes after a pause is drawn at once. The events of a burst are drawn together, every
30 ms: a terminal shows no more pictures than that, and a replay of ten thousand steps must not take
minutes.
"""

import atexit
import os
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping

from rich.console import Console, ConsoleOptions
from rich.control import Control
from rich.live import Live
from rich.segment import ControlType, Segment

from ftq_client.view.event_wording import found_nothing, phrase
from ftq_client.view.format import amount, clock, seconds_of
from ftq_client.view.fragments import Phrase, parts_line, step_line, took
from ftq_client.view.lines import (
    Glyphs,
    Line,
    Span,
    Style,
    crop,
    glyphs_for,
    shown,
    text_of,
    width_of,
    wrap,
    write_note,
)
from ftq_client.view.model import JobView, ProgressTask
from ftq_client.view.next_commands import with_job
from ftq_client.view.region import compact_lines, region_lines
from ftq_client.view.summary import INDENT, summary_lines
from ftq_shared.events import Data, Event, EventType

BUNDLE_S = 0.03  # the events of a burst that come within this time are drawn together
_ODD_S = 86_400.0  # a clock that is further ahead is no clock
_ECHO = 2  # columns that a terminal needs for its ^C or ^Z: on a full line they would wrap
_NAMED = 12  # columns of a job's id in front of its lines, where there are several
TICK_S = 0.5  # the clocks in the region go on while nothing happens
_SUBJECT = 15  # columns for what a line is about: `dataset licence` is the longest
_CLOCK_FROM = 76  # a narrower terminal has no room for the time of day
_SAMPLE_ROWS = 14  # of one sample; the whole of it is in `ftq tail --json`


class LiveView:
    """Shows jobs on a terminal until `close`; a thread of its own keeps the clocks going."""

    def __init__(
        self,
        console: Console,
        *,
        many: bool = False,
        names: Mapping[str, str] | None = None,
        ahead_s: float | None = None,
    ) -> None:
        """Take over the terminal. `ahead_s` is how far the events' clock is ahead of this one.

        None takes it from the events: the youngest is taken to be of this moment.
        """
        self._console = console
        self._glyphs = glyphs_for(console.encoding)
        self._many = many
        self._names = names or {}
        self._jobs: dict[str, JobView] = {}
        self._ahead = ahead_s
        self._is_measured = ahead_s is not None
        self._pending: list[Line] = []
        self._drawn: list[int] = []  # widths of the region's lines on the screen
        self._drawn_width = console.width
        self._flushed = 0.0
        self._lock = threading.RLock()
        self._wake = threading.Event()
        self._closed = False
        self._live: Live | None = None  # None while the terminal is somebody else's
        self._start_live()
        self._ticker = threading.Thread(target=self._tick, name="ftq-view", daemon=True)
        self._ticker.start()
        # A crash elsewhere must not leave a terminal without its cursor.
        atexit.register(self.close)

    def _start_live(self) -> None:
        self._live = Live(
            _Region(self),
            console=self._console,
            auto_refresh=False,
            transient=True,
            # rich would draw on the screen what the person redirected to a file.
            redirect_stderr=sys.stderr.isatty(),
        )
        self._live.start()

    def suspend(self) -> None:
        """Give the terminal back, cursor and all, until `resume`; events are kept meanwhile."""
        with self._lock:
            if self._live:
                self._live.stop()
                self._live = None

    def resume(self) -> None:
        """Take the terminal again, once this process is in its foreground."""
        with self._lock:
            if not (self._live or self._closed) and _in_foreground(self._console):
                self._drawn = []
                self._start_live()
                self._flush()

    def skip(self, event: Event) -> None:
        """Take an event into account that leaves no line."""
        with self._lock:
            self._see(event).apply(event)

    def _see(self, event: Event) -> JobView:
        """Return the job of an event; its time tells how far the clocks are apart."""
        ahead = seconds_of(event.time) - time.time()
        if not self._is_measured:
            self._ahead = ahead if self._ahead is None else max(self._ahead, ahead)
        elif self._ahead is not None and self._ahead < ahead < _ODD_S:
            self._ahead = ahead  # the worker's clock is ahead of the broker's
        return self._jobs.get(event.job) or self._new_job(event.job)

    def event(self, event: Event) -> None:
        with self._lock:
            view = self._see(event)
            lines = scrollback_lines(event, view, width=self._width(), glyphs=self._glyphs)
            self._pending += [self._named(view, line) for line in lines]
            if time.monotonic() - self._flushed >= BUNDLE_S:
                self._flush()
            else:
                self._wake.set()

    def note(self, text: str) -> None:
        """Tell people something: above the region, or on stderr where that is a file."""
        with self._lock:
            if self._closed or not sys.stderr.isatty():
                write_note(text)
                return
            self._pending += [((shown(line), Style.WARN),) for line in text.splitlines()]
            self._flush()

    def close(self) -> None:
        """Take the region away, give the cursor back, and show how each job ended."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            atexit.unregister(self.close)
            try:
                self._flush()
            finally:
                self.suspend()
            ends = [line for view in self._jobs.values() for line in self._summary(view)]
            self._console.print(_Lines(ends), crop=False, end="")
        self._wake.set()
        self._ticker.join(timeout=1)

    def _new_job(self, job: str) -> JobView:
        self._jobs[job] = JobView(job, self._names.get(job, ""))
        return self._jobs[job]

    def _summary(self, view: JobView) -> list[Line]:
        width, rows = self._console.width, []
        for line in summary_lines(view, self._glyphs):
            # People copy commands and URLs: a line break of ours would be copied with them.
            copied = bool(line) and line[-1][1] is Style.ACCENT
            rows += [line] if copied else wrap(line, width, INDENT)
        return rows

    def _width(self) -> int:
        # That of the last picture: asking the terminal at each of ten thousand events takes long.
        return self._drawn_width - (_NAMED if self._many else 0)

    def _named(self, view: JobView, line: Line) -> Line:
        job = shown(view.job)[: _NAMED - 1]
        return ((f"{job:<{_NAMED}}", Style.DIM), *line) if self._many else line

    def _flush(self) -> None:
        """Draw the pending lines, and the region below them."""
        if not (self._live or self._closed):
            return
        if self._console.width != self._drawn_width:
            self._erase_wrapped()
        lines, self._pending = self._pending, []
        # Live draws the region again below whatever is printed, so one print does both.
        self._console.print(_Lines(lines), crop=False, end="")
        self._flushed = time.monotonic()

    def _erase_wrapped(self) -> None:
        """Erase the rows that a narrower window has made of the region's lines.

        rich goes up as many rows as it drew lines; a line that wrapped since takes more.
        """
        width = max(self._console.width, 1)
        extra = sum(max(cells - 1, 0) // width for cells in self._drawn)
        up = [(ControlType.ERASE_IN_LINE, 2), (ControlType.CURSOR_UP, 1)] * extra
        if up:
            self._console.control(Control(ControlType.CARRIAGE_RETURN, *up))

    def _tick(self) -> None:
        """Draw when lines are pending or a clock must move on, until the view closes."""
        while not self._closed:
            if self._wake.wait(TICK_S):
                self._wake.clear()
                time.sleep(BUNDLE_S)
            self.resume()
            with self._lock:
                if not self._closed:
                    self._flush()

    def region(self, width: int) -> list[Line]:
        """Return the region's lines as they are now; remembers their widths."""
        now = time.time() + (self._ahead or 0.0)
        views = [view for view in self._jobs.values() if not view.terminal]
        draw = compact_lines if self._many else region_lines
        room = max(width - _ECHO, 1)
        lines = [
            line for view in views for line in draw(view, now=now, width=room, glyphs=self._glyphs)
        ]
        room = max(self._console.height - 2, 1)
        if len(lines) > room:
            lines = [*lines[: room - 1], ((f"and {len(lines) - room + 1} more", Style.DIM),)]
        self._drawn, self._drawn_width = [width_of(line) for line in lines], width
        return lines


def _in_foreground(console: Console) -> bool:
    """Return whether this process may draw: a shell has not put it into the background."""
    try:
        return os.tcgetpgrp(console.file.fileno()) == os.getpgrp()
    except (OSError, ValueError):  # no terminal, or none of ours
        return True


class _Lines:
    """Our lines as rich's segments, so that rich takes no text of theirs for markup."""

    def __init__(self, lines: Iterable[Line]) -> None:
        self._lines = lines

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Segment]:
        looks = {style: console.get_style(style) if style else None for style in Style}
        for line in self._lines:
            for text, style in line:
                yield Segment(text, looks[style])
            yield Segment.line()


class _Region:
    """The live region: rich asks it for its lines at each picture."""

    def __init__(self, view: LiveView) -> None:
        self._view = view

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Segment]:
        yield from _Lines(self._view.region(options.max_width)).__rich_console__(console, options)


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
