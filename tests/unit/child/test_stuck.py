"""A phase whose processes stand still: shown with their stacks, ended, and given its reason."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.support.agents import services, store_with_run

from ftq_shared.events import EventType
from ftq_shared.in_memory import MemoryStore
from ftq_shared.processes import children_of
from ftq_worker.agent import phase_watch
from ftq_worker.agent.child import Child, ZygoteSpawn
from ftq_worker.agent.phase_run import PhaseRun
from ftq_worker.agent.run_handle import RunHandle
from ftq_worker.host.messages import ChildRequest, LeaseTimes
from ftq_worker.host.process_tree import runs


@pytest.fixture
def store() -> MemoryStore:
    return store_with_run()


@pytest.fixture
def ranks() -> list[int]:
    """Pids of the phase's processes, in rank order."""
    return []


@pytest.fixture
def work(
    store: MemoryStore, zygote: ZygoteSpawn, ranks: list[int], tmp_path: Path
) -> Iterator[Callable[[str, int], PhaseRun]]:
    """Runs a fake phase with so many ranks in a thread, as the agent does."""
    threads: list[threading.Thread] = []
    (lease,) = store.leases()

    def go(phase: str, count: int) -> PhaseRun:
        def spawn(request: ChildRequest, output: int) -> Child:
            child = zygote(ChildRequest(**vars(request) | {"phase": phase, "part": phase}), output)
            ranks.append(child.pid)
            return child

        processes: Any = SimpleNamespace(add=lambda pid: None, remove=lambda pids: None)
        given = services(store, tmp_path, spawn, processes, memory_bytes=10**12)
        now = time.monotonic()
        handle = RunHandle(lease.id, lease.token, LeaseTimes(now + 60, now + 60), lambda: None)
        gpus = tuple(f"GPU-{n}" for n in range(count))
        run = PhaseRun(given, replace(store.get(lease.id), gpus=gpus), handle)
        threads.append(threading.Thread(target=run.work))
        threads[-1].start()
        return run

    yield go
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()


def told(store: MemoryStore, kind: EventType, name: str) -> list[str]:
    (job,) = store.broker.held.jobs
    return [event.data[name] for event in store.broker.events(job) if event.type is kind]


def wait_for(condition: Callable[[], Any], timeout_s: float = 30.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)


def test_a_rank_that_stands_still_is_shown_and_its_gang_ended(
    work: Callable[[str, int], PhaseRun],
    store: MemoryStore,
    ranks: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(phase_watch, "STALL_S", 8.0)
    monkeypatch.setattr(phase_watch, "QUIET_S", 1.0)
    work("sleep", 2)
    wait_for(lambda: len(ranks) == 2 and all(children_of(pid) for pid in ranks))
    ((frozen,),) = [children_of(pid) for pid in ranks[1:]]
    wait_for(lambda: "sleeping" in told(store, EventType.LOG, "line"))
    os.kill(frozen, signal.SIGSTOP)

    (job,) = store.broker.held.jobs
    wait_for(lambda: store.broker.held.jobs[job].deaths)
    assert "no progress for" in store.broker.held.jobs[job].deaths[0]["reason"]
    assert store.get(job).state == "queued"
    assert not any(runs(pid) for pid in (*ranks, frozen))

    assert any("no progress for 4 s" in text for text in told(store, EventType.WARNING, "message"))
    log = "\n".join(told(store, EventType.LOG, "line"))
    assert f"rank 1: process {frozen} stopped by a signal" in log
    assert "in sleep" in log, "the stack of the rank that runs"
    assert {"s"} <= set(told(store, EventType.PROGRESS, "unit")), "it was told of all the while"


def test_a_phase_that_grows_too_large_is_ended_and_not_tried_again(
    work: Callable[[str, int], PhaseRun], store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(phase_watch, "MEMORY_SHARE", 3e-4)  # of 1 TB: 300 MB
    work("grow", 1)
    (job,) = store.broker.held.jobs
    wait_for(lambda: store.get(job).state.terminal)
    error = store.get(job).error
    assert error
    assert error.code == "memory_limit"
    assert told(store, EventType.ERROR, "code") == ["memory_limit"]
