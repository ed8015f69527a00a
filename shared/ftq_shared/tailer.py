"""Follow a job's events: every one, in order, once, whatever breaks in between.

Subscribe first; on every acknowledgement (the first and after each reconnect) read the Stream
from where we are; then follow the channel, drop what we have, fill what we lack; on silence read
the Stream, because a connection can be dead without an error.
"""

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypedDict

from ftq_shared import keys
from ftq_shared.errors import BrokerUnreachable
from ftq_shared.events import Event, EventType
from ftq_shared.states import TERMINAL

if TYPE_CHECKING:
    from redis import Redis
    from redis.client import PubSub

log = logging.getLogger(__name__)

SILENCE_S = 1.0  # after so long without a message the Stream is read
OUTAGE_S = 60.0  # a broker that is away for longer ends the tail
PAGE = 1000  # events per read
_LAST_ID = 2**64 - 1  # the largest number of a Stream's entry


class _Message(TypedDict):
    """What the channel gives: a published line, or the acknowledgement of a subscribe."""

    type: str  # message or subscribe
    data: str  # the event, on a message


class Tailer:
    """One reader of one job. Not thread-safe; make one for each."""

    def __init__(
        self,
        redis: "Redis",
        job: str,
        *,
        after: int = 0,
        on_outage: Callable[[str], None] = lambda _: None,
        outage_s: float = OUTAGE_S,
    ) -> None:
        self._redis = redis
        self._job = job
        self._last = after
        self._on_outage = on_outage
        self._outage_s = outage_s
        self._down_since: float | None = None  # monotonic; None while the broker answers
        self._done = False

    def replay(self) -> Iterator[Event]:
        """Yield what is stored now and not yet yielded."""
        if not self._redis.exists(keys.events(self._job)):
            yield from self._only_milestones()
        while page := self._read(keys.events(self._job), self._last + 1):
            first = page[0][0]
            if first > self._last + 1:
                yield from self._milestones(self._last + 1, first - 1)
            for seq, line in page:
                if seq > self._last:  # somebody may have added a second entry under a number
                    self._last = seq
                    yield from self._readable(seq, line)

    def follow(self) -> Iterator[Event]:
        """Yield events until the job has ended, and its end has been yielded.

        Raises BrokerUnreachable when the broker stays away for longer than `outage_s`.
        """
        from redis.exceptions import ConnectionError, TimeoutError

        while not self._done:
            try:
                yield from self._session()
            except (ConnectionError, TimeoutError) as error:
                self._wait_out(error)

    def _wait_out(self, error: Exception) -> None:
        """Sleep before the next try. Raises BrokerUnreachable when it has been too long."""
        now = time.monotonic()
        self._down_since = self._down_since or now
        if now - self._down_since > self._outage_s:
            raise BrokerUnreachable(
                f"the broker has been away for {self._outage_s:.0f} s: {error}",
                hint=f"the job goes on by itself; later: ftq tail {self._job}",
            ) from error
        self._on_outage("the broker does not answer; trying again")
        time.sleep(0.5)

    def _session(self) -> Iterator[Event]:
        """Subscribe once and yield until the end, or until the connection is lost for good."""
        pubsub = self._redis.pubsub()  # type: ignore[no-untyped-call]
        try:
            pubsub.subscribe(keys.live(self._job))
            yield from self._messages(pubsub)
        finally:
            pubsub.close()

    def _messages(self, pubsub: "PubSub") -> Iterator[Event]:
        """Yield events from the channel and, where it has holes, from the Stream."""
        while not self._done:
            message: _Message | None = pubsub.get_message(timeout=SILENCE_S)
            if message is None or message["type"] == "subscribe":
                yield from self.replay()
                if self._down_since is not None:
                    self._down_since = None
                    self._on_outage("the broker answers again")
                self._done = self._at_end()
            elif message["type"] == "message":
                yield from self._from_channel(message["data"])

    def _from_channel(self, line: str) -> Iterator[Event]:
        """Yield a published event, after what is missing before it; nothing if it is known."""
        try:
            event = Event.from_json(line)
        except ValueError as error:
            extra = {"action": "no_event", "job": self._job}
            log.warning("a message of %s's channel is no event: %r", self._job, error, extra=extra)
            return
        if event.seq == self._last + 1:
            self._last = event.seq
            yield self._ours(event, event.seq)
        elif event.seq > self._last:
            yield from self.replay()
        ends = "outcome" in event.data
        if ends:
            self._done = self._at_end()

    def _readable(self, seq: int, line: str) -> Iterator[Event]:
        """Yield one event; one of a later version, or a damaged one, is logged and skipped."""
        try:
            yield self._ours(Event.from_json(line), seq)
        except ValueError as error:
            extra = {"action": "event_unreadable", "job": self._job}
            log.warning("event %d of %s cannot be read: %r", seq, self._job, error, extra=extra)

    def _ours(self, event: Event, seq: int) -> Event:
        """Return an event under the job and number that it was stored with, whatever it says."""
        return replace(event, job=self._job, seq=seq)

    def _only_milestones(self) -> Iterator[Event]:
        """Yield what is left of a job that ended long ago."""
        seq: Any = self._redis.hget(keys.job(self._job), "seq")
        if (newest := _counted(seq)) > self._last:
            yield from self._milestones(self._last + 1, newest)
            self._last = newest

    def _milestones(self, first: int, last: int) -> Iterator[Event]:
        """Say that a range is thinned out, then yield what was kept of it."""
        page = self._read(keys.kept(self._job), first, f"{last}-0", count=10_000)
        kept = [event for seq, line in page for event in self._readable(seq, line)]
        data = {"first": first, "last": last, "kept": len(page)}
        # Of the time of what it stands for: clocks that begin with it are right.
        time_ = kept[0].time if kept else ""
        yield Event(self._job, last, 0, "", time_, None, EventType.TRUNCATED, data)
        yield from kept

    def _read(
        self, key: str, first: int, stop: str = "+", count: int = PAGE
    ) -> list[tuple[int, str]]:
        """Return (seq, line) pairs of a stream from number `first` on, in order."""
        if first > _LAST_ID:
            return []
        found: Any = self._redis.xrange(key, f"{first}-0", stop, count=count)
        return [(int(entry_id.split("-")[0]), fields.get("e", "")) for entry_id, fields in found]

    def _at_end(self) -> bool:
        """Return whether nothing more will come.

        An event with an outcome is not enough: a job that was retried has one in its middle.
        """
        record: Any = self._redis.hmget(keys.job(self._job), "state", "seq")
        state, seq = record
        return state is None or (state in TERMINAL and _counted(seq) <= self._last)


def _counted(seq: str | None) -> int:
    """Return a record's count of events, 0 for a damaged one."""
    return int(seq) if seq and seq.isdecimal() and int(seq) <= _LAST_ID else 0
