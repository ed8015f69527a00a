"""A job that waits for another's lock waits in the queue, not in a slot."""

from typing import Any

from tests.support.clock import Clock
from tests.support.store_jobs import run, submit

from ftq_shared.in_memory import MemoryBroker, MemoryHosts, MemoryStore
from ftq_shared.states import JobState
from ftq_worker.dispatch.dispatcher import dispatch

HOST: dict[str, Any] = {"slots": 2, "gpus": [], "storage_id": "s1", "draining": "0"}


def test_those_behind_it_get_the_slot() -> None:
    store = MemoryStore(MemoryBroker(Clock()))
    hosts = MemoryHosts(store.broker)
    hosts.heartbeat("h1", "i1", "", HOST)
    jobs = [submit(store, name, f"ft-{name * 8}") for name in "abc"]
    first, second, *_ = jobs
    store.lock(first, run(store, first), "hub/me/x")
    store.requeue(second, run(store, second), "wait", counts_attempt=False, awaits="hub/me/x")
    assert dispatch(store, hosts, lambda *_: None) == 1
    assert [store.get(job).state for job in jobs] == [
        JobState.RUNNING,
        JobState.QUEUED,
        JobState.PLACED,
    ]
    assert store.get(second).summary["waiting"] == f"{first} publishes to me/x"
    store.finish(first, store.get(first).token, "succeeded")
    assert dispatch(store, hosts, lambda *_: None) == 1
    assert store.lock(second, store.get(second).token, "hub/me/x") == ("ok", "")
