"""The store in memory does what every store does, and fails when a test tells it to."""

import inspect
from collections.abc import Callable
from typing import Any

import pytest
from redis.exceptions import ConnectionError
from tests.support.clock import Clock
from tests.support.store_contract import Events, StoreContract, Wait
from tests.support.store_jobs import HOST, log, place, run, submit

from ftq_shared.hosts import HostStore
from ftq_shared.in_memory import MemoryBroker, MemoryHosts, MemoryStore
from ftq_shared.lifetimes import HOST_LOST_S
from ftq_shared.states import JobState
from ftq_shared.store import JobStore, Placement, Server

AWAY = ConnectionError("away")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def broker(clock: Clock) -> MemoryBroker:
    return MemoryBroker(clock)


@pytest.fixture
def store(broker: MemoryBroker) -> MemoryStore:
    return MemoryStore(broker)


@pytest.fixture
def hosts(broker: MemoryBroker) -> MemoryHosts:
    hosts = MemoryHosts(broker)
    hosts.heartbeat("h1", "i1", "", HOST)
    return hosts


class TestStoreInMemory(StoreContract):
    @pytest.fixture
    def events(self, broker: MemoryBroker) -> Events:
        return broker.events

    @pytest.fixture
    def wait(self, clock: Clock) -> Wait:
        def pass_time(seconds: float) -> None:
            clock.now += seconds + 0.001  # a millisecond that rounding may cost

        return pass_time


@pytest.mark.parametrize(("twin", "real"), [(MemoryStore, JobStore), (MemoryHosts, HostStore)])
def test_the_twin_answers_every_call_itself(twin: type, real: type) -> None:
    calls = {name: call for name, call in vars(real).items() if not name.startswith("_")}
    assert calls.keys() <= vars(twin).keys(), "this call would go to a server"
    for name, call in calls.items():
        own = vars(twin)[name]
        assert inspect.signature(own) == inspect.signature(call), name
        assert hasattr(own, "__wrapped__"), f"{name} is not `atomic`: it meets no fault"


def test_a_broker_that_is_away_answers_nobody(
    broker: MemoryBroker, store: MemoryStore, hosts: MemoryHosts
) -> None:
    job = submit(store)
    broker.down = AWAY
    calls: list[Callable[[], Any]] = [lambda: store.get(job), lambda: store.renew({}), hosts.all]
    for call in calls:
        with pytest.raises(ConnectionError, match="away"):
            call()
    broker.down = None
    assert store.get(job).state is JobState.QUEUED


def test_a_call_may_fail_before_or_after_it_took_effect(
    broker: MemoryBroker, store: MemoryStore, hosts: MemoryHosts
) -> None:
    job = submit(store)
    token = place(store, job)
    broker.fail_next(AWAY, "claim")
    broker.fail_next(AWAY, "claim", done=True)
    for state in (JobState.PLACED, JobState.RUNNING):
        with pytest.raises(ConnectionError):
            store.claim(job, token, nonce="n", instance="i1", storage_id="s1")
        assert store.get(job).state is state, "only claims fail"
    assert store.claim(job, token, nonce="n", instance="i1", storage_id="s1") == "ok"


def test_what_happened_after_a_snapshot_can_be_lost(
    broker: MemoryBroker, store: MemoryStore, hosts: MemoryHosts
) -> None:
    job = submit(store)
    token = place(store, job)
    before = broker.snapshot()
    for _ in range(2):
        assert store.claim(job, token, nonce="n", instance="i1", storage_id="s1") == "ok"
        broker.roll_back(before)
        assert store.get(job).state is JobState.PLACED
    assert store.renew({job: token}) == {job: "unclaimed"}
    assert len(broker.events(job)) == 2


def test_time_is_the_brokers(
    broker: MemoryBroker, store: MemoryStore, hosts: MemoryHosts, clock: Clock
) -> None:
    job = submit(store)
    assert store.get(job).created_ms == clock.now * 1000
    assert broker.events(job)[0].time == "2027-01-15T08:00:00.000Z"
    clock.now += HOST_LOST_S + 1
    assert [host.online for host in hosts.all()] == [False]
    plan = Placement(job, store.get(job).version, "h1", "i1", "cpu")
    assert store.place(plan) == ("", "the host takes no work")


def test_a_restart_is_seen_in_the_uptime(
    broker: MemoryBroker, store: MemoryStore, clock: Clock
) -> None:
    assert store.server() == Server("memory", float("inf"))
    broker.restart("second")
    clock.now += 2.5
    assert store.server() == Server("second", 2.5)


def test_milestones_are_kept_apart(
    broker: MemoryBroker, store: MemoryStore, hosts: MemoryHosts
) -> None:
    job = submit(store)
    token = run(store, job)
    assert store.append(job, token, 1, [log("1"), log("2")], milestones=[False, True]) == (2, "ok")
    assert [event.seq for event in broker.events(job)] == [1, 2, 3, 4, 5]
    assert [event.seq for event in broker.events(job, milestones=True)] == [1, 2, 3, 5]
