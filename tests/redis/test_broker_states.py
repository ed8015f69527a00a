"""Brokers in states that no job survives: each is told in words, at the start and by the doctor."""

import logging
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from kombu.exceptions import OperationalError
from redis import Redis
from redis.exceptions import ReadOnlyError, ResponseError
from tests.support import store_jobs
from tests.support.servers import ConfiguredBroker, TlsProxy, make_certificates

from ftq_client import Client
from ftq_client.commands.doctor import doctor
from ftq_client.local.valkey import EmbeddedBroker, free_port
from ftq_shared import celery_messages, keys
from ftq_shared.broker import connect, is_damage, translated
from ftq_shared.broker_check import look_at_broker
from ftq_shared.celery_messages import sender
from ftq_shared.errors import BrokerUnreachable, Exit
from ftq_shared.settings import load_settings
from ftq_shared.store import JobStore
from ftq_worker.supervisor.main import check_broker

SPEC = {"model": "org/base", "dataset": "org/rows"}
Start = Callable[..., ConfiguredBroker]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start a server with more lines of configuration; all end with the test."""
    running: list[ConfiguredBroker] = []

    def one(*lines: str) -> ConfiguredBroker:
        broker = ConfiguredBroker(tmp_path / f"broker{len(running)}", *lines)
        running.append(broker)
        broker.start()
        return broker

    yield one
    for broker in running:
        broker.stop()


def said(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[int, str]:
    """Return what `ftq doctor` exits with and says; the Hub's line is left out."""
    monkeypatch.setenv("FTQ_REDIS_URL", url)
    monkeypatch.setenv("FTQ_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.delenv("HF_TOKEN", raising=False)
    done = CliRunner().invoke(doctor, standalone_mode=False)
    assert done.exception is None
    lines = [line for line in done.output.splitlines() if " hub " not in line]
    return int(done.return_value), "\n".join(lines)


def refused(url: str) -> BrokerUnreachable:
    """Return how the start of a worker is refused."""
    settings = load_settings({"FTQ_REDIS_URL": url, "FTQ_HOME": "/nonexistent"})
    with pytest.raises(BrokerUnreachable) as caught:
        check_broker(connect(url), settings)
    return caught.value


def replica(start: Start) -> ConfiguredBroker:
    broker = start()
    connect(broker.url).replicaof("127.0.0.1", free_port())  # of a primary that is away
    return broker


def test_a_replica(start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = replica(start).url
    assert refused(url).code == "broker_read_only"
    client = Client(load_settings({"FTQ_REDIS_URL": url, "FTQ_HOME": str(tmp_path / "home")}))
    with pytest.raises(BrokerUnreachable, match="is a replica") as caught:
        client.submit(SPEC)
    assert (caught.value.code, caught.value.exit_code) == ("broker_read_only", Exit.BROKER)
    code, text = said(url, tmp_path, monkeypatch)
    assert "BAD  broker          the broker is a replica of 127.0.0.1" in text
    assert code >= Exit.BROKER


def test_a_demoted_primary_is_asked_again_on_a_new_connection(start: Start) -> None:
    """Behind its name is the new primary by now; an old connection would stay with the old one."""
    broker = start()
    redis = connect(broker.url)
    store = JobStore(redis)
    job = store_jobs.submit(store)
    before = redis.client_id()
    admin = Redis.from_url(broker.url)
    admin.replicaof("127.0.0.1", free_port())
    with pytest.raises(ReadOnlyError):
        store.cancel(job)
    with pytest.raises(ReadOnlyError):
        redis.set("ftq:x", "1")
    assert redis.client_id() > before
    with pytest.raises(BrokerUnreachable, match="replica"), translated():
        store.cancel(job)
    admin.replicaof("NO", "ONE")
    assert store.cancel(job) == "cancelled"


def test_a_broker_without_room_on_its_disk_answers_who_only_reads(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = start("appendonly no", "save 1 1").url
    settings = load_settings({"FTQ_REDIS_URL": url, "FTQ_HOME": str(tmp_path)})
    client = Client(settings)
    job = client.submit(SPEC)
    admin = Redis.from_url(url)
    shutil.rmtree(str(admin.config_get("dir")["dir"]))
    deadline = time.monotonic() + 30
    while admin.info()["rdb_last_bgsave_status"] != "err":
        assert time.monotonic() < deadline, "it wrote somewhere"
        time.sleep(0.1)
    with pytest.raises(BrokerUnreachable, match="cannot write to its own disk") as caught:
        client.submit(SPEC)
    assert caught.value.code == "broker_disk"
    assert "make room there" in caught.value.hint
    assert Client(settings).get(job).state == "queued"
    _, text = said(url, tmp_path, monkeypatch)
    assert "BAD  broker          the broker could not write its last snapshot" in text
    admin.shutdown(nosave=True)  # asked in order, it would refuse: it cannot save


def test_a_full_broker_is_told_by_the_doctor(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker = start("maxmemory 1mb")
    _, text = said(broker.url, tmp_path, monkeypatch)
    assert "BAD  broker          the broker is full: it holds " in text


def test_eviction(start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limited = start("maxmemory 100mb", "maxmemory-policy volatile-lru")
    assert refused(limited.url).code == "broker_evicts"
    _, text = said(limited.url, tmp_path, monkeypatch)
    assert "maxmemory-policy is volatile-lru" in text


def test_eviction_without_a_limit_is_only_told(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    url = start("maxmemory-policy allkeys-lru").url
    with caplog.at_level(logging.WARNING):
        check_broker(connect(url), load_settings({"FTQ_REDIS_URL": url, "FTQ_HOME": "/x"}))
    assert "maxmemory-policy is allkeys-lru" in caplog.text


def test_a_cluster(start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = start("cluster-enabled yes", f"cluster-port {free_port()}").url
    assert refused(url).code == "broker_cluster"
    code, text = said(url, tmp_path, monkeypatch)
    assert "is a Redis Cluster" in text
    assert code >= Exit.BROKER


def test_renamed_commands(
    start: Start,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    url = start('rename-command INFO ""', 'rename-command CONFIG ""', 'rename-command KEYS ""').url
    settings = load_settings({"FTQ_REDIS_URL": url, "FTQ_HOME": str(tmp_path / "home")})
    check_broker(connect(url), settings)
    assert "does not answer INFO" in caplog.text
    assert "does not answer INFO" in said(url, tmp_path, monkeypatch)[1]
    assert JobStore(connect(url)).server().run_id == ""
    assert Client(settings).submit(SPEC)


def test_a_worker_does_not_start_where_no_script_runs(start: Start) -> None:
    assert refused(start('rename-command EVALSHA ""').url).code == "broker_refuses"


@pytest.mark.parametrize("command", ["EVALSHA", "HSET", "ZADD"])
def test_a_command_that_jobs_need_is_gone(start: Start, tmp_path: Path, command: str) -> None:
    url = start(f'rename-command {command} ""').url
    client = Client(load_settings({"FTQ_REDIS_URL": url, "FTQ_HOME": str(tmp_path)}))
    with pytest.raises(BrokerUnreachable) as caught:
        client.submit(SPEC)
    assert caught.value.code == "broker_refuses"


def test_a_user_without_rights(start: Start, tmp_path: Path) -> None:
    broker = start("user weak on >pw ~* &* +@all -@dangerous", "user mute on >pw ~* &* +ping +info")
    place = broker.url.partition("@")[2]
    weak = f"redis://weak:pw@{place}"
    settings = load_settings({"FTQ_REDIS_URL": weak, "FTQ_HOME": str(tmp_path)})
    assert look_at_broker(connect(weak)).troubles[0].code == "info_refused"
    assert Client(settings).submit(SPEC)
    mute = load_settings({"FTQ_REDIS_URL": f"redis://mute:pw@{place}", "FTQ_HOME": str(tmp_path)})
    with pytest.raises(BrokerUnreachable) as caught:
        Client(mute).submit(SPEC)
    assert caught.value.code == "broker_permission"


def test_a_wrong_password_and_database(start: Start) -> None:
    place = start().url.partition("@")[2]
    with pytest.raises(BrokerUnreachable, match="refuses the log-in") as caught:
        Client(load_settings({"FTQ_REDIS_URL": f"redis://:wrong@{place}", "FTQ_HOME": "/x"}))
    assert "password in FTQ_REDIS_URL" in caught.value.hint


def test_a_database_that_is_not_there(start: Start) -> None:
    url = start().url.removesuffix("/0") + "/99"
    with pytest.raises(BrokerUnreachable) as caught:
        Client(load_settings({"FTQ_REDIS_URL": url, "FTQ_HOME": "/x"}))
    assert "DB index is out of range" in caught.value.message


def test_tls(tmp_path: Path, broker: EmbeddedBroker, redis: Redis) -> None:
    make_certificates(tmp_path)
    login, _, place = broker.url.partition("//")[2].partition("@")
    # One each: kombu keeps one pool of connections for one address, whatever their TLS.
    proxies = [TlsProxy(tmp_path, int(place[:-2].rpartition(":")[2])) for _ in range(3)]
    ports = [proxy.port for proxy in proxies]
    ca = f"?ssl_ca_certs={tmp_path}/ca.pem"
    for bad in (f"127.0.0.1:{ports[0]}/0{ca}", f"localhost:{ports[1]}/0"):
        settings = load_settings({"FTQ_REDIS_URL": f"rediss://{login}@{bad}", "FTQ_HOME": "/x"})
        with pytest.raises(BrokerUnreachable, match="certificate") as caught:
            Client(settings)
        assert "ssl_ca_certs" in caught.value.hint
        with pytest.raises(OperationalError, match="certificate"):
            sender(settings.redis_url or "").send_task("x", queue="x", retry=False)
    good = f"rediss://{login}@localhost:{ports[2]}/0{ca}"
    client = Client(load_settings({"FTQ_REDIS_URL": good, "FTQ_HOME": str(tmp_path)}))
    assert client.submit(SPEC)
    assert redis.llen(keys.DISPATCH_QUEUE) == 1  # kombu has sent it, over TLS as well
    for proxy in proxies:
        proxy.close()


@pytest.mark.parametrize("error", [OperationalError("away"), AttributeError("kombu's own bug")])
def test_a_request_that_fails_loses_no_submit(
    broker: EmbeddedBroker,
    redis: Redis,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
) -> None:
    def fail(*_: object) -> bool:
        raise error

    monkeypatch.setattr(celery_messages, "request_dispatch", fail)
    client = Client(load_settings({"FTQ_REDIS_URL": broker.url, "FTQ_HOME": str(tmp_path)}))
    assert client.get(client.submit(SPEC)).state == "queued"


@pytest.mark.parametrize(
    ("text", "damage"),
    [
        ("WRONGTYPE Operation against a key", True),
        ("hash value is not an integer script: ab, on @user_script:228.", True),
        ("Invalid stream ID specified script: ab, on @user_script:55.", True),
        ("user_script:12: attempt to compare nil with number", True),
        ("NOJOB the keys are not those of a job id", True),
        ("Unknown Redis command called from script script: ab, on @user_script:5.", False),
        ("MISCONF Valkey is configured to save RDB script: ab, on @user_script:5.", False),
        ("NOREPLICAS Not enough good replicas script: ab, on @user_script:5.", False),
        ("DB index is out of range", False),
        ("Error compiling script (new function): user_script:1: unexpected symbol", False),
    ],
)
def test_what_is_one_records_own_fault(text: str, damage: bool) -> None:
    assert is_damage(ResponseError(text)) is damage
    expected = ResponseError if damage else BrokerUnreachable
    with pytest.raises(expected), translated():
        raise ResponseError(text)
