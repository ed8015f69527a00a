"""What every run on a host uses; made once by the agent, holds no state of a run."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ftq_shared.secrets import FleetKey
from ftq_shared.store import JobStore
from ftq_worker.agent.cards import Cards
from ftq_worker.agent.child import Spawn
from ftq_worker.host.data_roots import DataRoots
from ftq_worker.host.process_tree import PhaseProcesses

if TYPE_CHECKING:
    from redis import Redis


@dataclass(frozen=True)
class Services:
    """The host's identity, and the ways to its broker, storage and processes."""

    host: str
    instance: str
    storage: Path
    storage_id: str
    endpoint: str  # the Hub
    cpu_threads: int  # that a training or a preparation may use
    memory_bytes: int  # that all processes of the host may use
    warm: bool  # whether `spawn` forks from a zygote
    store: JobStore
    binary: "Redis"  # the same broker; gives bytes
    fleet: FleetKey
    spawn: Spawn
    processes: PhaseProcesses
    cards: Cards
    data_roots: DataRoots = field(default_factory=DataRoots)
    run_dir: Path | None = None  # for what lives no longer than the worker; None: the system's
    cpu_ranks: int = 1  # processes of a training without GPUs; more than one in tests only
