"""The index of the places: what a placement and an observer look at instead of all leases."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from redis.exceptions import ResponseError
from tests.support.agents import make_agent
from tests.support.store_jobs import HOST, place, run, submit, try_to_place

from ftq_client.local.valkey import EmbeddedBroker
from ftq_shared import keys
from ftq_shared.hosts import HostStore
from ftq_shared.store import JobStore, Placement

CARD = "GPU-a"


@pytest.fixture
def hosts(store: JobStore) -> HostStore:
    hosts = HostStore(store.redis)
    for name, instance in (("h1", "i1"), ("h2", "i2")):
        hosts.heartbeat(name, instance, "", HOST)
    return hosts


def submitted(store: JobStore, letter: str) -> str:
    return submit(store, letter, f"ft-{letter * 8}")


def on_card(store: JobStore, job: str, host: str = "h1", instance: str = "i1") -> tuple[str, str]:
    plan = Placement(job, store.get(job).version, host, instance, "gpu", (CARD,))
    return store.place(plan)


def of(store: JobStore, *names: str) -> list[str]:
    return sorted(lease.id for lease in store.leases_of(names))


def test_leases_are_read_by_host(store: JobStore, hosts: HostStore) -> None:
    first, second = submitted(store, "a"), submitted(store, "b")
    run(store, first)
    assert on_card(store, second, "h2", "i2")[0]
    assert (of(store, "h1"), of(store, "h2")) == ([first], [second])
    assert of(store, "h1", "h2", "nobody") == [first, second]
    assert store.leases_of(["h1", "h2"]) == store.leases()
    assert store.hosts_with_leases() == {"h1", "h2"}


def test_a_card_has_one_owner_in_the_fleet(store: JobStore, hosts: HostStore) -> None:
    first, second = submitted(store, "a"), submitted(store, "b")
    token, _ = on_card(store, first)
    assert on_card(store, second, "h2", "i2") == ("", "a GPU was taken")
    store.requeue(first, token, "given back", counts_attempt=False)
    assert on_card(store, second, "h2", "i2")[0]


def test_a_card_of_a_record_that_is_gone_is_free(store: JobStore, hosts: HostStore) -> None:
    first, second = submitted(store, "a"), submitted(store, "b")
    on_card(store, first)
    store.redis.delete(keys.job(first))
    assert on_card(store, second)[0]


def test_leases_of_a_worker_without_the_index_are_entered(
    store: JobStore, hosts: HostStore
) -> None:
    """As ftq 0.1.0 placed and released: it knows only the set of leases."""
    first, second, third = (submitted(store, letter) for letter in "abc")
    place(store, first)
    on_card(store, second)
    store.redis.delete(keys.PLACES, keys.CARDS, keys.places("h1"))
    assert on_card(store, third) == ("", "a GPU was taken")
    assert of(store, "h1") == [first, second]


def test_a_right_number_of_wrong_places_is_found_by_the_sweep(
    store: JobStore, hosts: HostStore
) -> None:
    first, gone = submitted(store, "a"), submitted(store, "b")
    place(store, first)
    store.redis.hdel(keys.PLACES, first)
    store.redis.hset(keys.PLACES, gone, "h1")
    store.redis.srem(keys.places("h1"), first)
    store.redis.sadd(keys.places("h1"), gone)
    assert of(store, "h1") == []
    store.renew_places()
    assert of(store, "h1") == [first]
    assert store.redis.smembers(keys.places("h1")) == {first}
    assert store.redis.hgetall(keys.PLACES) == {first: "h1"}


def test_beside_workers_without_the_index_it_is_made_anew_at_each_placement(
    store: JobStore, hosts: HostStore
) -> None:
    """One of them has ended a phase and placed another meanwhile: the number is right."""
    first, second, third = (submitted(store, letter) for letter in "abc")
    place(store, first)
    on_card(store, second)
    store.redis.hdel(keys.CARDS, CARD)
    store.redis.hset(keys.PLACES, second, "h2")
    plan = Placement(third, store.get(third).version, "h2", "i2", "gpu", (CARD,))
    assert store.place(plan, mixed=True) == ("", "a GPU was taken")
    assert of(store, "h1") == [first, second]


def test_a_damaged_record_keeps_its_lease(store: JobStore, hosts: HostStore) -> None:
    job = submitted(store, "a")
    token = run(store, job)
    store.redis.hset(keys.job(job), "trained_ms", "soon")
    store.redis.hset(keys.job(job), "phase", "train")
    with pytest.raises(ResponseError):
        store.requeue(job, token, "interrupted", counts_attempt=False)
    assert of(store, "h1") == [job], "whoever watches it sees that it is not renewed"
    store.redis.hdel(keys.job(job), "trained_ms", "ordinal")
    assert store.requeue(job, token, "interrupted", counts_attempt=False) == "queued"


def test_slots_are_counted_on_the_host_alone(store: JobStore, hosts: HostStore) -> None:
    for letter in "ab":
        place(store, submitted(store, letter))
    store.redis.sadd(keys.places("h1"), submitted(store, "c"))  # one that is not there
    assert try_to_place(store, submitted(store, "d")) == ("", "no free slot")
    store.finish("ft-aaaaaaaa", store.get("ft-aaaaaaaa").token, "failed")
    assert place(store, "ft-dddddddd")


def test_a_damaged_record_is_left_out(store: JobStore, hosts: HostStore) -> None:
    good, bad = submitted(store, "a"), submitted(store, "b")
    place(store, good)
    place(store, bad)
    store.redis.hset(keys.job(bad), mapping={"gpus": json.dumps([[1], 2]), "beat": "soon"})
    store.redis.delete(keys.PLACES)
    assert of(store, "h1") == [good]


def test_names_of_hosts(store: JobStore, hosts: HostStore) -> None:
    known, online = hosts.names()
    assert known == online == {"h1", "h2"}
    store.redis.zadd(keys.QUEUES, {keys.host_queue("h2", "i2"): 1, "ftq.host.x": 1e15})
    assert hosts.names() == ({"h1", "h2"}, {"h1"})  # the second was silent for long


def test_one_makes_dispatch_passes(store: JobStore, redis) -> None:
    other = JobStore(redis)
    assert store.begin_pass()
    assert not other.begin_pass()
    assert store.keep_pass()
    redis.delete(keys.DISPATCHER)  # its time is over
    assert other.begin_pass()
    assert not store.keep_pass()
    store.end_pass()  # not the other's
    assert not store.begin_pass()
    other.end_pass()
    assert store.begin_pass()


def test_leases_of_a_host_that_is_gone_are_watched(
    store: JobStore, hosts: HostStore, broker: EmbeddedBroker, tmp_path: Path
) -> None:
    job = submitted(store, "a")
    run(store, job)
    hosts.leave("h1", "i1")
    store.redis.delete(keys.QUEUES)  # nobody has heard of it for a day
    agent, config, _ = make_agent(broker.url, tmp_path)
    agent.config = replace(config, name="h3")
    agent._choose_watched()
    assert {"h1", "h3"} <= agent._watched
