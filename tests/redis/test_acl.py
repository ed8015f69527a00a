"""The access lists of docs/security.md let a job through, and stop what they should stop."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from redis import Redis
from redis.exceptions import NoPermissionError
from tests.support.pages import ROOT, fences

from ftq_client import Client
from ftq_client.fleet import worker_rows
from ftq_client.local.valkey import EmbeddedBroker
from ftq_shared import keys
from ftq_shared.broker import connect
from ftq_shared.celery_messages import DISPATCH, RUN_PHASE, sender
from ftq_shared.events import EventType, make_body
from ftq_shared.hosts import HostStore
from ftq_shared.paths import JobPaths
from ftq_shared.secrets import FleetKey
from ftq_shared.settings import load_settings
from ftq_shared.states import JobState, Phase
from ftq_shared.store import JobStore
from ftq_worker.agent.inputs import fetch_inputs
from ftq_worker.dispatch.dispatcher import dispatch
from ftq_worker.supervisor.fleet_key import announce_fleet

PASSWORD = "correct-horse"
FIELDS = {"slots": "1", "gpus": [], "storage_id": "s1", "draining": "0"}


@pytest.fixture
def users(redis: Redis, broker: EmbeddedBroker) -> Iterator[dict[str, str]]:
    """The documented users on the real server; yields the URL of each."""
    (block,) = fences((ROOT / "docs" / "security.md").read_text(), "acl")
    names = []
    for line in block.splitlines():
        _, name, *rules = line.split()
        names.append(name)
        rules = [f">{PASSWORD}" if rule.startswith(">") else rule for rule in rules]
        redis.execute_command("ACL", "SETUSER", name, "reset", *rules)
    redis.acl_log_reset()
    place = broker.url.partition("@")[2]
    yield {name: f"redis://{name}:{PASSWORD}@{place}" for name in names}
    redis.acl_deluser(*names)


@pytest.fixture
def client(users: dict[str, str], tmp_path: Path) -> Client:
    home = tmp_path / "client"
    return Client(load_settings({"FTQ_REDIS_URL": users["client"], "FTQ_HOME": str(home)}))


@pytest.fixture
def worker(users: dict[str, str], tmp_path: Path) -> tuple[JobStore, HostStore]:
    """A worker that has announced the fleet's key and is online."""
    settings = load_settings(
        {"FTQ_REDIS_URL": users["worker"], "FTQ_HOME": str(tmp_path / "worker")}
    )
    FleetKey.generate().save(settings.fleet_key_file)
    redis = connect(users["worker"])
    announce_fleet(redis, settings)
    hosts = HostStore(redis)
    hosts.heartbeat("h1", "i1", "", FIELDS | {"endpoint": settings.hf_endpoint})
    return JobStore(redis), hosts


def _body(line: str) -> str:
    return make_body(EventType.LOG, {"line": line}, attempt=1, host="h1", phase=Phase.VALIDATE)


def _take(url: str, queue: str) -> str:
    """Take one message as a Celery worker does; return the name of its task."""
    app = sender(url)
    with app.connection_for_read() as connection, connection.SimpleQueue(queue) as messages:
        message = messages.get(timeout=5)
        message.ack()
        return str(message.headers["task"])


def test_a_job_passes_from_submit_to_its_end(
    client: Client,
    worker: tuple[JobStore, HostStore],
    users: dict[str, str],
    redis: Redis,
    tmp_path: Path,
) -> None:
    store, hosts = worker
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"prompt": "a", "completion": "b"}\n')
    spec = {"model": "org/base", "dataset": str(rows)}
    job = client.submit(spec, secrets={"HF_TOKEN": "hf_" + "x" * 24})
    assert _take(users["worker"], keys.DISPATCH_QUEUE) == DISPATCH

    def ring_host(queue: str, placed: str, token: str) -> None:
        sender(users["worker"]).send_task(RUN_PHASE, args=[placed, token], queue=queue)

    assert dispatch(store, hosts, ring_host) == 1
    assert _take(users["worker"], keys.host_queue("h1", "i1")) == RUN_PHASE
    record = store.get(job)
    assert store.claim(job, record.token, nonce="n", instance="i1", storage_id="s1") == "ok"
    assert store.renew({job: record.token}) == {job: "ok"}
    assert store.sealed_secrets(job)
    fetch_inputs(connect(users["worker"], binary=True), record, JobPaths(tmp_path / "s", job))
    bodies = [_body("one"), _body("two")]
    assert store.append(job, record.token, 1, bodies, milestones=[True, False])[1] == "ok"
    assert worker_rows(client)[0]["running"] == [job]
    assert client.cancel(job) is JobState.RUNNING
    assert store.renew({job: record.token}) == {job: "cancel"}
    assert store.finish(job, record.token, "cancelled") == "ok"

    assert client.find(job[:7]) == client.find() == job
    assert [record.id for record in client.list_jobs(active=False)] == [job]
    assert [event.seq for event in client.tail(job)] == list(range(1, client.get(job).seq + 1))
    assert client.retry(job) is JobState.QUEUED
    assert client.store.queue_position(job) == 1
    assert client.cancel(job) is JobState.CANCELLED
    hosts.leave("h1", "i1")
    assert client.workers() == []
    assert redis.acl_log() == []


