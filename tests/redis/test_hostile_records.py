"""What a client writes into the broker becomes no path, no process and no setting unchecked.

One hostile value for each reader: the record is then damaged, and every reader leaves it alone.
"""

import json
from pathlib import Path

import pytest
from redis import Redis
from redis.exceptions import ResponseError
from tests.support import hostile, store_jobs

from ftq_client.client import Client
from ftq_client.local.valkey import EmbeddedBroker
from ftq_shared import keys
from ftq_shared.errors import FtqError, NoSuchJob, UsageError
from ftq_shared.hosts import HostStore
from ftq_shared.job_record import InputFile, JobRecord
from ftq_shared.lifetimes import SPEC_MAX_BYTES
from ftq_shared.paths import JobPaths
from ftq_shared.settings import load_settings
from ftq_shared.spec import JobSpec
from ftq_shared.store import JobStore
from ftq_worker.agent.inputs import fetch_inputs
from ftq_worker.dispatch.dispatcher import dispatch

GOOD, BAD = "ft-aaaaaaaa", "ft-bbbbbbbb"
GIB = 1 << 30

# field -> values that may not reach a path, a process count or an environment
HOSTILE = {
    "id": [*hostile.TRAVERSALS, GOOD],
    "token": ["../x:a", "1:../../x", "1", ":", "1:" + "a" * 100],
    "nonce": hostile.TRAVERSALS,
    "storage_id": ["../s", "a/b", "\n"],
    "host": ["../h", "a b", "h\n", "x" * 64],
    "instance": ["i/1", "\x00"],
    "token_number": ["../1", "-1", "9" * 25, "1.5", "x"],
    "gpus": [
        json.dumps(["GPU-a"] * 2),
        json.dumps([f"GPU-{n}" for n in range(65)]),
        '["GPU-a,GPU-b"]',
        '["../x"]',
        '[""]',
        '"GPU-a"',
        '{"a": 1}',
        "7",
        hostile.DEEP,
    ],
    "created_ms": ["9" * 18, "-5", "soon"],
    "exit_code": ["999", "x"],
    "max_runtime_s": ["nan", "inf", "long"],
    "spec": ["x" * (SPEC_MAX_BYTES + 1)],
}


@pytest.fixture
def hosts(store: JobStore) -> HostStore:
    hosts = HostStore(store.redis)
    hosts.heartbeat("h1", "i1", "", store_jobs.HOST)
    return hosts


@pytest.mark.parametrize(
    ("field", "value"), [(name, value) for name, values in HOSTILE.items() for value in values]
)
def test_a_hostile_field_makes_the_record_damaged_for_every_reader(
    store: JobStore, hosts: HostStore, broker: EmbeddedBroker, field: str, value: str
) -> None:
    store_jobs.submit(store, "b", BAD)
    store_jobs.submit(store, "a", GOOD)
    store.redis.hset(keys.job(BAD), field, value)
    with pytest.raises(FtqError, match=BAD):
        store.get(BAD)
    client = Client(load_settings({"FTQ_REDIS_URL": broker.url, "FTQ_HOME": "/nonexistent"}))
    assert [record.id for record in client.list_jobs(mine=False)] == [GOOD]
    assert dispatch(store, hosts, lambda *_: None) == 1
    assert store.get(GOOD).state == "placed"
    assert store.redis.hget(keys.job(BAD), "state") == "queued"


@pytest.mark.parametrize("job", hostile.TRAVERSALS)
def test_no_script_works_on_what_is_no_job_id(store: JobStore, hosts: HostStore, job: str) -> None:
    with pytest.raises(ResponseError, match="NOJOB"):
        store_jobs.submit(store, "k", job)
    store.redis.hset(keys.job(job), mapping={"id": job, "state": "queued", "version": 0})
    store.redis.zadd(keys.QUEUE, {job: 1})
    store.redis.zadd(keys.JOBS, {job: 1})
    store.redis.sadd(keys.LEASES, job)
    store_jobs.submit(store, "a", GOOD)
    assert dispatch(store, hosts, lambda *_: None) == 1
    assert [lease.id for lease in store.leases()] == [GOOD]
    assert [record.id for record in store.newest_first()] == [GOOD]
    assert (store.cancel(job), store.retry(job, store.get(GOOD).phase)) == ("", "")
    for ask in (store.get, store.find):
        with pytest.raises(NoSuchJob):
            ask(job)


