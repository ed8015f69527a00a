"""The broker loses single keys, or all of them, under jobs: what is missing is missed in words."""

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.support import store_jobs
from tests.support.agents import make_agent

from ftq_client.local.valkey import EmbeddedBroker
from ftq_shared import keys
from ftq_shared.errors import Refused
from ftq_shared.hosts import HostStore
from ftq_shared.in_memory import MemoryHosts, MemoryStore
from ftq_shared.secrets import FleetKey, seal
from ftq_shared.states import Phase
from ftq_shared.store import JobStore
from ftq_worker.agent.inputs import open_secrets
from ftq_worker.agent.leases import LeaseKeeper
from ftq_worker.agent.run_handle import RunHandle
from ftq_worker.host.messages import LeaseTimes

JOB = "ft-aaaaaaaa"
FLEET = FleetKey.generate()


def sealed() -> str:
    sha = store_jobs.SPEC.sha256()
    return seal(FLEET.public, {"HF_TOKEN": "t"}, job=JOB, spec_sha256=sha, endpoint="http://hub")


def submit(store: JobStore, box: str) -> None:
    store.submit(
        JOB, store_jobs.SPEC, client_key="k", owner="me@here", endpoint="http://hub", sealed=box
    )


def opened(store: JobStore) -> dict[str, str]:
    services: Any = SimpleNamespace(store=store, fleet=FLEET, endpoint="http://hub")
    return open_secrets(services, store.get(JOB))


def end(store: JobStore, hosts: HostStore) -> None:
    store.finish(JOB, store_jobs.run(store, JOB), "failed")


def test_a_box_that_is_gone_is_no_job_without_secrets(store: JobStore) -> None:
    submit(store, sealed())
    assert opened(store) == {"HF_TOKEN": "t"}
    store.redis.delete(keys.secret(JOB))  # as a server that evicts does
    with pytest.raises(Refused, match="no longer with the broker") as caught:
        opened(store)
    assert caught.value.code == "secrets_lost"


@pytest.mark.parametrize("in_memory", [False, True])
def test_a_retry_says_anew_whether_there_are_secrets(store: JobStore, in_memory: bool) -> None:
    hosts = HostStore(store.redis)
    if in_memory:
        store = MemoryStore()
        hosts = MemoryHosts(store.broker)
    hosts.heartbeat("h1", "i1", "", store_jobs.HOST)
    submit(store, sealed())
    end(store, hosts)
    store.retry(JOB, Phase.VALIDATE)
    assert opened(store) == {}
    end(store, hosts)
    store.retry(JOB, Phase.VALIDATE, sealed=sealed())
    assert opened(store) == {"HF_TOKEN": "t"}


def test_a_job_without_secrets_has_none(store: JobStore) -> None:
    submit(store, "")
    assert opened(store) == {}


def test_a_flush_under_a_running_job_is_said_in_the_log(
    store: JobStore, caplog: pytest.LogCaptureFixture
) -> None:
    HostStore(store.redis).heartbeat("h1", "i1", "", store_jobs.HOST)
    token = store_jobs.run(store, store_jobs.submit(store))
    run = RunHandle(JOB, token, LeaseTimes(0.0, 0.0), lambda: None)
    keeper = LeaseKeeper(store)
    keeper.renew({JOB: run})
    assert not run.lost
    store.redis.flushdb()
    with caplog.at_level(logging.WARNING):
        keeper.renew({JOB: run})
        keeper.renew({JOB: run})
    assert run.lost
    assert sum("the broker has forgotten it" in message for message in caplog.messages) == 1
    assert f"jobs/{JOB}" in caplog.text


def test_a_broker_that_came_back_empty_is_told_the_fleets_key(
    store: JobStore, broker: EmbeddedBroker, tmp_path: Path
) -> None:
    agent, _, settings = make_agent(broker.url, tmp_path)
    agent._heartbeat()
    store.redis.flushall()
    agent._heartbeat()
    public = FleetKey.load(settings.fleet_key_file).public
    assert store.redis.hget(keys.FLEET, "public_key") == public
