"""A host takes up what was placed with it: also after a lost answer, or without a thread for it."""

import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from redis.exceptions import ConnectionError
from tests.support.store_jobs import HOST, place, submit

from ftq_shared.in_memory import MemoryHosts, MemoryStore
from ftq_shared.states import JobState
from ftq_worker.agent import run_pool
from ftq_worker.agent.run_pool import RunPool
from ftq_worker.host.messages import LeaseTimes

JOB = "ft-aaaaaaaa"


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def hosts(store: MemoryStore) -> MemoryHosts:
    hosts = MemoryHosts(store.broker)
    hosts.heartbeat("h1", "i1", "", HOST)
    return hosts


@pytest.fixture
def token(store: MemoryStore, hosts: MemoryHosts) -> str:
    """Of a job that is placed here."""
    return place(store, submit(store, job=JOB))


@pytest.fixture
def pool(
    store: MemoryStore, hosts: MemoryHosts, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> RunPool:
    """Runs that only wait until the test ends them."""
    monkeypatch.setattr(RunPool, "_work", lambda self, run: None)
    services: Any = SimpleNamespace(
        store=store, instance="i1", storage_id="s1", host="h1", storage=tmp_path, memory_bytes=10**9
    )
    return RunPool(services, hosts, on_end=lambda: None)


def test_a_claim_whose_answer_was_lost_is_taken_up(
    store: MemoryStore, token: str, pool: RunPool
) -> None:
    store.broker.fail_next(ConnectionError("the answer is lost"), "claim", done=True)
    with pytest.raises(ConnectionError):
        pool.take(JOB, token)
    lease = store.leases()[0]
    assert (lease.state, lease.renewals) == (JobState.RUNNING, 1)
    assert pool.may_have_claimed(token)
    assert pool.take(JOB, token)
    assert not pool.may_have_claimed(token)
    assert list(pool.runs()) == [JOB]
    assert store.leases()[0].renewals == 2, "whoever watches the lease sees that its owner lives"


def test_a_claim_without_a_thread_for_it_is_tried_again(
    token: str, pool: RunPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", none)
        with pytest.raises(RuntimeError):
            pool.take(JOB, token)
    assert pool.runs() == {}
    assert pool.take(JOB, token)
    assert (
        pool.hand_back(lambda until: None) is False
    )  # this test's run does nothing, so it is still there


@pytest.mark.parametrize("gone", ["processes", "lease"])
def test_a_run_that_can_save_no_more_has_only_its_report_left(
    gone: str, token: str, pool: RunPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A save that nobody has measured may take ten minutes; a report to no broker may not."""
    over = threading.Event()
    monkeypatch.setattr(RunPool, "_work", lambda self, run: over.wait(30))
    monkeypatch.setattr(run_pool, "END_S", 0.3)
    assert pool.take(JOB, token)
    (run,) = pool.runs().values()
    run.save_s = 600.0
    now = time.monotonic()
    if gone == "processes":
        run.ended_at = now
    else:
        monkeypatch.setattr(run, "_lease", LeaseTimes(now, now))
    announced: list[float] = []
    before = time.monotonic()
    assert pool.hand_back(announced.append) is False
    assert time.monotonic() - before < 10
    assert announced[0] - before > 500, "until the processes are gone the save may take its time"
    over.set()
