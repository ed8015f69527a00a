"""The tailer on a real server: every event, in order, once, whatever happens to connections."""

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ftq_client.local.valkey import EmbeddedBroker
from ftq_shared import keys
from ftq_shared.broker import connect
from ftq_shared.errors import BrokerUnreachable
from ftq_shared.events import Event, EventType, make_body
from ftq_shared.hosts import HostStore
from ftq_shared.spec import JobSpec
from ftq_shared.states import Phase
from ftq_shared.store import JobStore, Placement
from ftq_shared.tailer import Tailer

HOST = {"slots": 2, "gpus": [], "storage_id": "s", "draining": "0"}
JOB = "ft-tailtail"


@pytest.fixture
def token(store: JobStore) -> str:
    """A running job's token."""
    HostStore(store.redis).heartbeat("h", "i", "", HOST)
    spec = JobSpec(model="a/b", dataset="c/d")
    store.submit(JOB, spec, client_key="k", owner="me", endpoint="")
    token, why = store.place(Placement(JOB, store.get(JOB).version, "h", "i", "cpu"))
    assert token, why
    assert store.claim(JOB, token, nonce="n", instance="i", storage_id="s") == "ok"
    return token


def step(number: int) -> str:
    data = {"step": number, "steps": 1000, "epoch": 0.1, "loss": 1.0, "lr": 1e-3}
    return make_body(EventType.STEP, data, attempt=1, host="h", phase=Phase.TRAIN)


def publish(store: JobStore, token: str, count: int, pause_s: float = 0.0) -> None:
    for number in range(1, count + 1):
        store.append(JOB, token, number, [step(number)], milestones=[number % 100 == 0])
        if pause_s:
            time.sleep(pause_s)
    store.finish(JOB, token, "succeeded")


def collect(broker: EmbeddedBroker, seen: list[Event], delay_s: float = 0.0) -> threading.Thread:
    def work() -> None:
        time.sleep(delay_s)  # the late reader of this test
        seen.extend(Tailer(connect(broker.url, retries=0), JOB).follow())

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def kill_connections(store: JobStore, stop: threading.Event) -> Iterator[int]:
    while not stop.wait(0.2):
        yield store.redis.client_kill_filter(_type="pubsub")


def test_three_tailers_through_killed_connections(
    broker: EmbeddedBroker, store: JobStore, token: str
) -> None:
    first: list[Event] = []
    late: list[Event] = []
    stop = threading.Event()
    killed: list[int] = []
    threads = [collect(broker, first), collect(broker, late, 1.0)]
    killer = threading.Thread(target=lambda: killed.extend(kill_connections(store, stop)))
    killer.start()
    publish(store, token, 1500, pause_s=0.001)
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    stop.set()
    killer.join()
    total = store.get(JOB).seq
    assert total >= 1500
    assert sum(killed) > 3, "the test must really have cut connections"
    for seen in (first, late):
        assert [event.seq for event in seen] == list(range(1, total + 1))


def test_after_skips_and_end_stops(broker: EmbeddedBroker, store: JobStore, token: str) -> None:
    publish(store, token, 10)
    events = list(Tailer(store.redis, JOB, after=5).follow())
    assert [event.seq for event in events] == list(range(6, store.get(JOB).seq + 1))
    assert events[-1].data["outcome"] == "succeeded"


def test_an_end_in_the_middle_of_a_retried_job_is_no_end(store: JobStore, token: str) -> None:
    store.finish(JOB, token, "failed")
    store.retry(JOB, Phase.VALIDATE)
    seen: list[Event] = []
    stream = Tailer(store.redis, JOB).follow()
    for event in stream:
        seen.append(event)
        if event.data.get("reason") == "retried":
            store.cancel(JOB)
    outcomes = [event.data["outcome"] for event in seen if "outcome" in event.data]
    assert outcomes == ["failed", "cancelled"]


def test_thinned_range_is_named(store: JobStore, token: str) -> None:
    publish(store, token, 500)
    store.redis.xtrim(keys.events(JOB), maxlen=50, approximate=False)
    events = list(Tailer(store.redis, JOB).follow())
    total = store.get(JOB).seq
    assert events[0].type is EventType.TRUNCATED
    assert events[0].data == {"first": 1, "last": total - 50, "kept": events[0].data["kept"]}
    exact = [event.seq for event in events if event.seq > total - 50]
    assert exact == list(range(total - 49, total + 1))
    milestones = [event for event in events[1:] if event.seq <= total - 50]
    assert len(milestones) == events[0].data["kept"] > 0


