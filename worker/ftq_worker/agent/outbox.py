"""A claim's events: first into a file, from there to the broker, in order and none twice."""

import contextlib
import itertools
import json
import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self

from redis.exceptions import RedisError

from ftq_shared.broker import is_damage, translated
from ftq_shared.errors import BrokerUnreachable
from ftq_shared.events import BULK_TYPES, EventType, make_body
from ftq_shared.job_record import JobRecord
from ftq_shared.paths import JobPaths
from ftq_shared.redaction import Redactor
from ftq_shared.states import Phase
from ftq_shared.store import JobStore
from ftq_worker.agent.child import HostTrouble
from ftq_worker.host.messages import EventBody

log = logging.getLogger(__name__)

BATCH = 100  # events in one script call
KEEP_EVERY = 100  # of the bulk events, one in so many stays for good
# Fields of the record that `ftq list` shows, by the event that brings them.
SUMMARY = {
    EventType.STEP: ("step", "steps", "loss", "eta_s"),
    EventType.PUBLISHED: ("url", "repo", "revision"),
}


class Outbox:
    """Writes events to the claim's file and sends them to the broker from one thread.

    What waits, waits in the file: a broker that takes nothing for days costs no memory.
    """

    def __init__(
        self,
        store: JobStore,
        job: str,
        token: str,
        path: Path,
        *,
        attempt: int,
        host: str,
        phase: Phase,
        on_stale: Callable[[], None],
    ) -> None:
        self._store = store
        self.job, self._token, self._path = job, token, path
        self._attempt, self._host, self._phase = attempt, host, phase
        self.redactor = Redactor()  # replaced once the secrets are known
        self._on_stale = on_stale
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a", encoding="utf-8")
        self._reader = path.open(encoding="utf-8", errors="replace", newline="\n")
        self._written = 0  # ordinal of the newest event
        self._in_file = 0  # of the newest one that is in the file
        self._sent = 0  # ordinal that the broker has confirmed
        self._batch: list[str] = []  # bodies from ordinal _sent + 1 on: read, and on their way
        self._not_in_file: list[str] = []  # bodies from ordinal _in_file + 1 on: the disk is full
        self._change = threading.Condition()
        self._closed = False
        self._ending = False  # the phase has ended: a full broker takes its last events as well
        self._whole = True  # whether the file holds every event: not after a full disk
        self.stale = False
        self._thread = threading.Thread(target=self._send_all, name=f"outbox {job}", daemon=True)
        self._thread.start()

    def emit(self, type_: EventType, /, **data: Any) -> None:
        """Emit an event of the agent's own."""
        body = make_body(type_, data, attempt=self._attempt, host=self._host, phase=self._phase)
        self.add(json.loads(body))

    def add(self, body: EventBody) -> None:
        """Add an event that a child sent: written first, then on its way.

        Raises HostTrouble once, when the disk takes no more; from then on events are only sent.
        """
        body |= {"attempt": self._attempt, "host": self._host, "phase": self._phase}
        text = json.dumps(self.redactor.data(body), separators=(",", ":"), ensure_ascii=False)
        text = text.encode(errors="replace").decode()  # half a surrogate pair, as of a file's name
        with self._change:
            self._written += 1
            try:
                if self._whole:
                    self._write(text)
            finally:
                if not self._whole:
                    self._not_in_file.append(text)
                self._change.notify_all()

    def _write(self, text: str) -> None:
        try:
            self._file.write(text + "\n")
            self._file.flush()
            self._in_file += 1
        except OSError as error:
            self._whole = False
            raise HostTrouble(
                f"events cannot be written: {error.strerror}", code="disk_full"
            ) from error

    def flush(self) -> bool:
        """Wait until the broker has the last event, and has not forgotten it; False when stale.

        For the end of a phase; a call that raised an error of the broker may be repeated.
        """
        self._ending = True
        while True:
            with self._change:
                self._change.wait_for(lambda: self.stale or self._sent >= self._written)
                if self.stale:
                    return False
                following = self._written + 1
            stored, status = self._store.append(
                self.job, self._token, following, [], milestones=[], when_full=True
            )
            if status == "ok":
                return True
            self._acknowledge(stored, status, 0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop sending and close the file."""
        with self._change:
            self._closed = True
            self._change.notify_all()
        self._thread.join(timeout=10)
        with contextlib.suppress(OSError):  # what a full disk did not take was told already
            self._file.close()
            self._reader.close()

    def _send_all(self) -> None:
        """Send until closed; an outage is waited for, a stale token ends it."""
        delay_s = 0.1
        while True:
            with self._change:
                self._change.wait_for(lambda: self._closed or self._sent < self._written)
                if self._closed:
                    return
            try:
                with self._change:
                    self._fill_batch()
                    batch, first = list(self._batch), self._sent + 1
                with translated():
                    stored, status = append_bodies(
                        self._store, self.job, self._token, first, batch, when_full=self._ending
                    )
                self._acknowledge(stored, status, len(batch))
                delay_s = 0.1
            except (BrokerUnreachable, RedisError) as error:  # away, or full
                if is_damage(error):
                    self._give_up()
                    return
                extra = {"action": "events_wait", "job": self.job}
                log.warning("events of %s wait: %s", self.job, error, extra=extra)
                with self._change:
                    self._change.wait_for(lambda: self._closed, delay_s)
                delay_s = min(2.0, delay_s * 2)
                continue
            except Exception:  # an answer of another version, a file that cannot be read any more:
                # without this thread the job would hang
                self._give_up()
                return

    def _fill_batch(self) -> None:
        """Read the next events, after those that are on their way already."""
        while len(self._batch) < BATCH and (n := self._sent + len(self._batch)) < self._written:
            if n < self._in_file:
                line = self._reader.readline()
                if not line.endswith("\n"):
                    raise OSError(f"event {n + 1} is not in its file")
                self._batch.append(line[:-1])
            else:
                self._batch.append(self._not_in_file[n - self._in_file])

    def _give_up(self) -> None:
        """End the run: its events can never be sent."""
        extra = {"action": "events_unsendable", "job": self.job}
        log.exception("events of %s cannot be sent", self.job, extra=extra)
        self._acknowledge(0, "stale", 0)

    def _acknowledge(self, stored: int, status: str, count: int) -> None:
        """Take in the broker's answer to one batch."""
        with self._change:
            if status == "stale":
                self.stale = True
                self._closed = True
            elif status == "gap":
                self._rewind(stored)
            else:
                del self._batch[:count]
                self._sent += count
            self._change.notify_all()
        if status == "stale":
            self._on_stale()

    def _rewind(self, stored: int) -> None:
        """Go back to what the broker really has: it lost events that it had confirmed."""
        ids = {"job": self.job, "stored": stored}
        log.warning(
            "the broker lost events of %s after %d; sending them again",
            self.job,
            stored,
            extra={"action": "events_sent_again", **ids},
        )
        self._sent, self._batch = stored, []
        try:
            self._reader.seek(0)
            skipped = sum(1 for _ in itertools.islice(self._reader, stored))
            whole = skipped == min(stored, self._in_file)
        except OSError as error:
            log.warning("%s: %s", self._path, error, extra={"action": "events_unread", **ids})
            whole = False
        if not whole:
            extra = {"action": "events_lost", **ids}
            log.error("events of %s after %d are not in its file", self.job, stored, extra=extra)
            self._written = self._in_file = stored
            self._not_in_file, self._whole = [], False


def read_bodies(path: Path) -> list[str]:
    """Return the events of a claim's file, one JSON body each, but no line that was cut off."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return []
    return text.split("\n")[:-1]


def send_rest_before(store: JobStore, record: JobRecord, paths: JobPaths) -> int:
    """Send what the claim before this one wrote down and could not send; return how many.

    Whoever took its lease has sent it, unless it could not read the files of that storage.
    """
    rest = record.rest
    if not rest:
        return 0
    path, sent = paths.events(rest.claim), 0
    bodies = list(_readable(path, read_bodies(path)[rest.stored :]))
    for batch in (bodies[at : at + BATCH] for at in range(0, len(bodies), BATCH)):
        first = rest.stored + sent + 1
        kept = [_is_milestone(json.loads(text), n) for n, text in enumerate(batch, first)]
        token, before = record.token, rest.token
        answer = store.append_rest(record.id, token, before, first, batch, milestones=kept)
        if answer[1] != "ok":
            break
        sent += len(batch)
    return sent


def _is_milestone(body: Mapping[str, Any], number: int) -> bool:
    return EventType(body["type"]) not in BULK_TYPES or number % KEEP_EVERY == 0


def append_bodies(
    store: JobStore, job: str, token: str, first: int, bodies: Sequence[str], *, when_full: bool
) -> tuple[int, Literal["ok", "stale", "gap"]]:
    """Send one batch of a claim's events with what it changes in the record."""
    fields: dict[str, str] = {}
    keep = []
    for number, text in enumerate(bodies, first):
        body = json.loads(text)
        keep.append(_is_milestone(body, number))
        for name in SUMMARY.get(EventType(body["type"]), ()):
            if body["data"].get(name) is not None:
                fields[name] = str(body["data"][name])
    return store.append(
        job, token, first, bodies, milestones=keep, fields=fields, when_full=when_full
    )


def send_rest(store: JobStore, job: str, token: str, path: Path) -> int:
    """Send what a dead owner has written down but not sent any more; return how many there were.

    Only with the token that still holds; a line that cannot be read ends it.
    """
    stored, status = store.append(job, token, 1, [], milestones=[], when_full=True)
    if status != "ok":
        return 0
    rest = list(_readable(path, read_bodies(path)[stored:]))
    for sent in range(0, len(rest), BATCH):
        batch = rest[sent : sent + BATCH]
        first = stored + sent + 1
        if append_bodies(store, job, token, first, batch, when_full=True)[1] != "ok":
            return sent
    return len(rest)


def _readable(path: Path, bodies: Sequence[str]) -> Iterator[str]:
    """Yield events up to the first that is none."""
    for number, text in enumerate(bodies, 1):
        try:
            body = json.loads(text)
            EventType(body["type"])
            body["data"].get("step")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            extra = {"action": "event_unreadable", "events_file": str(path), "number": number}
            log.warning("%s: event %d of the rest: %r", path, number, error, extra=extra)
            return
        yield text
