"""A seeded flood of hostile input through every reader: no traceback, nothing that stops others.

`tests/chaos/test_hostile_input.py` runs more of it, under other seeds.
"""

import random
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from redis import Redis
from tests.support import fuzz, store_jobs

from ftq_client import Client
from ftq_client.cli import cli
from ftq_client.local.valkey import EmbeddedBroker
from ftq_hub import HubApp, HubStore, running
from ftq_shared.errors import FtqError
from ftq_shared.hosts import HostStore
from ftq_shared.settings import load_settings
from ftq_shared.store import JobStore
from ftq_worker.agent.leases import Reaper
from ftq_worker.dispatch.dispatcher import dispatch

SEED, COUNT = 20261126, 2000


@pytest.mark.parametrize("one", [fuzz.spec, fuzz.record, fuzz.host, fuzz.event])
def test_no_reader_lets_an_error_out(one: object) -> None:
    faults = fuzz.run(SEED, COUNT, one)  # type: ignore[arg-type]
    assert not faults, f"{len(faults)} faults, the first: {faults[:3]}"


def test_poisoned_jobs_stop_no_reader_of_a_real_broker(
    store: JobStore, redis: Redis, broker: EmbeddedBroker, tmp_path: Path
) -> None:
    chance = random.Random(SEED)
    for number in range(200):
        fuzz.put(redis, chance, number)
    good = store_jobs.submit(store)
    hosts = HostStore(redis)
    hosts.heartbeat("h1", "i1", "", store_jobs.HOST | {"slots": 500})
    dispatch(store, hosts, lambda *_: None)
    assert store.get(good).state == "placed"
    client = Client(load_settings({"FTQ_REDIS_URL": broker.url, "FTQ_HOME": str(tmp_path)}))
    found = [record.to_row()["id"] for record in client.list_jobs(mine=False, active=False)]
    assert good in found
    Reaper(store, "s1", lambda _: None).look(store.leases(), lambda: "run")
    for job in found:
        for event in client.tail(job, follow=False):
            assert event.seq


def test_no_command_line_ends_in_a_traceback(
    broker: EmbeddedBroker, redis: Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not command_lines(SEED, COUNT, broker.url, tmp_path, monkeypatch)


def command_lines(
    seed: int, count: int, url: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> fuzz.Faults:
    """Run command lines in this process, some without a broker; return the faults."""
    monkeypatch.chdir(folder)
    chance, faults = random.Random(seed), []
    with running(HubApp(HubStore(folder / "hub"))) as hub:
        for name, value in {"FTQ_HOME": str(folder), "HF_ENDPOINT": hub, "HF_TOKEN": ""}.items():
            monkeypatch.setenv(name, value)
        for number in range(count):
            words = fuzz.command_line(chance)
            monkeypatch.setenv("FTQ_REDIS_URL", url if number % 10 else "redis://127.0.0.1:1/0")
            done = CliRunner().invoke(cli, words)
            if done.exception and not isinstance(done.exception, SystemExit | FtqError):
                faults.append((ascii(words)[:200], ascii(done.exception)[:200]))
    return faults


def test_the_generators_are_hostile_and_repeat() -> None:
    code = "import random;from tests.support import fuzz;print(fuzz.event_line(random.Random(7)))"
    command = [sys.executable, "-c", code]
    said = {subprocess.run(command, capture_output=True, check=True).stdout for _ in range(2)}
    assert len(said) == 1