def test_bytes_that_are_no_text_stop_no_reader(store: JobStore, hosts: HostStore) -> None:
    for key, job in (("a", GOOD), ("b", BAD)):
        store_jobs.submit(store, key, job)
    store.redis.hset(keys.job(BAD), mapping={"id": b"\xff\xfe", b"\xff": b"\xff"})  # type: ignore[dict-item]
    store.redis.zadd(keys.QUEUE, {b"ft-\xff": 0})
    store.redis.sadd(keys.HOSTS, b"\xff")
    assert [record.id for record in store.newest_first()] == [GOOD]
    assert dispatch(store, hosts, lambda *_: None) == 1
    assert [host.name for host in hosts.all()] == ["h1"]


def test_a_script_takes_only_the_keys_of_its_job(store: JobStore) -> None:
    store_jobs.submit(store, "a", GOOD)
    other = [key(GOOD) for key in (keys.job, keys.events, keys.kept, keys.secret, keys.inputs)]
    with pytest.raises(ResponseError, match="NOJOB"):
        store._scripts["cancel"](keys=other, args=[BAD])


@pytest.mark.parametrize(
    "path",
    [path for path in hostile.TRAVERSALS if path != "a/b"]
    + ["a/../../b", "", "x" * 5000, "\ud800"],
)
def test_an_input_leads_nowhere_else(
    store: JobStore, redis: Redis, tmp_path: Path, path: str
) -> None:
    store_jobs.submit(store, "b", BAD)
    entry = {"path": path, "size": 1, "sha256": "", "chunks": ["x"]}
    store.redis.hset(keys.job(BAD), "inputs", json.dumps([entry]))
    with pytest.raises(FtqError, match="its input files"):
        fetch_inputs(redis, store.get(BAD), JobPaths(tmp_path / "s", BAD))
    assert not [one for one in tmp_path.rglob("*") if one.is_file()]


@pytest.mark.parametrize("raw", ["x", "7", "[7]", '[{"path": 7}]', "{}x", hostile.DEEP])
def test_inputs_that_cannot_be_read_are_an_error_in_words(raw: str) -> None:
    record = JobRecord.from_hash(
        {"id": BAD, "v": "1", "state": "queued", "phase": "validate", "attempt": "1"}
        | {"version": "1", "inputs": raw}
    )
    with pytest.raises(FtqError, match=BAD):
        _ = record.inputs


@pytest.mark.parametrize("job", hostile.TRAVERSALS)
def test_no_folder_for_what_is_no_job_id(tmp_path: Path, job: str) -> None:
    with pytest.raises(ValueError, match="no job id"):
        JobPaths(tmp_path, job)


@pytest.mark.parametrize("claim", ["..", "", "1-/../x", "a\x00"])
def test_no_folder_for_what_is_no_claim(tmp_path: Path, claim: str) -> None:
    with pytest.raises(ValueError, match="no claim"):
        JobPaths(tmp_path, BAD).claim_dir(claim)


HOST_DAMAGES = [
    ("name", "../h"),
    ("name", "h1"),
    ("instance", "a/b"),
    ("storage_id", "../s"),
    ("gpus", '[{"uuid": "a,b", "name": "", "memory_gb": 1}]'),
    ("gpus", '[{"uuid": "a", "name": "", "memory_gb": NaN}]'),
    ("gpus", hostile.DEEP),
    ("slots", "many"),
    ("running", hostile.DEEP),
]


@pytest.mark.parametrize(("field", "value"), HOST_DAMAGES)
def test_a_hostile_host_is_left_alone(
    store: JobStore, hosts: HostStore, field: str, value: str
) -> None:
    hosts.heartbeat("bad", "i2", "", store_jobs.HOST)
    store.redis.hset(keys.host("bad"), field, value)
    store_jobs.submit(store, "a", GOOD)
    assert [host.name for host in hosts.all()] == ["h1"]
    assert dispatch(store, hosts, lambda *_: None) == 1


