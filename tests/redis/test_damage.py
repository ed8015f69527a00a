"""Damaged and foreign records, files and answers: one of them is skipped, the others are served."""

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from redis.exceptions import ResponseError

from ftq_shared import keys
from ftq_shared.events import EventType, make_body
from ftq_shared.hosts import HostStore
from ftq_shared.spec import JobSpec
from ftq_shared.states import Phase
from ftq_shared.store import JobStore, Placement
from ftq_worker.agent.leases import Reaper
from ftq_worker.agent.outbox import Outbox, send_rest

SPEC = JobSpec(model="org/model", dataset="org/data")
HOST = {
    "slots": 3,
    "gpus": [{"uuid": "GPU-a", "name": "Test", "memory_gb": 10}],
    "storage_id": "s1",
    "version": "0",
}
GOOD, BAD = "ft-aaaaaaaa", "ft-bbbbbbbb"
LOST_TIMES = 40.0  # longer than any lease


@pytest.fixture
def hosts(store: JobStore) -> HostStore:
    hosts = HostStore(store.redis)
    hosts.heartbeat("h1", "i1", "", HOST)
    return hosts


@pytest.fixture
def tokens(store: JobStore, hosts: HostStore) -> dict[str, str]:
    """Two jobs that run."""
    return {job: run(store, job) for job in (GOOD, BAD)}


def submit(store: JobStore, job: str) -> None:
    store.submit(job, SPEC, client_key=job, owner="me@here", endpoint="")


def run(store: JobStore, job: str) -> str:
    submit(store, job)
    token, _ = store.place(Placement(job, store.get(job).version, "h1", "i1", "cpu"))
    assert store.claim(job, token, nonce="n", instance="i1", storage_id="s1") == "ok"
    return token


def damage(store: JobStore, field: str, value: str) -> None:
    store.redis.hset(keys.job(BAD), field, value)


def body(line: str) -> str:
    return make_body(EventType.LOG, {"line": line}, attempt=1, host="h1", phase=Phase.TRAIN)


DAMAGES = [("beat", "soon"), ("state", "paused"), ("v", "one")]


@pytest.mark.parametrize(("field", "value"), DAMAGES)
def test_a_damaged_record_is_skipped_with_a_word(
    store: JobStore,
    tokens: dict[str, str],
    caplog: pytest.LogCaptureFixture,
    field: str,
    value: str,
) -> None:
    damage(store, field, value)
    assert [lease.id for lease in store.leases()] == [GOOD]
    assert [record.id for record in store.leased()] == [GOOD]
    assert [record.id for record in store.get_many([BAD, GOOD])] == [GOOD]
    assert [record.id for record in store.newest_first()] == [GOOD]
    assert sum(BAD in message for message in caplog.messages) == 4