def test_events_that_cannot_be_read_are_skipped_with_a_word(
    store: JobStore, token: str, caplog: pytest.LogCaptureFixture
) -> None:
    good = json.loads(step(1)) | {"v": 1, "job": JOB}
    broken = ["", "{", "[]", "null", json.dumps(good | {"type": "invented"}), '{"seq": 1}']
    first = store.get(JOB).seq + 1
    for seq, line in enumerate(broken, first):
        store.redis.xadd(keys.events(JOB), {"e": line} if line else {"x": "y"}, id=f"{seq}-0")
        store.redis.hincrby(keys.job(JOB), "seq", 1)
    seen: list[Event] = []
    for event in Tailer(store.redis, JOB).follow():
        seen.append(event)
        if len(seen) == first - 1:  # the same on the channel
            for line in broken:
                store.redis.publish(keys.live(JOB), line)
            publish(store, token, 10)
    total = store.get(JOB).seq
    skipped = range(first, first + len(broken))
    assert [e.seq for e in seen] == [n for n in range(1, total + 1) if n not in skipped]
    assert all(f"event {seq} of {JOB} cannot be read" in caplog.text for seq in skipped)


@pytest.mark.parametrize("after", [0, 5, 10_000])
def test_a_tail_of_a_job_whose_events_have_expired_ends(
    store: JobStore, token: str, after: int
) -> None:
    publish(store, token, 200)
    store.redis.delete(keys.events(JOB))
    total = store.get(JOB).seq
    events = list(Tailer(store.redis, JOB, after=after).follow())
    if after > total:
        assert events == []
        return
    assert events[0].data["first"] == after + 1
    assert events[-1].seq == total
    assert all(event.seq > after for event in events)


def test_an_outage_that_lasts_ends_the_tail(tmp_path_factory: pytest.TempPathFactory) -> None:
    with EmbeddedBroker(tmp_path_factory.mktemp("gone")) as server:
        client = connect(server.url, retries=0)
        client.ping()
    notes: list[str] = []
    tailer = Tailer(client, JOB, on_outage=notes.append, outage_s=1.0)
    with pytest.raises(BrokerUnreachable, match="has been away"):
        list(tailer.follow())
    assert notes


def test_made_up_entries_and_messages_do_not_end_a_tail(store: JobStore, token: str) -> None:
    """A client may add to a job's stream, and publish on its channel, what it likes."""
    good = json.loads(step(1)) | {"v": 1, "job": JOB}
    first = store.get(JOB).seq + 1
    # Under one number, twice: read once.
    for entry in (f"{first}-0", f"{first}-1"):
        line = json.dumps(good | {"seq": 5, "job": "ft-other"}).replace('"seq": 5', '"seq": 1e999')
        store.redis.xadd(keys.events(JOB), {"e": line}, id=entry)
    store.redis.hincrby(keys.job(JOB), "seq", 1)
    seen: list[Event] = []
    for event in Tailer(store.redis, JOB).follow():
        seen.append(event)
        if len(seen) == first:
            state = good | {"type": "state", "data": {"state": "failed", "exit_code": "x"}}
            for odd in ('"1e999"', "1e999", "-1", "18446744073709551615", "null"):
                line = json.dumps(state | {"seq": "@@"}).replace('"@@"', odd)
                store.redis.publish(keys.live(JOB), line)
            store.redis.publish(keys.live(JOB), "[" * 100_000)
            publish(store, token, 3)
    assert [e.seq for e in seen] == list(range(1, store.get(JOB).seq + 1))
    assert {e.job for e in seen} == {JOB}


def test_a_damaged_count_in_the_record_does_not_end_a_tail(store: JobStore, token: str) -> None:
    publish(store, token, 3)
    store.redis.hset(keys.job(JOB), "seq", "x")
    assert len(list(Tailer(store.redis, JOB).follow())) > 3


def test_an_outage_is_noted_and_so_is_its_end(tmp_path: Path) -> None:
    with (
        EmbeddedBroker(tmp_path / "b") as server,
        connect(server.url) as writer,
        connect(server.url, retries=0) as reader,
    ):
        store = JobStore(writer)
        spec = JobSpec(model="a/b", dataset="c/d")
        store.submit(JOB, spec, client_key="k", owner="me", endpoint="")
        notes: list[str] = []
        stream = Tailer(reader, JOB, on_outage=notes.append).follow()
        assert next(stream).type is EventType.STATE
        assert server.process
        server.process.kill()
        server.process.wait()

        def back() -> None:
            while not notes:
                time.sleep(0.02)
            server.launch()
            store.cancel(JOB)

        thread = threading.Thread(target=back, daemon=True)
        thread.start()
        assert [event.data["state"] for event in stream] == ["cancelled"]
        thread.join(30)
        assert list(dict.fromkeys(notes)) == [
            "the broker does not answer; trying again",
            "the broker answers again",
        ]
