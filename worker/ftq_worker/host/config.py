"""What the agent of one worker is made with."""

import json
import logging
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar, Literal, Self

from ftq_shared.hosts import Gpu
from ftq_shared.settings import Settings, load_settings

log = logging.getLogger(__name__)

UNCLEAN = 75  # exit code (EX_TEMPFAIL) of agent and supervisor: some work was not handed back


@dataclass(frozen=True)
class HostConfig:
    """One worker's identity and offer; the supervisor hands it to the agent and to Celery."""

    name: str
    instance: str  # new with every start of the supervisor
    replaces: str  # the instance of a predecessor that is known to be dead, or ''
    run_dir: str  # sockets and heartbeats; short enough for a Unix socket's path
    slots: int
    gpus: tuple[Gpu, ...]
    storage: str
    storage_id: str
    cold: bool = False  # no zygote: a fresh interpreter for each phase

    ENV: ClassVar[str] = "FTQ_HOST_CONFIG"  # how it travels: it holds no secret

    def socket(self, process: Literal["agent", "zygote"]) -> Path:
        return Path(self.run_dir) / f"{process}.sock"

    def heartbeat(self, process: Literal["agent", "celery", "celery_task", "zygote"]) -> Path:
        """Return the file that a process touches; `celery_task`: only when it has taken a task."""
        return Path(self.run_dir) / f"{process}.heartbeat"

    @property
    def processes(self) -> Path:
        """The supervisor's own processes, for `process_tree`."""
        return Path(self.run_dir) / "processes.json"

    @property
    def phases(self) -> Path:
        """The children that run phases, for `process_tree`."""
        return Path(self.run_dir) / "phases.json"

    def say_drains_until(self, when: float) -> None:
        """Tell the supervisor until when the agent may hand its work back, on monotonic time."""
        try:
            (Path(self.run_dir) / "draining").write_text(str(when))
        except OSError as error:  # no room in /tmp: then it is the supervisor's usual time
            log.warning("draining: %s", error, extra={"action": "drain_not_announced"})

    def drains_until(self) -> float:
        """Return what the agent has said; 0.0 when it has said nothing."""
        try:
            return float((Path(self.run_dir) / "draining").read_text())
        except (OSError, ValueError):
            return 0.0

    def dumps(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def loads(cls, text: str) -> Self:
        raw = json.loads(text)
        return cls(**raw | {"gpus": tuple(Gpu(**gpu) for gpu in raw["gpus"])})

    @classmethod
    def from_env(cls) -> tuple[Self, Settings]:
        """Return what the supervisor passed to this process, and the settings."""
        return cls.loads(os.environ[cls.ENV]), load_settings()
