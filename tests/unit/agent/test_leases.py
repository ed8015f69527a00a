"""Leases with a clock of the test's own, a store in memory: who is fed, paused, lost or reaped."""

from collections.abc import Mapping
from typing import Any

import pytest
from redis.exceptions import ConnectionError
from tests.support import store_jobs

from ftq_shared.errors import NoSuchJob
from ftq_shared.in_memory import MemoryHosts, MemoryStore
from ftq_shared.lease import Lease
from ftq_shared.lifetimes import CHILD_S, CLAIM_S, LEASE_S, PAUSE_S
from ftq_shared.states import JobState
from ftq_worker.agent.leases import ELSEWHERE_S, OUTAGE_S, LeaseKeeper, Reaper
from ftq_worker.host.messages import LeaseTimes, StopReason

A, B, C, D, J = (f"ft-{letter * 8}" for letter in "abcdj")


def running(*jobs: str) -> MemoryStore:
    """Return a store in which these jobs run, under the token 1:a, and have been renewed once."""
    store = MemoryStore()
    MemoryHosts(store.broker).heartbeat("h1", "i1", "", {**store_jobs.HOST, "slots": len(jobs)})
    for job in jobs:
        assert store_jobs.run(store, store_jobs.submit(store, key=job, job=job), "a") == "1:a"
    assert store.renew(dict.fromkeys(jobs, "1:a")) == dict.fromkeys(jobs, "ok")
    return store


class FakeRun:
    """Notes what it is told."""

    token = "1:a"

    def __init__(self) -> None:
        self.told: list[Any] = []

    def extend_lease(self, lease: LeaseTimes) -> None:
        self.told.append(lease)

    def claim_again(self) -> None:
        self.told.append("claim")

    def stop(self, reason: StopReason) -> None:
        self.told.append(reason)

    def abandon(self) -> None:
        self.told.append("abandon")


class Clock:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


FED = LeaseTimes(100.0 + CHILD_S, 100.0 + PAUSE_S)


def test_answers_are_passed_on() -> None:
    store, runs = running(A, B, C), {name: FakeRun() for name in (A, B, C, D)}
    store.cancel(B)
    store.requeue(C, "1:a", "reaped", counts_attempt=True)
    store_jobs.place(
        store, store_jobs.submit(store, D, D), "a"
    )  # what is left of a claim after a rollback
    LeaseKeeper(store, Clock()).renew(runs)
    assert runs[A].told == [FED]
    assert runs[B].told == [FED, StopReason.CANCEL]
    assert runs[C].told == ["abandon"]
    assert runs[D].told == [FED, "claim"]


def test_an_answer_of_another_version_feeds_nobody() -> None:
    class Later(MemoryStore):
        def renew(self, leases: Mapping[str, str]) -> dict[str, str]:
            return dict.fromkeys(leases, "later")

    run = FakeRun()
    LeaseKeeper(Later(), Clock()).renew({A: run})
    assert run.told == []


def test_a_lease_counts_from_before_the_question() -> None:
    class Slow(MemoryStore):
        def renew(self, leases: Mapping[str, str]) -> dict[str, str]:
            clock.now += 4.0
            return super().renew(leases)

    store, run, clock = Slow(running(A).broker), FakeRun(), Clock()
    LeaseKeeper(store, clock).renew({A: run})
    assert run.told == [FED]


def test_without_a_broker_children_work_until_the_pause_live_on_and_starve() -> None:
    store, run, clock = running(A), FakeRun(), Clock()
    keeper = LeaseKeeper(store, clock)
    store.broker.down = ConnectionError("away")
    times = [105.0, 100.0 + OUTAGE_S - 1, 100.0 + OUTAGE_S + 1]
    for clock.now in times:
        keeper.renew({A: run})
    # They live on, but the time to pause stays that of the last renewal.
    assert run.told == [LeaseTimes(at + CHILD_S, 100.0 + PAUSE_S) for at in times[:2]]
    store.broker.down = None
    keeper.renew({A: run})
    assert run.told[-1] == LeaseTimes(times[2] + CHILD_S, times[2] + PAUSE_S)


def lease(state: JobState = JobState.RUNNING, renewals: int = 2, token: str = "1:a") -> Lease:
    return Lease(J, 1, state, token, renewals, "h1", "i1", "cpu", (), "s1")


def looks(reaper: Reaper, clock: Clock, seen: list[tuple[float, Lease]]) -> list[int]:
    """Look every second up to each time; return how many were taken by then."""
    taken = []
    for at, one in seen:
        count = 0
        while clock.now < 100.0 + at:
            clock.now = min(clock.now + 1.0, 100.0 + at)
            count += reaper.look([one], lambda: "run")
        taken.append(count)
    return taken


