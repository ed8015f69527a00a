"""A claim's events on their way to a broker that forgets, or is away for a moment."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from redis.exceptions import ConnectionError, ResponseError
from tests.support.store_jobs import HOST, log, place, run, submit

from ftq_shared.events import EventType
from ftq_shared.in_memory import MemoryHosts, MemoryStore
from ftq_shared.job_record import Rest
from ftq_shared.paths import JobPaths
from ftq_shared.states import Phase
from ftq_worker.agent.child import HostTrouble
from ftq_worker.agent.outbox import BATCH, Outbox, send_rest_before

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


def test_what_a_full_broker_does_not_take_waits_in_the_file(
    store: MemoryStore, outbox: Outbox
) -> None:
    count = 20 * BATCH
    for _ in range(3):
        store.broker.fail_next(ResponseError("OOM command not allowed"), "append")
    for number in range(count):
        outbox.emit(EventType.LOG, line=str(number))
        assert len(outbox._batch) <= BATCH
    assert outbox_ends(outbox)
    assert lines(store) == [str(number) for number in range(count)]
    assert outbox._not_in_file == []


def test_what_a_full_disk_does_not_take_is_sent_all_the_same(
    store: MemoryStore, outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(text: str) -> int:
        raise OSError(28, "No space left on device")

    before = store.broker.snapshot()
    outbox.emit(EventType.LOG, line="0")
    monkeypatch.setattr(outbox._file, "write", full)
    with pytest.raises(HostTrouble, match="No space left"):
        outbox.emit(EventType.LOG, line="1")
    outbox.emit(EventType.LOG, line="2")
    assert outbox_ends(outbox)
    store.broker.roll_back(before)
    assert outbox_ends(outbox)
    assert lines(store) == ["0", "1", "2"]


def outbox_ends(outbox: Outbox) -> bool:
    """Flush as a run does: a call that met an outage is repeated."""
    while True:
        try:
            return outbox.flush()
        except (ConnectionError, ResponseError):
            continue


@pytest.mark.parametrize("line", [OSError(116, "Stale file handle"), "", '{"type": "lo'])
def test_a_file_that_cannot_be_read_back_ends_the_run(
    outbox: Outbox, monkeypatch: pytest.MonkeyPatch, line: OSError | str
) -> None:
    class Broken:
        def readline(self) -> str:
            if isinstance(line, OSError):
                raise line
            return line

        def close(self) -> None: ...

    outbox._reader.close()
    monkeypatch.setattr(outbox, "_reader", Broken())
    outbox.emit(EventType.LOG, line="lost")
    assert not outbox.flush(), "whoever waits for its end is told that there is none"


def test_what_a_claim_could_not_send_the_next_one_sends(store: MemoryStore, tmp_path: Path) -> None:
    """Its lease was taken by a host that cannot read its files."""
    job, paths = submit(store, job=JOB), JobPaths(tmp_path, JOB)
    token = run(store, job)
    first = store.get(job)
    path = paths.events(first.claim)
    path.parent.mkdir(parents=True)
    bodies = [log(f"line {n}") for n in range(BATCH + 5)]
    path.write_text("".join(f"{body}\n" for body in bodies) + '{"cut o')
    store.append(job, token, 1, bodies[:3], milestones=[True] * 3)
    assert send_rest_before(store, first, paths) == 0, "there was none before"
    store.reap(job, token, first.renewals, "silent")
    MemoryHosts(store.broker).heartbeat("h1", "i1", "", HOST)

    token = run(store, job, random="1" * 16)
    second = store.get(job)
    assert send_rest_before(store, second, paths) == BATCH + 2
    assert lines(store) == [f"line {n}" for n in range(BATCH + 5)]
    assert send_rest_before(store, store.get(job), paths) == 0
    store.append(job, token, 1, [log("mine")], milestones=[True])
    assert store.append_rest(job, token, first.token, 1, bodies, milestones=[]) == (0, "stale")


def test_of_a_place_that_nobody_claimed_the_claim_before_is_remembered(store: MemoryStore) -> None:
    job = submit(store, job=JOB)
    claimed = run(store, job)
    store.append(job, claimed, 1, [log("one")], milestones=[True])
    store.requeue(job, claimed, "interrupted", counts_attempt=False)
    store.requeue(job, place(store, job, random="1" * 16), "full", counts_attempt=False)
    assert store.get(job).rest == Rest(claimed, "n", 1)


@pytest.mark.parametrize(
    "text", ["", "1:a", "1:a ../x 3", "1:a n -1", "1:a n " + "9" * 5000, "x n 1", "1:a n 1 2"]
)
def test_a_hostile_rest_is_none(store: MemoryStore, text: str) -> None:
    record = store.get(submit(store, job=JOB))
    assert replace(record, summary={"rest": text}).rest is None
