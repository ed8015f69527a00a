"""A claim's events on their way to a broker that forgets, or is away for a moment."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from redis.exceptions import ConnectionError
from tests.support.store_jobs import HOST, run, submit

from ftq_shared.events import EventType
from ftq_shared.in_memory import MemoryHosts, MemoryStore
from ftq_shared.states import Phase
from ftq_worker.agent.outbox import Outbox

JOB = "ft-aaaaaaaa"


@pytest.fixture
def store() -> MemoryStore:
    store = MemoryStore()
    MemoryHosts(store.broker).heartbeat("h1", "i1", "", HOST)
    return store


@pytest.fixture
def outbox(store: MemoryStore, tmp_path: Path) -> Iterator[Outbox]:
    """Of a claimed run."""
    outbox = Outbox(
        store,
        JOB,
        run(store, submit(store, job=JOB)),
        tmp_path / "events.jsonl",
        attempt=1,
        host="h1",
        phase=Phase.TRAIN,
        on_stale=lambda: None,
    )
    yield outbox
    outbox.close()


def lines(store: MemoryStore) -> list[str]:
    return [e.data["line"] for e in store.broker.events(JOB) if e.type is EventType.LOG]


def test_what_a_rollback_took_is_sent_again_before_the_end(
    store: MemoryStore, outbox: Outbox
) -> None:
    outbox.emit(EventType.LOG, line="line 0")
    assert outbox.flush()
    before = store.broker.snapshot()
    for number in (1, 2):
        outbox.emit(EventType.LOG, line=f"line {number}")
    assert outbox.flush()
    store.broker.roll_back(before)
    assert lines(store) == ["line 0"]
    assert outbox.flush()
    assert lines(store) == ["line 0", "line 1", "line 2"]


def test_an_event_whose_answer_was_lost_is_stored_once(store: MemoryStore, outbox: Outbox) -> None:
    for done in (True, False):
        store.broker.fail_next(ConnectionError("away"), "append", done=done)
    outbox.emit(EventType.LOG, line="once")
    outbox.emit(EventType.LOG, line="then")
    assert outbox_ends(outbox)
    assert lines(store) == ["once", "then"]


def outbox_ends(outbox: Outbox) -> bool:
    """Flush as a run does: a call that met an outage is repeated."""
    while True:
        try:
            return outbox.flush()
        except ConnectionError:
            continue