def test_a_key_of_another_kind_is_skipped_with_a_word(
    store: JobStore, tokens: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    store.redis.set(keys.job(BAD), "not a hash")
    assert [lease.id for lease in store.leases()] == [GOOD]
    assert [record.id for record in store.newest_first()] == [GOOD]
    assert store.renew(tokens) == {GOOD: "ok"}
    assert sum("WRONGTYPE" in message for message in caplog.messages) == 3


def test_what_cannot_be_read_stays_in_the_list(store: JobStore) -> None:
    # It may be of a newer version, whose clients can read it; what has expired goes.
    for job in (GOOD, BAD, "ft-cccccccc"):
        submit(store, job)
    damage(store, "state", "paused")
    store.redis.delete(keys.job("ft-cccccccc"))
    for _ in range(2):
        assert [record.id for record in store.newest_first(page=1)] == [GOOD]
    assert set(store.redis.zrange(keys.JOBS, 0, -1)) == {GOOD, BAD}


def test_a_damaged_record_costs_no_other_job_its_lease(
    store: JobStore, tokens: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    damage(store, "beat", "soon")
    # No answer: its child dies of its timer, and the job is queued again, with a new beat.
    assert store.renew(tokens) == {GOOD: "ok"}
    assert BAD in caplog.text
    assert store.requeue(BAD, tokens[BAD], "not renewed", counts_attempt=True) == "queued"
    token, _ = store.place(Placement(BAD, store.get(BAD).version, "h1", "i1", "cpu"))
    assert store.renew({BAD: token}) == {BAD: "unclaimed"}


def test_errors_that_are_no_damage_are_raised(store: JobStore, tokens: dict[str, str]) -> None:
    store.redis.execute_command("ACL", "SETUSER", "default", "-hgetall")
    try:
        with pytest.raises(ResponseError, match="hgetall"):
            store.get_many([GOOD])
    finally:
        store.redis.execute_command("ACL", "SETUSER", "default", "+hgetall")


@pytest.mark.parametrize("gpus", ["", "GPU-a", "7", '{"a": 1}'])
def test_a_damaged_record_keeps_no_other_job_from_a_place(
    store: JobStore, tokens: dict[str, str], gpus: str
) -> None:
    damage(store, "gpus", gpus)
    submit(store, "ft-cccccccc")
    plan = Placement("ft-cccccccc", store.get("ft-cccccccc").version, "h1", "i1", "cpu")
    assert store.place(plan)[0]


def test_a_damaged_record_keeps_no_other_lease_from_being_taken(
    store: JobStore, tokens: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    store.redis.hset(keys.job(GOOD), "deaths", "many")  # the first that the reaper comes to
    now = [0.0]
    reaper = Reaper(store, "s1", lambda _: None, lambda: now[0])
    while now[0] < LOST_TIMES:
        taken = reaper.look(store.leases(), lambda: "run")
        now[0] += 5.0
        if taken:
            break
    assert store.get(BAD).state == "queued"
    assert f"reap {GOOD}" in caplog.text


def test_a_lock_that_names_nobody_is_nobodys(store: JobStore, tokens: dict[str, str]) -> None:
    store.redis.set(keys.lock("hub/me/x"), "garbage")
    assert store.lock(GOOD, tokens[GOOD], "hub/me/x") == ("ok", "")


@pytest.mark.parametrize(
    "line",
    ['{"type": "log", "da', "[1, 2]", "7", '"log"', '{"type": "log", "data": 7}', '{"type": "x"}'],
)
def test_the_rest_of_a_claims_events_ends_at_a_line_that_is_none(
    store: JobStore, tokens: dict[str, str], tmp_path: Path, line: str
) -> None:
    path = tmp_path / "events.jsonl"
    path.write_text("".join(f"{text}\n" for text in (body("1"), body("2"), line, body("3"))))
    store.append(GOOD, tokens[GOOD], 1, [body("1")], milestones=[False])
    assert send_rest(store, GOOD, tokens[GOOD], path) == 1
    assert send_rest(store, GOOD, tokens[GOOD], path) == 0
    assert lines(store) == ["1", "2"]


def test_the_rest_is_sent_in_batches_and_once(
    store: JobStore, tokens: dict[str, str], tmp_path: Path
) -> None:
    path = tmp_path / "events.jsonl"
    path.write_text("".join(body(str(n)) + "\n" for n in range(250)) + body("cut off")[:20])
    assert send_rest(store, GOOD, "9:stale", path) == 0
    assert send_rest(store, GOOD, tokens[GOOD], path) == 250
    assert lines(store) == [str(n) for n in range(250)]


def lines(store: JobStore) -> list[str]:
    entries = [json.loads(fields["e"]) for _, fields in store.redis.xrange(keys.events(GOOD))]
    return [entry["data"]["line"] for entry in entries if entry["type"] == "log"]


def answering(answer: Any) -> Callable[..., Any]:
    """Stand for a script of another version."""
    return lambda *args, **kwargs: answer


@pytest.mark.parametrize("answer", ["ok", ["1", "ok", "more"], None, ["x", "ok"]])
def test_an_outbox_gives_its_run_up_when_it_does_not_understand_the_broker(
    store: JobStore, tokens: dict[str, str], tmp_path: Path, answer: Any
) -> None:
    store._scripts["append"] = store._scripts["append_when_full"] = answering(answer)
    told = threading.Event()
    outbox = Outbox(
        store,
        GOOD,
        tokens[GOOD],
        tmp_path / "events.jsonl",
        attempt=1,
        host="h1",
        phase=Phase.TRAIN,
        on_stale=told.set,
    )
    outbox.emit(EventType.LOG, line="x")
    assert not outbox.flush()
    assert told.wait(timeout=30)
    outbox.close()


def test_an_unknown_answer_is_no_yes(store: JobStore, hosts: HostStore) -> None:
    submit(store, GOOD)
    plan = Placement(GOOD, store.get(GOOD).version, "h1", "i1", "cpu")
    for name in ("claim", "finish", "requeue", "reap"):
        store._scripts[name] = answering("later")
    assert store.claim(GOOD, "1:x", nonce="n", instance="i1", storage_id="s1") != "ok"
    assert store.finish(GOOD, "1:x", "succeeded") != "ok"
    for answer in ("placed", None, ["1:x", "", "more"]):
        store._scripts["place"] = answering(answer)
        with pytest.raises((ValueError, TypeError)):
            store.place(plan)
    hosts._beat = answering(["later", "1"])
    assert hosts.heartbeat("h1", "i1", "", HOST)  # what it does not know is no refusal


def test_a_lease_with_damaged_cards_is_still_one(store: JobStore, tokens: dict[str, str]) -> None:
    for cards in ("[1", "7", "null"):
        damage(store, "gpus", cards)
        assert {lease.id for lease in store.leases()} == {GOOD, BAD}