def test_a_lease_is_taken_only_after_a_whole_lease_time_of_silence() -> None:
    store, clock = running(J), Clock()
    rest: list[str] = []
    reaper = Reaper(store, "s1", lambda it: rest.append(store.get(it.id).token), clock)
    assert looks(reaper, clock, [(LEASE_S, lease()), (LEASE_S + 1, lease())]) == [0, 1]
    assert store.get(J).attempt == 2
    assert rest == ["1:a"], "what its owner wrote is sent while its token holds"


@pytest.mark.parametrize("error", [OSError("gone"), NoSuchJob("no"), ValueError("damaged")])
def test_last_events_that_cannot_be_sent_keep_no_lease(error: Exception) -> None:
    def no_rest(_: Lease) -> None:
        raise error

    clock = Clock()
    reaper = Reaper(running(J), "s1", no_rest, clock)
    assert looks(reaper, clock, [(LEASE_S + 1, lease())]) == [1]


def test_who_can_read_the_jobs_files_comes_first() -> None:
    clock = Clock()
    reaper = Reaper(running(J), "s2", lambda _: None, clock)
    end = LEASE_S + ELSEWHERE_S
    assert looks(reaper, clock, [(end, lease()), (end + 1, lease())]) == [0, 1]


def test_a_renewal_or_a_new_token_starts_the_time_anew() -> None:
    clock = Clock()
    reaper = Reaper(running(J), "s1", lambda _: None, clock)
    renewed, moved = lease(renewals=3), lease(renewals=3, token="2:b")
    times = [(29, lease()), (58, renewed), (87, moved)]
    assert looks(reaper, clock, times) == [0] * 3


def test_an_outage_gives_owners_time_to_renew() -> None:
    clock = Clock()
    reaper = Reaper(running(J), "s1", lambda _: None, clock)
    looks(reaper, clock, [(LEASE_S - 1, lease())])
    reaper.forget()
    assert looks(reaper, clock, [(2 * LEASE_S - 1, lease()), (2 * LEASE_S, lease())]) == [0, 1]


def test_a_reaper_that_was_frozen_starts_anew() -> None:
    # The broker may have been away all the while, so that nobody could renew.
    clock = Clock()
    reaper = Reaper(running(J), "s1", lambda _: None, clock)
    looks(reaper, clock, [(5, lease())])
    clock.now += 10 * LEASE_S
    assert reaper.look([lease()], lambda: "run") == 0
    start = clock.now - 100.0
    assert looks(reaper, clock, [(start + LEASE_S - 1, lease()), (start + LEASE_S, lease())]) == [
        0,
        1,
    ]


def placed() -> MemoryStore:
    """Return a store in which the job has a place that nobody has claimed."""
    store = MemoryStore()
    MemoryHosts(store.broker).heartbeat("h1", "i1", "", store_jobs.HOST)
    assert store_jobs.place(store, store_jobs.submit(store, J, J), "a") == "1:a"
    return store


EARLIER = (31, lease(token="0:b"))  # a reaper that has just begun takes nothing


def test_a_place_that_nobody_claims_comes_back_sooner() -> None:
    clock = Clock()
    reaper = Reaper(placed(), "s1", lambda _: None, clock)
    unclaimed = lease(JobState.PLACED, renewals=0)
    times = [EARLIER, (31 + CLAIM_S, unclaimed), (32 + CLAIM_S, unclaimed)]
    assert looks(reaper, clock, times) == [0, 0, 1]


def test_a_place_that_was_renewed_is_a_claim_that_the_broker_lost() -> None:
    store, clock = placed(), Clock()
    store.renew({J: "1:a"})
    reaper = Reaper(store, "s1", lambda _: None, clock)
    renewed = lease(JobState.PLACED, renewals=1)
    times = [EARLIER, (31 + LEASE_S, renewed), (32 + LEASE_S, renewed)]
    assert looks(reaper, clock, times) == [0, 0, 1]


@pytest.mark.parametrize("restarts", [False, True])
def test_after_a_restart_of_the_broker_nothing_is_taken_for_a_whole_lease(restarts: bool) -> None:
    clock = Clock()
    reaper = Reaper(placed(), "s1", lambda _: None, clock)
    looks(reaper, clock, [EARLIER])
    taken, unclaimed = 0, lease(JobState.PLACED, renewals=0)
    while clock.now < 100.0 + 32 + CLAIM_S:
        clock.now += 1.0
        taken += reaper.look([unclaimed], lambda: "next run" if restarts else "run")
    assert taken == int(not restarts)


def test_a_newer_record_is_not_reaped() -> None:
    store, clock = running(J), Clock()
    newer = lease()._replace(record_version=99)
    reaper = Reaper(store, "s1", lambda _: None, clock)
    assert looks(reaper, clock, [(99, newer)]) == [0]
    assert store.leases() == [lease()]
