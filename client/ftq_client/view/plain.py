"""Events as plain lines, for logs, pipes and terminals that can do no more; and as JSON lines."""

import json
from collections.abc import Mapping
from typing import TextIO

from ftq_client.view.event_wording import found_nothing, phrase
from ftq_client.view.format import clock, number, seconds_of
from ftq_client.view.fragments import Phrase
from ftq_client.view.lines import ASCII, Style, shown, text_of, write_line, write_note
from ftq_client.view.model import JobView
from ftq_client.view.next_commands import with_job
from ftq_client.view.summary import summary_lines
from ftq_shared.events import Event, EventType
from ftq_shared.redaction import escape_json

_INDENT = " " * 18  # clock, space, phase, space: where the words begin
_RESULTS = {Style.GOOD: " ok", Style.BAD: " FAILED"}
# A log gets one progress line for each tenth of a task, and one after so much silence.
_PROGRESS_SHARE = 0.1
_PROGRESS_S = 10.0


def plain_lines(event: Event) -> list[str]:
    """Return an event as lines of text: one, and indented ones below for samples and traces."""
    return _lines_of(event, phrase(event, ASCII))


def _lines_of(event: Event, words: Phrase) -> list[str]:
    start = f"{clock(event.time)} {event.phase or '-':<8} "
    first = start + _head(words) + text_of(words.line)
    if words.hint:
        first += f"  -> {with_job(words.hint, event.job)}"
    return [first.rstrip(), *(_INDENT + text_of(line).rstrip() for line in words.more)]


def _head(words: Phrase) -> str:
    """Return the first words of a line: its type; for a result also ok or FAILED, and of what."""
    if not words.subject:
        return f"{words.head} "
    return f"{words.head}{_RESULTS.get(words.style, '')}: {words.subject}: "


class PlainView:
    """Writes plain lines; with several jobs, each line begins with its job's id."""

    def __init__(
        self, stream: TextIO, *, many: bool = False, names: Mapping[str, str] | None = None
    ) -> None:
        self._stream = stream
        self._many = many
        self._names = names or {}
        self._jobs: dict[str, JobView] = {}
        self._written: dict[tuple[str, str], tuple[float, float]] = {}  # progress: share, time
        self._closed = False

    def skip(self, event: Event) -> None:
        """Take an event into account that gets no line."""
        self._view(event).apply(event)

    def _view(self, event: Event) -> JobView:
        if event.job not in self._jobs:
            self._jobs[event.job] = JobView(event.job, self._names.get(event.job, ""))
        return self._jobs[event.job]

    def event(self, event: Event) -> None:
        view = self._view(event)
        idle_rules = view.idle_rules
        view.apply(event)
        if view.idle_rules > idle_rules:
            return  # counted: one line for all of them, once another event comes
        if idle_rules and not view.idle_rules:
            self._write(event, _lines_of(event, found_nothing(idle_rules)))
        if event.type is EventType.PROGRESS and not self._due(event):
            return
        self._write(event, plain_lines(event))

    def _write(self, event: Event, lines: list[str]) -> None:
        prefix = f"{shown(event.job)} " if self._many else ""
        for line in lines:
            write_line(self._stream, prefix + line)

    def _due(self, event: Event) -> bool:
        """Return whether the log gets a line for this progress event."""
        data = event.data
        if data.get("unit") == "s" and (number(data.get("done")) or 0.0) < _PROGRESS_S:
            return False  # what takes no longer needs no word
        key = (event.job, str(data.get("task")))
        done, total = number(data.get("done")) or 0.0, number(data.get("total"))
        share, now = (done / total if total else 0.0), seconds_of(event.time)
        last = self._written.get(key)
        if last is not None and share < 1.0:
            before, then = last
            if 0 <= share - before < _PROGRESS_SHARE and now - then < _PROGRESS_S:
                return False
        self._written[key] = (share, now)
        return True

    def note(self, text: str) -> None:
        """Write words for people to stderr."""
        write_note(text)

    def close(self) -> None:
        """Write the summary of each job that has ended."""
        if self._closed:
            return
        self._closed = True
        for view in self._jobs.values():
            for line in summary_lines(view, ASCII):
                write_line(self._stream, text_of(line).rstrip())


class JsonView:
    """Writes each event as one line of JSON and nothing else."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def skip(self, event: Event) -> None:
        """Do nothing: programs get what they asked for."""

    def event(self, event: Event) -> None:
        line = escape_json(event.to_json())
        try:
            line.encode(getattr(self._stream, "encoding", None) or "utf-8")
        except UnicodeEncodeError:  # JSON has escapes of its own for what does not fit
            line = json.dumps(json.loads(line), separators=(",", ":"))
        write_line(self._stream, line)

    def note(self, text: str) -> None:
        """Write words for people to stderr."""
        write_note(text)

    def close(self) -> None:
        """Do nothing: each job's last event carries its outcome."""
