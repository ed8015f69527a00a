"""What a host keeps of ended jobs: by age and state, by room, and when somebody asks."""

import json
import shutil
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from redis import Redis
from tests.support.clock import Clock
from tests.support.store_jobs import HOST, run, submit

from ftq_shared import keys
from ftq_shared.errors import ErrorInfo
from ftq_shared.in_memory import MemoryBroker, MemoryHosts, MemoryStore
from ftq_shared.lifetimes import (
    KEEP_ENDED_S,
    KEEP_ENDED_SHORT_OF_ROOM_S,
    KEEP_PUBLISHED_S,
    KEEP_WORK_S,
)
from ftq_shared.paths import JobPaths
from ftq_shared.states import JobState, Phase
from ftq_worker.agent.retention import ALWAYS, ASIDE, PruneRequest, Retention, answer_prune

GOOD, SENT, BAD, GONE, ACTIVE = (f"ft-{letter * 8}" for letter in "abcde")
DAY_S = 86_400.0
WORK = {"inputs/a", "prepared/b", "attempts/1-x/checkpoints/c"}
KEPT = {"marker", "model/d", "train.json", "attempts/1-x/events.jsonl"}


@pytest.fixture
def store(tmp_path: Path) -> MemoryStore:
    """One job of each kind; all that have ended did so just now."""
    store = MemoryStore()
    MemoryHosts(store.broker).heartbeat("h1", "i1", "", {**HOST, "slots": 9})
    for job in (GOOD, SENT, BAD, GONE, ACTIVE):
        token = run(store, submit(store, key=job, job=job))
        if job in (GOOD, SENT):
            store.finish(job, token, "succeeded")
        elif job == BAD:
            store.finish(job, token, "failed", error=ErrorInfo("bad", "no"))
        elif job == GONE:
            store.finish(job, token, "cancelled")
        for name in WORK | KEPT:
            file = JobPaths(tmp_path, job).root / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("x" * 100)
    JobPaths(tmp_path, SENT).published.write_text("{}")
    return store


@pytest.fixture
def retention(store: MemoryStore, tmp_path: Path) -> Retention:
    return Retention(store, tmp_path)


def age(store: MemoryStore, seconds: float) -> None:
    """Let all jobs that have ended have done so `seconds` ago."""
    for job in store.broker.held.jobs.values():
        if job.record.state.terminal:
            job.record = replace(job.record, ended_ms=int(1000 * (time.time() - seconds)))


def files(storage: Path, job: str) -> set[str]:
    root = JobPaths(storage, job).root
    return {str(file.relative_to(root)) for file in root.rglob("*") if file.is_file()}


def room(monkeypatch: pytest.MonkeyPatch, free: int) -> None:
    monkeypatch.setattr(
        "shutil.disk_usage", lambda path: SimpleNamespace(total=100, used=100 - free, free=free)
    )


def test_nothing_goes_before_its_time(retention: Retention, store: MemoryStore) -> None:
    age(store, KEEP_WORK_S - 60)
    assert retention.sweep() == []


def test_work_files_of_what_succeeded_go_first_and_the_model_stays(
    retention: Retention, store: MemoryStore, tmp_path: Path
) -> None:
    age(store, KEEP_WORK_S)
    assert {(one.job, one.part) for one in retention.sweep()} == {
        (GOOD, "work files"),
        (SENT, "work files"),
    }
    assert files(tmp_path, GOOD) == KEPT
    assert files(tmp_path, BAD) == WORK | KEPT
    assert retention.sweep() == [], "nothing is left to remove"


@pytest.mark.parametrize(
    ("seconds", "whole"),
    [(KEEP_ENDED_S, {BAD, GONE}), (KEEP_PUBLISHED_S, {BAD, GONE, SENT})],
)
def test_what_goes_whole(
    retention: Retention, store: MemoryStore, tmp_path: Path, seconds: float, whole: set[str]
) -> None:
    age(store, seconds)
    assert {one.job for one in retention.sweep() if one.part == "everything"} == whole
    assert {job for job in (GOOD, SENT, BAD, GONE, ACTIVE) if not files(tmp_path, job)} == whole


def test_a_replay_that_succeeded_goes_as_it_has_no_model(
    retention: Retention, store: MemoryStore, tmp_path: Path
) -> None:
    store.broker.held.jobs[GOOD].note(replay_of=BAD, replay_step="3")
    age(store, KEEP_ENDED_S)
    retention.sweep()
    assert not files(tmp_path, GOOD)


def test_a_job_of_which_a_step_is_replayed_stays(
    retention: Retention, store: MemoryStore, tmp_path: Path
) -> None:
    store.broker.held.jobs[ACTIVE].note(replay_of=BAD, replay_step="3")
    age(store, KEEP_ENDED_S)
    assert BAD not in {one.job for one in retention.sweep()}
    assert files(tmp_path, BAD) == WORK | KEPT
    store.finish(ACTIVE, store.get(ACTIVE).token, "succeeded")
    assert BAD in {one.job for one in retention.sweep()}


