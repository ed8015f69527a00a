"""How long the broker keeps what: lifetimes.py says it, and the scripts do it."""

import pytest
from tests.support.store_jobs import HOST

from ftq_shared import keys, lifetimes
from ftq_shared.hosts import HostStore
from ftq_shared.spec import JobSpec
from ftq_shared.states import Phase
from ftq_shared.store import JobStore

SPEC = JobSpec(model="org/model", dataset="org/data")


def test_what_is_kept_and_for_how_long_is_said_in_one_place(
    store: JobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = {"JOB_TTL_S": 1_000, "EVENTS_TTL_S": 500, "SECRET_TTL_S": 250}
    for name, value in times.items():
        monkeypatch.setattr(lifetimes, name, value)
    store = JobStore(store.redis)  # makes its scripts anew
    job = store.submit(
        "ft-aaaaaaaa", SPEC, client_key="k", owner="me@here", endpoint="", sealed="box"
    )
    assert store.redis.ttl(keys.secret(job)) == 250
    store.cancel(job)
    kept = [store.redis.ttl(key(job)) for key in (keys.job, keys.kept, keys.events)]
    assert kept == [1_000, 1_000, 500]
    store.retry(job, Phase.VALIDATE, sealed="box")
    assert store.redis.ttl(keys.secret(job)) == 250


def test_a_message_that_comes_after_its_worker_has_left_goes_after_a_day(store: JobStore) -> None:
    """Celery ends after the agent, and gives back what it has not worked on."""
    hosts, queue = HostStore(store.redis), keys.host_queue("h1", "i1")
    hosts.heartbeat("h1", "i1", "", HOST)
    store.redis.sadd(f"_kombu.binding.{queue}", queue)
    hosts.leave("h1", "i1")
    assert not store.redis.exists(f"_kombu.binding.{queue}")
    store.redis.lpush(queue, "a message")
    hosts.forget_old_queues()
    assert store.redis.exists(queue), "it may be one of a worker that lives"
    a_day_ms = 1_000 * (lifetimes.HOST_TTL_S + 1)
    assert store.redis.zadd(keys.QUEUES, {queue: -a_day_ms}, xx=True, incr=True)
    hosts.forget_old_queues()
    assert not store.redis.exists(queue)
    assert not store.redis.exists(keys.QUEUES)


def test_the_list_of_all_jobs_forgets_those_whose_record_has_expired(store: JobStore) -> None:
    for job in ("ft-aaaaaaaa", "ft-bbbbbbbb"):
        store.submit(job, SPEC, client_key=job, owner="me", endpoint="")
    store.redis.delete(keys.job("ft-aaaaaaaa"))
    store.forget_expired()
    assert store.redis.zcard(keys.JOBS) == 2, "it is young: a broker may have lost its memory"
    a_month_ms = 1_000 * (lifetimes.JOB_TTL_S + 1)
    for job in ("ft-aaaaaaaa", "ft-bbbbbbbb"):
        store.redis.zincrby(keys.JOBS, -a_month_ms, job)
    store.forget_expired()
    assert store.redis.zrange(keys.JOBS, 0, -1) == ["ft-bbbbbbbb"]
