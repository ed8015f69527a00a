"""What every run on a host uses."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ftq_shared.job_record import JobRecord
from ftq_shared.paths import JobPaths
from ftq_shared.store import JobStore
from ftq_worker.agent.child import Spawn


@dataclass(frozen=True)
class Bench:
    """Made once by the agent; holds no state of a run."""

    store: JobStore
    spawn: Spawn
    host: str
    storage: Path
    endpoint: str
    warm: bool
    cpu_threads: int
    instance: str
    storage_id: str
    open_secrets: Callable[[JobRecord], dict[str, str]]
    fetch_inputs: Callable[[JobRecord, JobPaths], None]
    note_children: Callable[[], None]  # after a child was started or has ended
    end_orphans: Callable[[], None]  # kill what dead phases of this host have left behind
