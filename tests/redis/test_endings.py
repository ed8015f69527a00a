"""The end of a run at a broker that is full, or that gets text which is none. Nothing is lost."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ftq_shared import keys
from ftq_shared.events import EventType
from ftq_shared.hosts import HostStore
from ftq_shared.spec import JobSpec
from ftq_shared.states import Phase
from ftq_shared.store import JobStore, Placement
from ftq_worker.agent.outbox import Outbox, send_rest

HOST = {"slots": 3, "gpus": [], "storage_id": "s1", "version": "0"}
JOB = "ft-aaaaaaaa"


@pytest.fixture
def token(store: JobStore) -> str:
    """A job that is placed here."""
    HostStore(store.redis).heartbeat("h1", "i1", "", HOST)
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


def test_half_a_surrogate_pair_breaks_nothing(store: JobStore, outbox: Outbox) -> None:
    outbox.emit(EventType.LOG, line="caf\udce9.txt")
    assert outbox.flush()
    assert "caf?.txt" in lines(store)[0]
