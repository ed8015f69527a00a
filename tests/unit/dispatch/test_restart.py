"""After a broker's start nothing goes to a host before it is known what still runs."""

from typing import Any

import pytest
from tests.support.clock import Clock

from ftq_shared.in_memory import MemoryBroker, MemoryHosts, MemoryStore
from ftq_shared.lifetimes import HOST_LOST_S
from ftq_shared.spec import JobSpec
from ftq_shared.states import JobState
from ftq_worker.dispatch.dispatcher import dispatch

SPEC = JobSpec(model="org/model", dataset="org/data")
HOST: dict[str, Any] = {"slots": 2, "gpus": [], "storage_id": "s1", "draining": "0"}


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(clock: Clock) -> MemoryStore:
    """A store on a broker that has just started."""
    store = MemoryStore(MemoryBroker(clock))
    store.broker.restart("new")
    return store


@pytest.fixture
def hosts(store: MemoryStore) -> MemoryHosts:
    return MemoryHosts(store.broker)


@pytest.fixture
def job(store: MemoryStore) -> str:
    return store.submit("ft-aaaaaaaa", SPEC, client_key="k", owner="me@here", endpoint="")


def placed(store: MemoryStore, hosts: MemoryHosts, job: str) -> bool:
    dispatch(store, hosts, lambda *_: None)
    return store.get(job).state is JobState.PLACED


def beat(hosts: MemoryHosts, broker: str, running: object = None) -> None:
    hosts.heartbeat("h1", "i1", "", HOST | {"broker": broker, "running": running or {}})


def test_a_host_that_has_not_spoken_since_is_waited_for(
    store: MemoryStore, hosts: MemoryHosts, job: str
) -> None:
    beat(hosts, "old")
    assert not placed(store, hosts, job)
    beat(hosts, "new")
    assert placed(store, hosts, job)


def test_a_lost_host_is_not_waited_for_long(
    store: MemoryStore, hosts: MemoryHosts, job: str, clock: Clock
) -> None:
    beat(hosts, "old")
    hosts.heartbeat("h2", "i2", "", HOST | {"broker": "new"})
    clock.now += HOST_LOST_S
    hosts.heartbeat("h2", "i2", "", HOST | {"broker": "new"})
    assert not placed(store, hosts, job)
    clock.now += 1
    assert placed(store, hosts, job)


def test_a_job_that_runs_under_a_forgotten_token_is_left_alone(
    store: MemoryStore, hosts: MemoryHosts, job: str
) -> None:
    beat(hosts, "new", {job: "7:forgotten"})
    assert not placed(store, hosts, job)
    beat(hosts, "new")
    assert placed(store, hosts, job)


def test_a_run_that_the_record_knows_to_have_ended_holds_nothing_up(
    store: MemoryStore, hosts: MemoryHosts, job: str
) -> None:
    beat(hosts, "new")
    assert placed(store, hosts, job)
    token = store.get(job).token
    store.requeue(job, token, "interrupted", counts_attempt=False)
    beat(hosts, "new", {job: token})  # its host has not said yet that it is over
    assert placed(store, hosts, job)


def test_nor_does_an_older_one(store: MemoryStore, hosts: MemoryHosts, job: str) -> None:
    beat(hosts, "new")
    tokens = []
    for _ in range(3):
        assert placed(store, hosts, job)
        tokens.append(store.get(job).token)
        store.requeue(job, tokens[-1], "interrupted", counts_attempt=False)
        beat(hosts, "new", {job: tokens[0]})  # heartbeats are slower than three short runs


def test_a_host_of_the_previous_version_says_it_in_another_way(
    store: MemoryStore, hosts: MemoryHosts, job: str
) -> None:
    hosts.heartbeat("h1", "i1", "", HOST | {"running": [job]})
    assert placed(store, hosts, job)
