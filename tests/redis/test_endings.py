"""Both ends of a run at the broker: full, gone back, deaf for a moment. Nothing is lost."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from redis.exceptions import ConnectionError

from ftq_shared import keys
from ftq_shared.events import EventType
from ftq_shared.hosts import HostStore
from ftq_shared.spec import JobSpec
from ftq_shared.states import JobState, Phase
from ftq_shared.store import JobStore, Placement
from ftq_worker.agent import runs
from ftq_worker.agent.outbox import Outbox, send_rest
from ftq_worker.agent.runs import RunPool

HOST = {"slots": 3, "gpus": [], "storage_id": "s1", "version": "0"}
JOB = "ft-aaaaaaaa"


@pytest.fixture
def token(store: JobStore) -> str:
    """A job that is placed here."""
    HostStore(store.redis).beat("h1", "i1", "", HOST)
    spec = JobSpec(model="org/model", dataset="org/data")
    store.submit(JOB, spec, client_key="k", owner="me@here", endpoint="")
    return store.place(Placement(JOB, store.get(JOB).version, "h1", "i1", "cpu"))[0]


@pytest.fixture
def outbox(store: JobStore, token: str, tmp_path: Path) -> Iterator[Outbox]:
    """Of a claimed run."""
    assert store.claim(JOB, token, nonce="n", instance="i1", storage_id="s1") == "ok"
    path, about = tmp_path / "events.jsonl", {"attempt": 1, "host": "h1", "phase": Phase.TRAIN}
    outbox = Outbox(store, JOB, token, path, on_stale=lambda: None, **about)  # type: ignore[arg-type]
    yield outbox
    outbox.close()


@pytest.fixture
def full(store: JobStore) -> Iterator[Callable[[], None]]:
    yield lambda: store.redis.config_set("maxmemory", 1)
    store.redis.config_set("maxmemory", 0)


def lines(store: JobStore) -> list[str]:
    stored: Any = store.redis.xrange(keys.events(JOB))
    return [entry["e"] for _, entry in stored if '"log"' in entry["e"]]


def test_a_phase_ends_in_a_full_broker_with_all_its_events(
    store: JobStore, token: str, outbox: Outbox, full: Callable[[], None]
) -> None:
    full()
    for number in range(3):
        outbox.emit(EventType.LOG, line=f"line {number}")
    assert lines(store) == []  # they wait on the disk while the phase runs
    assert outbox.flush()
    assert store.finish(JOB, token, "succeeded") == "ok"
    assert [f"line {n}" in line for n, line in enumerate(lines(store))] == [True] * 3


def test_a_dead_agents_events_are_sent_to_a_full_broker(
    store: JobStore, token: str, outbox: Outbox, full: Callable[[], None], tmp_path: Path
) -> None:
    full()
    outbox.emit(EventType.LOG, line="the last words")
    assert send_rest(store, JOB, token, tmp_path / "events.jsonl") == 1
    assert len(lines(store)) == 1


def test_what_a_rollback_took_is_sent_again_before_the_end(store: JobStore, outbox: Outbox) -> None:
    for number in range(3):
        outbox.emit(EventType.LOG, line=f"line {number}")
    assert outbox.flush()
    # The broker goes back to before the last two.
    newest: Any = store.redis.xrevrange(keys.events(JOB), count=2)
    store.redis.xdel(keys.events(JOB), *[entry for entry, _ in newest])
    store.redis.xtrim(keys.events(JOB), maxlen=100)
    store.redis.hincrby(keys.job(JOB), "ordinal", -2)
    assert outbox.flush()
    assert store.redis.hget(keys.job(JOB), "ordinal") == "3"
    assert [f"line {n}" in line for n, line in enumerate(lines(store))] == [True] * 3


def test_half_a_surrogate_pair_breaks_nothing(store: JobStore, outbox: Outbox) -> None:
    outbox.emit(EventType.LOG, line="caf\udce9.txt")
    assert outbox.flush()
    assert "caf?.txt" in lines(store)[0]


@pytest.fixture
def pool(store: JobStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> RunPool:
    """Runs that only wait until the test ends them."""
    monkeypatch.setattr(RunPool, "_work", lambda self, run: None)
    services: Any = SimpleNamespace(
        store=store, instance="i1", storage_id="s1", host="h1", storage=tmp_path
    )
    return RunPool(services, HostStore(store.redis), on_end=lambda: None)


def test_a_claim_whose_answer_was_lost_is_taken_up(
    store: JobStore, token: str, pool: RunPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim = JobStore.claim

    def deaf(self: JobStore, *args: Any, **how: Any) -> str:
        claim(self, *args, **how)
        raise ConnectionError("the answer is lost")

    with monkeypatch.context() as patch:
        patch.setattr(JobStore, "claim", deaf)
        with pytest.raises(ConnectionError):
            pool.take(JOB, token)
    lease = store.leases()[0]
    assert (lease.state, lease.beat) == (JobState.RUNNING, 0)
    assert pool.may_have_claimed(token)
    assert pool.take(JOB, token)
    assert not pool.may_have_claimed(token)
    assert list(pool.runs()) == [JOB]
    assert store.leases()[0].beat == 1, "whoever watches the lease sees that its owner lives"


def test_a_claim_without_a_thread_for_it_is_tried_again(
    token: str, pool: RunPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(runs.threading.Thread, "start", none)
        with pytest.raises(RuntimeError):
            pool.take(JOB, token)
    assert pool.runs() == {}
    assert pool.take(JOB, token)
    assert pool.hand_back() is False  # this test's run does nothing, so it is still there