def test_short_of_room_what_ended_first_goes_until_there_is_room(
    retention: Retention, store: MemoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    age(store, KEEP_ENDED_SHORT_OF_ROOM_S + 60)
    room(monkeypatch, free=50)
    assert {one.part for one in retention.sweep()} == {"work files"}
    room(monkeypatch, free=5)
    assert {one.job for one in retention.sweep()} == {BAD, GONE}
    assert files(tmp_path, GOOD) == KEPT, "a model that is nowhere else stays"


def test_what_goes_on_and_what_nobody_knows_stays(
    retention: Retention, store: MemoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stranger = tmp_path / "jobs" / "ft-zzzzzzzz" / "model" / "x"
    stranger.parent.mkdir(parents=True)
    stranger.touch()
    (tmp_path / "jobs" / "notes").mkdir()
    age(store, 1000 * DAY_S)
    room(monkeypatch, free=0)
    retention.sweep()
    assert files(tmp_path, ACTIVE) == WORK | KEPT
    assert stranger.exists()
    assert (tmp_path / "jobs" / "notes").exists()


def test_a_job_that_is_retried_meanwhile_keeps_its_files(
    retention: Retention, store: MemoryStore, tmp_path: Path
) -> None:
    age(store, KEEP_ENDED_S)
    found = retention._candidates(ALWAYS)
    store.retry(BAD, Phase.TRAIN)
    assert {one.job for one in retention._remove(found)} == {GONE, GOOD, SENT}
    assert files(tmp_path, BAD) == WORK | KEPT
    assert store.get(BAD).state is JobState.QUEUED


def test_what_an_earlier_removal_has_left_is_removed(retention: Retention, tmp_path: Path) -> None:
    left = tmp_path / "jobs" / f"{ASIDE}{BAD}-0" / "model"
    left.mkdir(parents=True)
    (left / "d").touch()
    assert retention.sweep() == []
    assert not left.parent.exists()
    assert files(tmp_path, BAD) == WORK | KEPT


def test_two_hosts_may_remove_one_folder(
    retention: Retention, store: MemoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rmtree = shutil.rmtree

    def with_another(folder: Path) -> None:
        monkeypatch.setattr("shutil.rmtree", rmtree)
        (folder / "marker").unlink()
        raise FileNotFoundError(2, "No such file", folder / "marker")

    age(store, KEEP_ENDED_S)
    monkeypatch.setattr("shutil.rmtree", with_another)
    removed = [one for one in retention.sweep() if one.part == "everything"]
    assert {one.job for one in removed} == {BAD, GONE}
    assert all(one.removed for one in removed)
    assert not list((tmp_path / "jobs").glob(f"{ASIDE}*"))


def test_ages_are_counted_by_the_brokers_clock(tmp_path: Path) -> None:
    clock = Clock(time.time() + 1000 * DAY_S)  # this host's clock is years behind
    store = MemoryStore(MemoryBroker(clock))
    MemoryHosts(store.broker).heartbeat("h1", "i1", "", {**HOST, "slots": 9})
    store.finish(BAD, run(store, submit(store, key=BAD, job=BAD)), "failed")
    JobPaths(tmp_path, BAD).root.mkdir(parents=True)
    clock.now += KEEP_ENDED_S - 60
    assert Retention(store, tmp_path).sweep() == []
    clock.now += 60
    assert [one.job for one in Retention(store, tmp_path).sweep()] == [BAD]


def test_what_cannot_be_removed_is_not_said_to_be_gone(
    retention: Retention, store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(path: Path) -> None:
        raise PermissionError(13, "Permission denied")

    age(store, KEEP_ENDED_S)
    monkeypatch.setattr("shutil.rmtree", refused)
    removed = retention.sweep()
    assert removed
    assert not any(one.removed for one in removed)
    assert all("could not be removed" in one.why for one in removed)


def ask(**changes: Any) -> PruneRequest:
    request: Any = {"prune": "n1", "dry_run": False, "older_than_s": 0, "models": False}
    return request | {"jobs": None} | changes  # type: ignore[no-any-return]


def test_a_person_sees_first_and_removes_then(
    retention: Retention, store: MemoryStore, tmp_path: Path
) -> None:
    seen = {(r.job, r.part) for r in retention.prune(ask(dry_run=True))}
    assert seen == {
        (GOOD, "work files"),
        (SENT, "work files"),
        (BAD, "everything"),
        (GONE, "everything"),
    }
    assert files(tmp_path, BAD) == WORK | KEPT
    removed = list(retention.prune(ask(jobs=[BAD, GOOD])))
    assert {(r.job, r.part) for r in removed} == {(GOOD, "work files"), (BAD, "everything")}
    assert all(one.bytes >= 300 for one in removed)
    assert {r.job for r in retention.prune(ask(models=True))} == {GOOD, SENT, GONE}
    assert files(tmp_path, GOOD) == set()


@pytest.mark.parametrize(
    "request_",
    [
        {},
        {"prune": "n", "dry_run": False, "older_than_s": "soon", "models": False, "jobs": None},
        {"prune": "n", "dry_run": False, "older_than_s": 0, "models": False, "jobs": 7},
    ],
)
def test_a_request_that_is_none_removes_nothing(
    redis: Redis, retention: Retention, tmp_path: Path, request_: dict[str, Any]
) -> None:
    answer_prune(redis, retention, "s1", {"prune": "n", **request_})
    answer: Any = redis.lrange(keys.relay("n"), 0, -1)
    assert json.loads(answer[0])["error"]
    assert files(tmp_path, BAD) == WORK | KEPT


def test_of_the_hosts_that_share_a_storage_one_answers(
    redis: Redis, retention: Retention, tmp_path: Path
) -> None:
    for storage in ("s1", "s1", "s2"):
        answer_prune(redis, retention, storage, ask(dry_run=True))
    answers: Any = redis.lrange(keys.relay("n1"), 0, -1)
    assert [json.loads(answer)["storage_id"] for answer in answers] == ["s1", "s2"]
    assert {one["job"] for one in json.loads(answers[0])["removed"]} == {GOOD, SENT, BAD, GONE}
