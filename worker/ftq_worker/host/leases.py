"""Leases: keeping our own alive, and taking those whose owner has fallen silent."""

import logging
import time
from collections.abc import Callable, Mapping
from typing import Protocol

from redis.exceptions import RedisError

from ftq_shared.broker import translated
from ftq_shared.errors import BrokerUnreachable
from ftq_shared.job_record import RECORD_VERSION, JobRecord
from ftq_shared.keys import CLAIM_S, LEASE_S, PAUSE_S
from ftq_shared.states import JobState
from ftq_shared.store import JobStore
from ftq_worker.phase import StopReason

log = logging.getLogger(__name__)

OUTAGE_S = 600.0  # a child is kept, paused, for so long while the broker is away


class Owned(Protocol):
    """What the keeper needs of a run."""

    token: str

    def feed(self, *, pause: bool = False) -> None:
        """Let the children live on."""

    def stop(self, reason: StopReason) -> None:
        """Ask it to end."""

    def lose(self) -> None:
        """End it: it is not ours any more."""


class LeaseKeeper:
    """Renews the leases of this host's runs and passes the news down to the children."""

    def __init__(self, store: JobStore, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._clock = clock
        self._last_good = clock()

    def renew(self, runs: Mapping[str, Owned]) -> None:
        """Renew every lease once; without a broker, feed the children for a while, paused."""
        if not runs:
            self._last_good = self._clock()
            return
        try:
            with translated():
                answers = self._store.renew({job: run.token for job, run in runs.items()})
        except (BrokerUnreachable, RedisError) as error:  # away, or full
            self._without_broker(runs, error)
            return
        self._last_good = self._clock()
        for job, answer in answers.items():
            self._pass_on(runs[job], job, answer)

    def _pass_on(self, run: Owned, job: str, answer: str) -> None:
        """Act on the answer for one lease."""
        if answer == "stale":
            log.warning("lost %s: its token is stale", job)
            run.lose()
            return
        run.feed()
        if answer == "cancel":
            run.stop(StopReason.CANCEL)

    def _without_broker(self, runs: Mapping[str, Owned], error: Exception) -> None:
        """Hold the children: they go on until the lease may be somebody else's, then pause."""
        away_s = self._clock() - self._last_good
        log.warning("leases not renewed for %.0f s: %s", away_s, error)
        if away_s < OUTAGE_S:
            for run in runs.values():
                run.feed(pause=away_s > PAUSE_S)


class Reaper:
    """Takes leases that it has itself seen unchanged for a whole lease time."""

    def __init__(self, store: JobStore, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._clock = clock
        self._seen: dict[str, tuple[str, int, float]] = {}  # job -> token, beat, since when

    def forget(self) -> None:
        """Start all observations anew, as after an outage: owners must get time to renew."""
        self._seen.clear()

    def look(self, leased: list[JobRecord]) -> int:
        """Look at all leases once; return how many were taken."""
        now, taken = self._clock(), 0
        fresh: dict[str, tuple[str, int, float]] = {}
        for record in leased:
            token, beat, since = self._seen.get(record.id, ("", -1, now))
            if (token, beat) != (record.token, record.beat):
                since = now
            fresh[record.id] = (record.token, record.beat, since)
            placed = record.state is JobState.PLACED
            if now - since >= (CLAIM_S if placed else LEASE_S):
                taken += self._take(record)
        self._seen = fresh
        return taken

    def _take(self, record: JobRecord) -> bool:
        """Reap one lease; return whether the job is free again."""
        if record.record_version > RECORD_VERSION:
            return False
        what = (
            "was not claimed" if record.state is JobState.PLACED else "stopped renewing its lease"
        )
        reason = f"host {record.host} {what}"
        answer = self._store.reap(record.id, record.token, record.beat, reason)
        log.warning("reap %s: %s: %s", record.id, reason, answer)
        return answer != "stale"