def test_a_host_of_another_kind_is_left_alone(store: JobStore, hosts: HostStore) -> None:
    store.redis.sadd(keys.HOSTS, "bad")
    store.redis.set(keys.host("bad"), "x")
    assert [host.name for host in hosts.all()] == ["h1"]


# What a script alone finds, because no reader looks at it.
@pytest.mark.parametrize(
    ("field", "value"),
    [("seq", "9" * 15), ("updated_ms", "x"), ("tries", "x"), ("ordinal", "x"), ("priority", "x")],
)
def test_a_record_that_only_a_script_stumbles_over_stops_no_pass(
    store: JobStore, hosts: HostStore, field: str, value: str
) -> None:
    store_jobs.submit(store, "b", BAD)
    store_jobs.submit(store, "a", GOOD)
    store.redis.hset(keys.job(BAD), field, value)
    dispatch(store, hosts, lambda *_: None)
    assert store.get(GOOD).state == "placed"


@pytest.mark.parametrize("number", ["9" * 25, "x"])
def test_an_error_of_one_placement_stops_no_pass(
    store: JobStore, hosts: HostStore, number: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The field is damaged between the reading and the placing, as another client may do."""
    store_jobs.submit(store, "b", BAD)
    store_jobs.submit(store, "a", GOOD)
    read = store.get_many

    def damaged_after(jobs: list[str]) -> list[JobRecord]:
        found = read(jobs)
        store.redis.hset(keys.job(BAD), "token_number", number)
        return found

    monkeypatch.setattr(store, "get_many", damaged_after)
    assert dispatch(store, hosts, lambda *_: None) == 1
    assert JobStore(store.redis).get(GOOD).state == "placed"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("step", "x"),
        ("steps", "9" * 5000),
        ("loss", "NaN"),
        ("loss", "much"),
        ("eta_s", "1e999"),
        ("error", "[1]"),
        ("error", "no JSON"),
        ("error", '{"exit_code": "x"}'),
        ("error", '{"exit_code": 1e999}'),
        ("error", hostile.DEEP),
        ("spec", "[]"),
        ("spec", "x"),
        ("spec", hostile.DEEP),
        ("inputs", "x"),
    ],
)
def test_what_is_only_shown_is_left_out(store: JobStore, field: str, value: str) -> None:
    store_jobs.submit(store, "b", BAD)
    store.redis.hset(keys.job(BAD), field, value)
    record = store.get(BAD)
    row = record.to_row()
    assert row["id"] == BAD
    assert field not in row or field == "error"
    json.dumps(row, allow_nan=False)
    assert record.error is None or record.error.exit_code == 1


def test_a_damaged_job_is_told_in_words_by_every_call(store: JobStore) -> None:
    store.redis.set(keys.job(BAD), "no hash")
    for call in (store.get, store.cancel, lambda job: store.retry(job, store_jobs.SPEC.task)):  # type: ignore[arg-type]
        with pytest.raises(FtqError) as caught:
            call(BAD)
        assert caught.value.code == "record_damaged"


def test_a_spec_that_is_too_large_is_refused_by_the_script(store: JobStore) -> None:
    args = {f"a{n}": "x" * 1000 for n in range(300)}
    raw = {"model": "a/b", "dataset": "c/d", "train": {"args": args}}
    spec = JobSpec.model_validate(raw)
    with pytest.raises(UsageError, match="too large"):
        store_jobs.submit(store, spec=spec)
    record = json.dumps({"spec": spec.canonical()})
    with pytest.raises(ResponseError, match="TOOLARGE"):  # of a client that does not ask
        store._run("submit", GOOD, record, 60, "", SPEC_MAX_BYTES, extra_keys=["ftq:submit:x"])
    assert store.queued(0, -1) == []


def test_what_is_written_is_read_back() -> None:
    file = InputFile("dataset/ä b/rows (1).jsonl", GIB, "ab", ("cd",), "me/x@c0ffee")
    assert InputFile.from_json(vars(file)) == file  # type: ignore[arg-type]
