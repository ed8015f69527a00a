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

from ftq_client.view.format import seconds_of
from ftq_client.view.lines import Line, Style, glyphs_for, shown, width_of, wrap, write_note
from ftq_client.view.model import JobView
from ftq_client.view.region import compact_lines, region_lines
from ftq_client.view.scrollback import scrollback_lines
from ftq_client.view.summary import INDENT, summary_lines
from ftq_shared.events import Event

BUNDLE_S = 0.03  # the events of a burst that come within this time are drawn together
_ODD_S = 86_400.0  # a clock that is further ahead is no clock
_ECHO = 2  # columns that a terminal needs for its ^C or ^Z: on a full line they would wrap
_NAMED = 12  # columns of a job's id in front of its lines, where there are several
TICK_S = 0.5  # the clocks in the region go on while nothing happens


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
