"""What the agent of one worker is made with."""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar, Self

from ftq_shared.hosts import Gpu
from ftq_shared.settings import Settings, load_settings


@dataclass(frozen=True)
class HostConfig:
    """One worker's identity and offer; the guard hands it to the agent and to Celery."""

    name: str
    instance: str  # new with every start of the guard
    replaces: str  # the instance of a predecessor that is known to be dead, or ''
    run_dir: str  # sockets; short, because a Unix socket's path is limited to 107 bytes
    slots: int
    gpus: tuple[Gpu, ...]
    storage: str
    storage_id: str
    cold: bool = False  # no zygote: a fresh interpreter for each phase

    ENV: ClassVar[str] = "FTQ_HOST_CONFIG"  # how it travels: it holds no secret

    @property
    def agent_socket(self) -> Path:
        """Where the agent listens."""
        return Path(self.run_dir) / "agent.sock"

    @property
    def zygote_socket(self) -> Path:
        """Where the zygote listens."""
        return Path(self.run_dir) / "zygote.sock"

    @property
    def agent_pulse(self) -> Path:
        """The agent's sign of life."""
        return Path(self.run_dir) / "agent.pulse"

    @property
    def celery_pulse(self) -> Path:
        """The Celery worker's sign of life."""
        return Path(self.run_dir) / "celery.pulse"

    @property
    def zygote_pulse(self) -> Path:
        """The zygote's sign of life."""
        return Path(self.run_dir) / "zygote.pulse"

    @property
    def processes(self) -> Path:
        """The guard's own processes, for `family`."""
        return Path(self.run_dir) / "processes.json"

    @property
    def phases(self) -> Path:
        """The children that run phases, for `family`."""
        return Path(self.run_dir) / "phases.json"

    def dumps(self) -> str:
        """Return it as text."""
        return json.dumps(asdict(self))

    @classmethod
    def loads(cls, text: str) -> Self:
        """Read what `dumps` wrote."""
        raw = json.loads(text)
        return cls(**raw | {"gpus": tuple(Gpu(**gpu) for gpu in raw["gpus"])})

    @classmethod
    def from_env(cls) -> tuple[Self, Settings]:
        """Return what the guard passed to this process, and the settings."""
        return cls.loads(os.environ[cls.ENV]), load_settings()
