"""An agent in the test's own process, that does what the test asks of it, or a part of one."""

from collections.abc import Sequence
from pathlib import Path

from redis import Redis

from ftq_shared.hosts import Gpu
from ftq_shared.in_memory import MemoryHosts, MemoryStore
from ftq_shared.paths import open_storage
from ftq_shared.secrets import FleetKey
from ftq_shared.settings import Settings, load_settings
from ftq_worker.agent.cards import Cards
from ftq_worker.agent.child import Spawn
from ftq_worker.agent.main import Agent
from ftq_worker.agent.services import Services
from ftq_worker.host.config import HostConfig
from ftq_worker.host.process_tree import PhaseProcesses
from tests.support.store_jobs import HOST, run, submit


def make_agent(url: str, folder: Path) -> tuple[Agent, HostConfig, Settings]:
    """Return an agent called h1 on a broker, with a home of its own; none of its threads run."""
    settings = load_settings({"FTQ_REDIS_URL": url, "FTQ_HOME": str(folder)})
    FleetKey.generate().save(settings.fleet_key_file)
    root, storage_id = open_storage(settings.storage)
    config = HostConfig("h1", "i1", "", str(folder), 2, (), str(root), storage_id, cold=True)
    return Agent(config, settings, 1), config, settings


def store_with_run() -> MemoryStore:
    """Return a store where one job runs on h1."""
    store = MemoryStore()
    MemoryHosts(store.broker).heartbeat("h1", "i1", "", HOST)
    run(store, submit(store))
    return store


def services(
    store: MemoryStore,
    storage: Path,
    spawn: Spawn,
    processes: PhaseProcesses,
    *,
    memory_bytes: int = 8 * 10**9,
    gpus: Sequence[Gpu] = (),
) -> Services:
    """Return what h1 gives its runs; the children are the test's."""
    return Services(
        host="h1",
        instance="i1",
        storage=storage,
        storage_id="s1",
        endpoint="",
        cpu_threads=1,
        memory_bytes=memory_bytes,
        warm=True,
        store=store,
        binary=Redis(),  # never asked: the job has no inputs
        fleet=FleetKey.generate(),
        spawn=spawn,
        processes=processes,
        cards=Cards(gpus, lambda: None, lambda uuid: ""),
    )
