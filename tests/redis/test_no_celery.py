"""A worker whose Celery process keeps dying looks well to nobody."""

from pathlib import Path

from tests.support import store_jobs
from tests.support.agents import make_agent
from tests.support.clock import Clock

from ftq_client import Client
from ftq_client.fleet import worker_rows
from ftq_client.local.valkey import EmbeddedBroker
from ftq_shared.events import EventType
from ftq_shared.store import JobStore
from ftq_worker.agent.main import CELERY_LOST_S
from ftq_worker.host.heartbeat import LastBeat, touch


def test_silence_counts_from_the_last_move(tmp_path: Path) -> None:
    clock, file = Clock(), tmp_path / "beat"
    beat = LastBeat(file, clock)
    clock.now += 5
    assert beat.silent_s() == 5  # of one that has not come yet
    touch(file)
    assert beat.silent_s() == 0
    clock.now += 7
    assert beat.silent_s() == 7
    file.unlink()  # the process is started again
    clock.now += 1
    assert beat.silent_s() == 8


def test_it_is_told_by_ftq_workers_and_by_the_waiting_job(
    store: JobStore, broker: EmbeddedBroker, tmp_path: Path
) -> None:
    agent, config, settings = make_agent(broker.url, tmp_path)
    clock, client = Clock(), Client(settings)
    agent._celery = LastBeat(config.heartbeat("celery_task"), clock)

    def state() -> str:
        agent._heartbeat()
        return worker_rows(client)[0]["state"]

    job = store_jobs.submit(store)
    assert state() == "online"
    agent._repair()
    assert "waiting" not in store.get(job).to_row()
    clock.now += CELERY_LOST_S
    assert state() == "no celery"
    agent._repair()
    agent._repair()
    said = [event for event in client.tail(job, follow=False) if event.type is EventType.WAITING]
    assert [event.data["reason"] for event in said] == [
        "no worker's Celery process runs, so nothing is placed"
    ]
    touch(config.heartbeat("celery_task"))
    assert state() == "online"
