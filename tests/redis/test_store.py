"""The job store on a real server: what every store does, and what only a server can."""

import json
import time
from typing import Any

import pytest
from redis.exceptions import ResponseError
from tests.support.store_contract import Events, StoreContract, Wait
from tests.support.store_jobs import HOST, place, run, submit

from ftq_shared import keys
from ftq_shared.events import Event, EventType, make_body
from ftq_shared.hosts import HostStore
from ftq_shared.states import Phase
from ftq_shared.store import JobStore, Placement


@pytest.fixture
def hosts(store: JobStore) -> HostStore:
    hosts = HostStore(store.redis)
    hosts.heartbeat("h1", "i1", "", HOST)
    return hosts


class TestStoreOnAServer(StoreContract):
    @pytest.fixture
    def events(self, store: JobStore) -> Events:
        def stored(job: str) -> list[Event]:
            entries: Any = store.redis.xrange(keys.events(job))
            return [Event.from_json(fields["e"]) for _, fields in entries]

        return stored

    @pytest.fixture
    def wait(self) -> Wait:
        return time.sleep


def test_an_ended_job_expires_until_it_is_retried(store: JobStore, hosts: HostStore) -> None:
    job = submit(store)
    store.finish(job, run(store, job), "failed")
    assert store.redis.ttl(keys.job(job)) > 0
    store.retry(job, Phase.VALIDATE)
    assert store.redis.ttl(keys.job(job)) == -1


def test_a_lock_whose_owner_vanished_is_nobodys(store: JobStore, hosts: HostStore) -> None:
    first, second = submit(store), submit(store, "k2", "ft-bbbbbbbb")
    mine, its = run(store, first), run(store, second)
    assert store.lock(first, mine, "hub/me/x") == ("ok", "")
    store.requeue(first, mine, "interrupted", counts_attempt=False)
    assert not store.redis.exists(keys.lock("hub/me/x"))
    store.redis.set(keys.lock("hub/me/y"), f"{first} {mine}")
    assert store.lock(second, its, "hub/me/y") == ("ok", "")


def test_a_drain_of_nobody_leaves_no_record(store: JobStore, hosts: HostStore) -> None:
    assert hosts.drain("nobody") == ""
    assert not store.redis.exists(keys.host("nobody"))


def test_a_claim_that_the_broker_forgot_is_made_again(store: JobStore, hosts: HostStore) -> None:
    job = submit(store)
    token = run(store, job)
    store.redis.hset(keys.job(job), mapping={"state": "placed", "nonce": ""})  # rolled back
    assert store.renew({job: token}) == {job: "unclaimed"}
    assert store.claim(job, token, nonce="n", instance="i1", storage_id="s1") == "ok"
    assert store.renew({job: token}) == {job: "ok"}


def test_an_older_worker_neither_gets_nor_claims_a_newer_record(
    store: JobStore, hosts: HostStore
) -> None:
    job = submit(store)
    token = place(store, job)
    store.redis.hset(keys.job(job), "v", "99")
    assert store.claim(job, token, nonce="n", instance="i1", storage_id="s1") == "stale"
    assert store.requeue(job, token, "given back", counts_attempt=False) == "queued"
    plan = Placement(job, store.get(job).version, "h1", "i1", "cpu")
    assert store.place(plan)[1] == "the host is of an older version"


def test_a_full_broker_keeps_leases_and_lets_jobs_end(store: JobStore, hosts: HostStore) -> None:
    job = submit(store)
    token = run(store, job)
    store.redis.config_set("maxmemory", 1)
    try:
        with pytest.raises(ResponseError, match="maxmemory"):
            submit(store, "k2", "ft-bbbbbbbb")
        body = make_body(EventType.LOG, {"line": "x"}, attempt=1, host="", phase=None)
        with pytest.raises(ResponseError, match="maxmemory"):
            store.append(job, token, 1, [body], milestones=[False])
        assert store.renew({job: token}) == {job: "ok"}
        assert not hosts.heartbeat("h1", "i1", "", HOST)
        assert store.finish(job, token, "failed") == "ok"
    finally:
        store.redis.config_set("maxmemory", 0)
    assert store.redis.keys("ftq:*ft-bbbbbbbb") == []  # refused before the first write


def test_a_stream_that_is_none_makes_room(store: JobStore, hosts: HostStore) -> None:
    job = submit(store)
    token = run(store, job)
    for key in (keys.events(job), keys.kept(job)):
        store.redis.delete(key)
        store.redis.set(key, "not a stream")
    assert store.finish(job, token, "succeeded") == "ok"
    stored: Any = store.redis.xrange(keys.events(job))
    (entry,) = stored
    assert json.loads(entry[1]["e"])["seq"] == store.get(job).seq
