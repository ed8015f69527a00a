"""The live view of a terminal: lines that scroll up, and a region at the foot that moves.

Every event is on the screen at once: the first after a pause immediately, those of a burst in
bundles of 30 ms, because a terminal shows no more pictures than that and a replay of ten thousand
steps must not take minutes.
"""

import atexit
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from types import TracebackType

from rich.console import Console, ConsoleOptions
from rich.control import Control
from rich.live import Live
from rich.segment import ControlType, Segment

from ftq_client.view.base import write_note
from ftq_client.view.format import seconds_of
from ftq_client.view.lines import Ink, Line, glyphs_for, shown, width_of, wrap
from ftq_client.view.model import JobView
from ftq_client.view.region import compact_lines, region_lines
from ftq_client.view.scrollback import permanent_lines
from ftq_client.view.summary import INDENT, summary_lines
from ftq_shared.events import Event

BUNDLE_S = 0.03  # events of one burst that are drawn together
_NAMED = 12  # columns of a job's id in front of its lines, where there are several
TICK_S = 0.5  # the clocks in the region go on while nothing happens


class LiveView:
    """Shows jobs on a terminal until `close`; a thread of its own keeps the clocks going."""

    def __init__(
        self, console: Console, *, many: bool = False, names: Mapping[str, str] | None = None
    ) -> None:
        self._console = console
        self._glyphs = glyphs_for(console.encoding)
        self._many = many
        self._names = names or {}
        self._jobs: dict[str, JobView] = {}
        self._behind: float | None = None  # smallest age of an event so far: the clocks' skew
        self._pending: list[Line] = []
        self._drawn: list[int] = []  # widths of the region's lines on the screen
        self._drawn_width = console.width
        self._flushed = 0.0
        self._lock = threading.RLock()
        self._wake = threading.Event()
        self._closed = False
        self._live = Live(
            _Region(self),
            console=console,
            auto_refresh=False,
            transient=True,
            # What goes to a file must not land on the screen.
            redirect_stderr=sys.stderr.isatty(),
        )
        self._live.start()
        self._ticker = threading.Thread(target=self._tick, name="ftq-view", daemon=True)
        self._ticker.start()
        # A crash elsewhere must not leave a terminal without its cursor.
        atexit.register(self.close)

    def event(self, event: Event) -> None:
        """Show one event."""
        with self._lock:
            view = self._jobs.get(event.job) or self._new_job(event.job)
            age = time.time() - seconds_of(event.time)
            self._behind = age if self._behind is None else min(self._behind, age)
            lines = permanent_lines(event, view, width=self._width(), glyphs=self._glyphs)
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
            self._pending += [((shown(line), Ink.WARN),) for line in text.splitlines()]
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
                self._live.stop()
            ends = [line for view in self._jobs.values() for line in self._summary(view)]
            self._console.print(_Lines(ends), crop=False, end="")
        self._wake.set()
        self._ticker.join(timeout=1)

    def __enter__(self) -> "LiveView":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _new_job(self, job: str) -> JobView:
        self._jobs[job] = JobView(job, self._names.get(job, ""))
        return self._jobs[job]

    def _summary(self, view: JobView) -> list[Line]:
        width, rows = self._console.width, []
        for line in summary_lines(view, self._glyphs):
            # Commands and URLs are copied: only the terminal may wrap them, it knows they go on.
            copied = bool(line) and line[-1][1] is Ink.ACCENT
            rows += [line] if copied else wrap(line, width, INDENT)
        return rows

    def _width(self) -> int:
        # As of the last picture: to ask the terminal ten thousand times takes long.
        return self._drawn_width - (_NAMED if self._many else 0)

    def _named(self, view: JobView, line: Line) -> Line:
        return (
            ((f"{shown(view.job)[: _NAMED - 1]:<{_NAMED}}", Ink.DIM), *line) if self._many else line
        )

    def _flush(self) -> None:
        """Draw what waits, and the region below it."""
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
        """Draw when something waits or a clock must move on; ends with the view."""
        while not self._closed:
            if self._wake.wait(TICK_S):
                self._wake.clear()
                time.sleep(BUNDLE_S)
            with self._lock:
                if not self._closed:
                    self._flush()

    def region(self, width: int) -> list[Line]:
        """Return the region's lines as they are now; remembers their widths."""
        now = time.time() - (self._behind or 0.0)
        views = [view for view in self._jobs.values() if not view.terminal]
        draw = compact_lines if self._many else region_lines
        lines = [
            line for view in views for line in draw(view, now=now, width=width, glyphs=self._glyphs)
        ]
        room = max(self._console.height - 2, 1)
        if len(lines) > room:
            lines = [*lines[: room - 1], ((f"and {len(lines) - room + 1} more", Ink.DIM),)]
        self._drawn, self._drawn_width = [width_of(line) for line in lines], width
        return lines


class _Lines:
    """Lines of ours as rich draws them: straight to segments, so that no text is markup."""

    def __init__(self, lines: Iterable[Line]) -> None:
        self._lines = lines

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Segment]:
        styles = {ink: console.get_style(ink) if ink else None for ink in Ink}
        for line in self._lines:
            for text, ink in line:
                yield Segment(text, styles[ink])
            yield Segment.line()


class _Region:
    """The live region; asked for its lines each time it is drawn."""

    def __init__(self, view: LiveView) -> None:
        self._view = view

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Segment]:
        yield from _Lines(self._view.region(options.max_width)).__rich_console__(console, options)
