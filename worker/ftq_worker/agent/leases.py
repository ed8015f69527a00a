"""Leases: keeping our own alive, and taking those whose owner has fallen silent."""

import logging
import math
import time
from collections.abc import Callable, Mapping
from typing import Protocol

from redis.exceptions import RedisError, ResponseError

from ftq_shared.broker import translated
from ftq_shared.errors import BrokerUnreachable, FtqError
from ftq_shared.job_record import RECORD_VERSION
from ftq_shared.lease import Lease
from ftq_shared.lifetimes import CHILD_S, CLAIM_S, LEASE_S, PAUSE_S
from ftq_shared.states import JobState
from ftq_shared.store import JobStore
from ftq_worker.host.messages import Answer, LeaseTimes, Question, StopReason

log = logging.getLogger(__name__)

LONGEST_GAP_S = 10.0  # between two looks; after a longer one all observations start anew
ASK_S = 10.0  # between two questions which run of the broker it is
HELD = ("ok", "cancel", "unclaimed")  # answers to a renewal that say that the lease is ours
ELSEWHERE_S = 4.0  # hosts that cannot read a job's files leave it for so long to those that can
OUTAGE_S = 600.0  # a child is kept, paused, for so long while the broker is away


class Owned(Protocol):
    """What the keeper needs of a run."""

    job: str
    token: str

    def extend_lease(self, lease: LeaseTimes) -> None:
        """Let its processes live and work for longer; an earlier time takes nothing back."""

    def stop(self, reason: StopReason) -> None:
        """Ask it to save and end."""

    def claim_again(self) -> None:
        """Claim it once more: the broker has lost the claim, but not the placement."""

    def abandon(self) -> None:
        """End it at once: somebody else owns the job."""


def ask_broker(store: JobStore, run: Owned, question: Question) -> Answer:
    """Return the broker's answer. Raises ResponseError when it is none."""
    if question.ask == "lock":
        status, owner = store.lock(run.job, run.token, question.what)
        if status not in ("ok", "busy", "stale"):
            raise ResponseError(f"{status!r} is no answer to a lock")
        return Answer(status, owner)
    asked = time.monotonic()
    renewed = store.renew({run.job: run.token}).get(run.job)
    if renewed == "stale":
        return Answer("stale")
    if renewed not in HELD:  # until the child's timer ends it and the job is queued again
        raise ResponseError(f"{renewed!r} is no answer: the job's record may be damaged")
    run.extend_lease(LeaseTimes.renewed(asked))
    return Answer("ok")


