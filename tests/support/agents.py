"""An agent in the test's own process, that does what the test asks of it."""

from pathlib import Path

from ftq_shared.paths import open_storage
from ftq_shared.secrets import FleetKey
from ftq_shared.settings import Settings, load_settings
from ftq_worker.agent.main import Agent
from ftq_worker.host.config import HostConfig


def make_agent(url: str, folder: Path) -> tuple[Agent, HostConfig, Settings]:
    """Return an agent called h1 on a broker, with a home of its own; none of its threads run."""
    settings = load_settings({"FTQ_REDIS_URL": url, "FTQ_HOME": str(folder)})
    FleetKey.generate().save(settings.fleet_key_file)
    root, storage_id = open_storage(settings.storage)
    config = HostConfig("h1", "i1", "", str(folder), 2, (), str(root), storage_id, cold=True)
    return Agent(config, settings, 1), config, settings
