"""One worker makes dispatch passes; what is asked for meanwhile is not lost."""

import pytest
from tests.support.store_jobs import HOST, submit

from ftq_shared.in_memory import MemoryHosts, MemoryStore
from ftq_worker.dispatch import dispatcher
from ftq_worker.dispatch.dispatcher import dispatch


@pytest.fixture
def store() -> MemoryStore:
    store = MemoryStore()
    MemoryHosts(store.broker).heartbeat("h1", "i1", "", HOST)
    return store


def test_who_comes_meanwhile_leaves_its_request(store: MemoryStore) -> None:
    hosts = MemoryHosts(store.broker)
    submit(store)
    assert store.first_to_request()
    assert store.begin_pass()
    assert dispatch(store, hosts, lambda *_: None) == 0
    assert store.is_requested()
    store.end_pass()
    assert dispatch(store, hosts, lambda *_: None) == 1
    assert not store.is_requested()
    assert store.begin_pass(), "it has let go"


def test_what_is_asked_for_in_a_pass_gets_another(store: MemoryStore) -> None:
    hosts = MemoryHosts(store.broker)
    submit(store)

    def tell(queue: str, job: str, token: str) -> None:
        if job == "ft-aaaaaaaa":
            submit(store, "k2", "ft-bbbbbbbb")
            store.first_to_request()

    assert dispatch(store, hosts, tell) == 2


def test_after_a_while_a_request_is_left_to_the_next_message(
    store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatcher, "LONGEST_S", 0.2)
    submit(store)
    passes = []

    class Hosts(MemoryHosts):
        def all(self):
            passes.append(1)
            store.first_to_request()  # as in a fleet where something always changes
            return super().all()

    dispatch(store, Hosts(store.broker), lambda *_: None)
    assert passes
    assert store.is_requested()
    assert store.begin_pass()