class LeaseKeeper:
    """Renews the leases of this host's runs and passes the news down to the children.

    All times count from before the question was sent: the broker may have noted the renewal then,
    and the reaper counts from there.
    """

    def __init__(self, store: JobStore, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._clock = clock
        self._last_good = clock()

    def renew(self, runs: Mapping[str, Owned]) -> None:
        """Renew every lease once; without a broker, keep the children for a while, paused."""
        asked = self._clock()
        if not runs:
            self._last_good = asked
            return
        try:
            with translated():
                answers = self._store.renew({job: run.token for job, run in runs.items()})
        except (BrokerUnreachable, RedisError) as error:  # away, or full
            self._without_broker(runs, error)
            return
        self._last_good = asked
        for job, answer in answers.items():
            self._pass_on(runs[job], job, answer)

    def _pass_on(self, run: Owned, job: str, answer: str) -> None:
        if answer == "stale":
            run.abandon()  # which says so in the log
            return
        if answer not in HELD:
            extra = {"action": "renew_failed", "job": job}
            log.error(
                "renewing %s: %r is no answer; its phase ends in time", job, answer, extra=extra
            )
            return
        run.extend_lease(LeaseTimes.renewed(self._last_good))
        if answer == "cancel":
            run.stop(StopReason.CANCEL)
        elif answer == "unclaimed":
            run.claim_again()

    def _without_broker(self, runs: Mapping[str, Owned], error: Exception) -> None:
        """Hold the children: they work until the lease may be somebody else's, then wait."""
        now = self._clock()
        silent_s = now - self._last_good
        extra = {"action": "renew_failed", "jobs": sorted(runs)}
        log.warning("leases not renewed for %.0f s: %s", silent_s, error, extra=extra)
        if silent_s < OUTAGE_S:
            for run in runs.values():
                run.extend_lease(LeaseTimes(now + CHILD_S, self._last_good + PAUSE_S))


class Reaper:
    """Takes leases that it has itself seen unchanged for a whole lease time."""

    def __init__(
        self,
        store: JobStore,
        storage_id: str,
        send_rest: Callable[[Lease], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._storage_id = storage_id  # of this host
        self._send_rest = send_rest  # of the events that the silent owner has written down
        self._clock = clock
        self._seen: dict[str, tuple[str, int, float]] = {}  # job -> token, renewals, since when
        self._looked = self._forgot = clock()
        self._asked = -math.inf
        self._broker = ""  # the run of the server that was looked at last

    def forget(self) -> None:
        """Start all observations anew, as after an outage: owners must get time to renew."""
        self._seen.clear()
        self._forgot = self._clock()

    def look(self, leased: list[Lease], broker: Callable[[], str]) -> int:
        """Look at all leases once; return how many were taken.

        `broker` says which run of the server they are from: a new one may have forgotten claims, so
        that for a whole lease time even a place may be somebody's who works. It is asked now and
        then, and before anything is taken.

        A look that comes late proves nothing of the time before it: we may have been frozen, and
        the broker away meanwhile.
        """
        now = self._clock()
        if now - self._looked > LONGEST_GAP_S:
            self.forget()
        self._looked = now
        if now - self._asked >= ASK_S:
            self._ask(broker)
        fresh: dict[str, tuple[str, int, float]] = {}
        silent = []
        for lease in leased:
            token, renewals, since = self._seen.get(lease.id, ("", -1, now))
            if (token, renewals) != (lease.token, lease.renewals):
                since = now
            fresh[lease.id] = (lease.token, lease.renewals, since)
            if now - since >= self._patience(lease):
                silent.append(lease)
        self._seen = fresh
        if not silent or now - self._forgot < LEASE_S:
            return 0
        self._ask(broker)
        return sum(self._take(lease) for lease in silent) if self._seen else 0

    def _ask(self, broker: Callable[[], str]) -> None:
        """Start all observations anew if the server has been started since it was asked last."""
        self._asked, run = self._clock(), broker()
        if run != self._broker:
            self.forget()
        self._broker = run

    def _patience(self, lease: Lease) -> float:
        """Return for how long its owner may be silent, in seconds."""
        if lease.state is JobState.PLACED and not lease.renewals:
            return CLAIM_S  # one that was renewed has an owner, whose claim the broker has lost
        here = lease.storage_id in ("", self._storage_id)
        return LEASE_S if here else LEASE_S + ELSEWHERE_S

    def _take(self, lease: Lease) -> bool:
        """Reap one lease; return whether the job is free again."""
        if lease.record_version > RECORD_VERSION:
            return False
        what = "was not claimed" if lease.state is JobState.PLACED else "stopped renewing its lease"
        reason = f"host {lease.host} {what}"
        try:
            self._send_rest(lease)
        except (ResponseError, FtqError, OSError, ValueError, KeyError, TypeError) as error:
            extra = {"action": "last_events_lost", "job": lease.id}
            log.warning("the last events of %s: %r", lease.id, error, extra=extra)
        try:
            answer = self._store.reap(lease.id, lease.token, lease.renewals, reason)
        except ResponseError as error:  # a damaged record may not keep the others from being taken
            extra = {"action": "reap_failed", "job": lease.id, "owner": lease.host}
            log.error("reap %s: %s: %s", lease.id, reason, error, extra=extra)
            return False
        extra = {"action": "reaped", "job": lease.id, "owner": lease.host, "answer": answer}
        log.warning("reap %s: %s: %s", lease.id, reason, answer, extra=extra)
        return answer != "stale"