def test_a_waiting_job_and_a_lost_owner_pass_too(
    client: Client, worker: tuple[JobStore, HostStore], redis: Redis
) -> None:
    store, hosts = worker
    job = client.submit({"model": "org/base", "dataset": "org/rows"})
    store.say_waiting(job, "all CPU slots are taken", "a running phase has to end")
    dispatch(store, hosts, lambda *_: None)
    record = store.get(job)
    assert store.reap(job, record.token, record.renewals, "silent") == "queued"
    hosts.heartbeat("h1", "i1", "", FIELDS | {"endpoint": client.settings.hf_endpoint})
    dispatch(store, hosts, lambda *_: None)
    record = store.get(job)
    assert store.claim(job, record.token, nonce="n", instance="i1", storage_id="s1") == "ok"
    assert store.lock(job, record.token, "hub/me/repo") == ("ok", "")
    assert [lease.id for lease in store.leases()] == [job]
    assert store.requeue(job, record.token, "drain", counts_attempt=False) == "queued"
    assert redis.acl_log() == []


def test_a_client_cancels_in_every_state(
    client: Client, worker: tuple[JobStore, HostStore], redis: Redis
) -> None:
    store, hosts = worker
    waiting = client.submit({"model": "org/base", "dataset": "org/rows"})
    assert client.cancel(waiting) is JobState.CANCELLED
    job = client.submit({"model": "org/base", "dataset": "org/rows"})
    dispatch(store, hosts, lambda *_: None)
    token = store.get(job).token
    assert client.cancel(job) is JobState.PLACED  # it may not take the lease: the claim ends it
    answer = store.claim(job, token, nonce="n", instance="i1", storage_id="s1")
    assert (answer, store.get(job).state) == ("cancelled", JobState.CANCELLED)
    assert store.leases() == []


@pytest.mark.parametrize(
    "command",
    [
        "KEYS *",
        "SCAN 0",
        "FLUSHALL",
        "CONFIG GET *",
        "ACL LIST",
        "CLIENT LIST",
        "MONITOR",
        "SELECT 1",
        "RPOP ftq",
        "BLPOP ftq 1",
        "DEL ftq",
        "SET ftq x",
        "EXPIRE ftq 1",
        "LPUSH ftq.host.h1.i1 x",
        "LPUSH ftqevil:zz x",
        "SET ftqX x",
        "LPUSH ftqX x",
        f"HSET {keys.FLEET} public_key x",
        f"HSET {keys.host('h1')} slots 99",
        f"SADD {keys.HOSTS} x",
        f"SREM {keys.HOSTS} h1",
        f"SADD {keys.LEASES} x",
        f"SREM {keys.LEASES} x",
        f"DEL {keys.job('ft-aaaaaaaa')}",
        f"DEL {keys.QUEUE}",
        "SUBSCRIBE other",
        "GET foreign",
        "FUNCTION LIST",
        "EVAL return(1) 0",
        "SCRIPT KILL",
        "SCRIPT FLUSH",
        "RENAME ftq:queue ftq:jobs",
    ],
)
def test_a_client_may_not(users: dict[str, str], command: str) -> None:
    redis = connect(users["client"])
    with pytest.raises(NoPermissionError):
        redis.execute_command(*command.split())
    redis.close()


@pytest.mark.parametrize(
    "command",
    [
        "FLUSHALL",
        "FLUSHDB",
        "CONFIG GET *",
        "ACL LIST",
        "KEYS *",
        "SCAN 0",
        "GET other",
        "GET ftqX",
        "SELECT 1",
        "FUNCTION LOAD x",
        "FUNCTION FLUSH",
        "FUNCTION LIST",
        "FCALL f 0",
        "RENAME ftq:queue ftq:jobs",
        "COPY ftq:queue ftq:jobs",
        "MOVE ftq:queue 1",
        "MIGRATE h 1 ftq:queue 0 1",
        "SWAPDB 0 1",
        "SHUTDOWN",
        "CLIENT KILL ID 1",
        "SCRIPT FLUSH",
        "SCRIPT KILL",
        "EVAL return(1) 0",
        "SUBSCRIBE other",
    ],
)
def test_a_worker_may_not(users: dict[str, str], command: str) -> None:
    redis = connect(users["worker"])
    with pytest.raises(NoPermissionError):
        redis.execute_command(*command.split())
    redis.close()


def test_a_client_passes_over_hosts_that_have_gone(
    client: Client, worker: tuple[JobStore, HostStore], redis: Redis
) -> None:
    """Only a worker may strike a name out."""
    redis.delete(keys.host("h1"))
    assert client.workers() == []
    assert redis.smembers(keys.HOSTS) == {"h1"}
    assert worker[1].all() == []
    assert redis.smembers(keys.HOSTS) == set()


def test_compose_uses_the_documented_users() -> None:
    """The lines of docker-compose.yml are those of the document, with their own passwords."""
    (block,) = fences((ROOT / "docs" / "security.md").read_text(), "acl")
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    config = compose["configs"]["broker"]["content"]
    for line in block.splitlines():
        user, _, rules = line.partition(">")
        password = re.escape(f">${{FTQ_{user.split()[1].upper()}_PASSWORD:?")
        assert re.search(
            f"{re.escape(user)}{password}.*}} {re.escape(rules.partition(' ')[2])}", config
        )
    assert "user default off" in config
