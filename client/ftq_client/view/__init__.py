"""How events are shown to people and programs: a live terminal, plain lines, or JSON lines."""

import os
from collections.abc import Mapping
from typing import Protocol, TextIO

from ftq_client.view.plain import JsonView, PlainView
from ftq_shared.events import Event


class View(Protocol):
    """Shows the events of one job, or of several, as they come."""

    def event(self, event: Event) -> None:
        """Show one event at once."""

    def skip(self, event: Event) -> None:
        """Take an event into account, for the head and the summary, without showing it."""

    def note(self, text: str) -> None:
        """Tell people something that is no event; never goes to stdout as data."""

    def close(self) -> None:
        """Give the terminal back and show how each job ended; safe to call twice."""


def make_view(
    stream: TextIO,
    *,
    json: bool = False,
    tty: bool | None = None,
    many: bool = False,
    names: Mapping[str, str] | None = None,
    ahead_s: float | None = None,
) -> View:
    """Return the view for `stream`: JSON lines when asked, live on a terminal, else plain lines.

    `tty` says whether the stream is a terminal; None asks the stream, and a dumb terminal counts as
    a file. `many` puts the job's id in front of every line; `names` are the jobs' names by id;
    `ahead_s` is how far the events' clock is ahead of this one, None where nobody has asked.
    """
    if json:
        return JsonView(stream)
    if not (_can_redraw(stream) if tty is None else tty):
        return PlainView(stream, many=many, names=names)
    # rich takes a tenth of a second to import; a log file needs none of it.
    from rich.console import Console

    from ftq_client.view.live import LiveView

    console = Console(file=stream, force_terminal=True, highlight=False, markup=False, emoji=False)
    return LiveView(console, many=many, names=names, ahead_s=ahead_s)


def _can_redraw(stream: TextIO) -> bool:
    return stream.isatty() and os.environ.get("TERM", "").lower() not in ("", "dumb", "unknown")
