"""Leases with a clock and a store of the test's own: who is fed, paused, lost or reaped."""

import dataclasses
from typing import Any

from redis.exceptions import ConnectionError

from ftq_shared.job_record import JobRecord
from ftq_shared.keys import CLAIM_S, LEASE_S, PAUSE_S
from ftq_shared.states import JobState
from ftq_worker.host.leases import OUTAGE_S, LeaseKeeper, Reaper
from ftq_worker.phase import StopReason


class FakeStore:
    """Stands for the broker: answers what it is told to, or is away."""

    def __init__(self) -> None:
        self.answers: dict[str, str] | None = {}
        self.reaped: list[tuple[str, str, int]] = []

    def renew(self, leases: dict[str, str]) -> dict[str, str]:
        if self.answers is None:
            raise ConnectionError("away")
        return {job: self.answers.get(job, "ok") for job in leases}

    def reap(self, job: str, token: str, beat: int, reason: str) -> str:
        self.reaped.append((job, token, beat))
        return "queued"


class FakeRun:
    """Notes what it is told."""

    token = "1:a"

    def __init__(self) -> None:
        self.told: list[Any] = []

    def feed(self, *, pause: bool = False) -> None:
        self.told.append("pause" if pause else "feed")

    def stop(self, reason: StopReason) -> None:
        self.told.append(reason)

    def lose(self) -> None:
        self.told.append("lose")


class Clock:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_answers_are_passed_on() -> None:
    store, runs = FakeStore(), {name: FakeRun() for name in ("a", "b", "c")}
    store.answers = {"b": "cancel", "c": "stale"}
    LeaseKeeper(store, Clock()).renew(runs)  # type: ignore[arg-type]
    assert runs["a"].told == ["feed"]
    assert runs["b"].told == ["feed", StopReason.CANCEL]
    assert runs["c"].told == ["lose"]


def test_without_a_broker_children_go_on_then_pause_then_starve() -> None:
    store, run, clock = FakeStore(), FakeRun(), Clock()
    keeper = LeaseKeeper(store, clock)  # type: ignore[arg-type]
    store.answers = None
    for at in (5.0, PAUSE_S + 1, OUTAGE_S - 1, OUTAGE_S + 1):
        clock.now = 100.0 + at
        keeper.renew({"a": run})
    assert run.told == ["feed", "pause", "pause"]
    store.answers = {}
    keeper.renew({"a": run})
    assert run.told[-1] == "feed"


def record(state: JobState = JobState.RUNNING, beat: int = 1, token: str = "1:a") -> JobRecord:
    raw = {"id": "j", "v": "1", "state": state, "phase": "train", "attempt": "1", "version": "1"}
    return dataclasses.replace(JobRecord.from_hash(raw), beat=beat, token=token)


def looks(reaper: Reaper, clock: Clock, seen: list[tuple[float, JobRecord]]) -> list[int]:
    taken = []
    for at, one in seen:
        clock.now = 100.0 + at
        taken.append(reaper.look([one]))
    return taken


def test_a_lease_is_taken_only_after_a_whole_lease_time_of_silence() -> None:
    store, clock = FakeStore(), Clock()
    reaper = Reaper(store, clock)  # type: ignore[arg-type]
    silent = record()
    times = [(0, silent), (LEASE_S - 1, silent), (LEASE_S + 1, silent)]
    assert looks(reaper, clock, times) == [0, 0, 1]
    assert store.reaped == [("j", "1:a", 1)]


def test_a_renewal_or_a_new_token_starts_the_time_anew() -> None:
    clock = Clock()
    reaper = Reaper(FakeStore(), clock)  # type: ignore[arg-type]
    renewed, moved = record(beat=2), record(beat=2, token="2:b")
    times = [(0, record()), (29, renewed), (58, renewed), (58.5, moved), (88, moved)]
    assert looks(reaper, clock, times) == [0] * 5


def test_an_outage_gives_owners_time_to_renew() -> None:
    clock = Clock()
    reaper = Reaper(FakeStore(), clock)  # type: ignore[arg-type]
    looks(reaper, clock, [(0, record())])
    reaper.forget()
    assert looks(reaper, clock, [(LEASE_S + 1, record()), (2 * LEASE_S, record())]) == [0, 0]


def test_a_place_that_nobody_claims_comes_back_sooner() -> None:
    clock = Clock()
    reaper = Reaper(FakeStore(), clock)  # type: ignore[arg-type]
    placed = record(JobState.PLACED)
    assert looks(reaper, clock, [(0, placed), (CLAIM_S + 0.1, placed)]) == [0, 1]


def test_a_newer_record_is_not_reaped() -> None:
    store, clock = FakeStore(), Clock()
    newer = dataclasses.replace(record(), record_version=99)
    reaper = Reaper(store, clock)  # type: ignore[arg-type]
    assert looks(reaper, clock, [(0, newer), (99, newer)]) == [0, 0]
    assert store.reaped == []
