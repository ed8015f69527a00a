"""Following jobs on a terminal or into a pipe, until they end or the person leaves."""

import queue
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from ftq_client.client import Client
from ftq_client.terminal_signals import terminal_signals
from ftq_client.view import View, make_view
from ftq_shared.errors import BrokerUnreachable, Exit, FtqError
from ftq_shared.events import Event, EventType, rfc3339
from ftq_shared.states import JobState


@dataclass(frozen=True)
class Following:
    """What a person wants to see."""

    jobs: Sequence[str]
    as_json: bool = False
    after: int = 0  # events up to this number are left out
    since_s: float | None = None  # only events that are not older
    follow: bool = True
    may_leave: bool = True  # Ctrl-C leaves the jobs running; else it is raised


def follow(client: Client, wanted: Following) -> int:
    """Show the events and return the exit code; of several jobs, the worst.

    Ctrl-C leaves the jobs running and prints how to come back, or raises KeyboardInterrupt.
    """
    many = len(wanted.jobs) > 1
    ends: dict[str, int] = {}  # exit codes by job, from the jobs' last events
    is_wanted = _filter(wanted)
    view: View | None = None
    try:
        names = {job: client.get(job).name for job in wanted.jobs}
        ahead_s = client.ahead_s() if sys.stdout.isatty() and not wanted.as_json else None
        view = make_view(sys.stdout, json=wanted.as_json, many=many, names=names, ahead_s=ahead_s)
        with terminal_signals(view):
            _note_missing_workers(client, wanted, view)
            for event in _events(client, wanted, view):
                view.event(event) if is_wanted(event) else view.skip(event)
                if event.type is EventType.STATE:
                    ends[event.job] = end_code(event)
    except KeyboardInterrupt:
        if view:
            view.close()
        if not wanted.may_leave:
            raise
        _print_way_back(client, wanted)
        return Exit.INTERRUPTED
    finally:
        if view:
            view.close()
    return max(_exit_code(client, job, ends.get(job, -1)) for job in wanted.jobs)


def end_code(event: Event) -> int:
    """Return the exit code that a state event gives; -1 for none that a process can have."""
    code = event.data.get("exit_code")
    return code if type(code) is int and 0 <= code <= 255 else -1


def _note_missing_workers(client: Client, wanted: Following, view: View) -> None:
    """Note at once when the job waits and no worker is online."""
    try:
        waiting = any(client.get(job).state is JobState.QUEUED for job in wanted.jobs)
        missing = waiting and not client.online()
    except BrokerUnreachable:  # a short outage: the tail waits until it ends
        return
    if missing:
        view.note(
            "no worker is online; the job waits. Start one: `ftq worker` on a host, `ftq up` here"
        )


def _filter(wanted: Following) -> Callable[[Event], bool]:
    """Return what says whether an event is shown; the others only keep head and summary right."""
    oldest = "" if wanted.since_s is None else rfc3339(time.time() - wanted.since_s)
    return lambda event: event.seq > wanted.after and event.time >= oldest


def _events(client: Client, wanted: Following, view: View) -> Iterator[Event]:
    # Programs get no head: for them nothing is read that is not shown.
    after = wanted.after if wanted.as_json else 0
    streams = [
        client.tail(job, after=after, follow=wanted.follow, on_outage=_Once(view))
        for job in wanted.jobs
    ]
    return streams[0] if len(streams) == 1 else _merged(streams)


class _Once:
    """Shows a note unless it repeats the one before: an outage is noted once."""

    def __init__(self, view: View) -> None:
        self._view, self._last = view, ""

    def __call__(self, text: str) -> None:
        if text != self._last:
            self._view.note(text)
        self._last = text


def _merged(streams: Sequence[Iterator[Event]]) -> Iterator[Event]:
    """Yield from several streams as their events come; one thread each."""
    events: queue.Queue[Event | BaseException | None] = queue.Queue(1000)

    def read(stream: Iterator[Event]) -> None:
        try:
            for event in stream:
                events.put(event)
            events.put(None)
        except BaseException as error:  # raised again below, in the reader's thread
            events.put(error)

    for stream in streams:
        threading.Thread(target=read, args=(stream,), daemon=True).start()
    left = len(streams)
    while left:
        item = events.get()
        if item is None:
            left -= 1
        elif isinstance(item, BaseException):
            raise item
        else:
            yield item


def _exit_code(client: Client, job: str, last: int) -> int:
    """Return the exit code of a job's end; a job that has not ended is no failure.

    `last` is the exit code in its last event; -1 means that there is none: then the record has it.
    """
    if last >= 0:
        return last
    record = client.get(job)
    return record.exit_code if record.state.terminal else Exit.OK


def _print_way_back(client: Client, wanted: Following) -> None:
    """Print that the jobs go on, and how to watch or cancel them."""
    for job in wanted.jobs:
        try:
            running = not client.get(job).state.terminal
        except FtqError:
            running = True
        if running:
            print(  # noqa: T201  for people, after Ctrl-C
                f"\n{job} goes on without you.\n  back: ftq tail {job}\n  stop: ftq cancel {job}",
                file=sys.stderr,
            )
