"""The seam between the commands and what people or programs see: the `View` protocol."""

import sys
from typing import Protocol, TextIO

from ftq_client.view.lines import shown
from ftq_shared.events import Event


class View(Protocol):
    """Shows the events of one job, or of several, as they come."""

    def event(self, event: Event) -> None:
        """Show one event at once."""

    def note(self, text: str) -> None:
        """Tell people something that is no event; never goes to stdout as data."""

    def close(self) -> None:
        """Give the terminal back and show how each job ended; safe to call twice."""


def write_note(text: str, stream: TextIO | None = None) -> None:
    """Write words for people to stderr, line by line, with control characters escaped."""
    out = stream or sys.stderr
    for line in text.splitlines():
        write_line(out, shown(line))


def write_line(stream: TextIO, line: str) -> None:
    """Write one line and flush it; what the stream's encoding lacks is shown escaped."""
    try:
        stream.write(f"{line}\n")
    except UnicodeEncodeError:
        encoding = getattr(stream, "encoding", None) or "ascii"
        stream.write(line.encode(encoding, "backslashreplace").decode(encoding) + "\n")
    stream.flush()
