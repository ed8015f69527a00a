"""What a phase gets to work with, and how it is asked to stop.

A phase is a module in `phases/` with one function `run(ctx: PhaseContext) -> None`. It reads what
earlier phases left (`reports`), emits events, writes its own results atomically, and raises an
FtqError to end the job or Interrupted when it stopped because it was asked to.
"""

import math
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from ftq_shared.errors import FtqError, JobCancelled
from ftq_shared.events import EventType
from ftq_shared.job_record import Replay
from ftq_shared.paths import JobPaths, write_json
from ftq_shared.spec import JobSpec
from ftq_shared.states import Phase
from ftq_worker.host.data_roots import DataRoots
from ftq_worker.host.messages import StopReason
from ftq_worker.job.reports import read_resolved


class Interrupted(FtqError):
    """Raised at a safe point after a stop was asked for; the phase can be resumed."""

    default_code = "interrupted"


class HostFault(FtqError):
    """Raised when this host cannot do what the phase was given: it is no fault of the job's."""

    default_code = "host_fault"


class Busy(FtqError):
    """Raised when another job of the fleet has what this one needs: it waits for it in the queue.

    Nothing that was done so far may be lost by it: the phase runs again from its start.
    """

    default_code = "busy"

    def __init__(self, message: str, lock: str) -> None:
        super().__init__(message)
        self.lock = lock  # the name that `Owner.try_lock` was given


class Emit(Protocol):
    """Sends one event. Cheap (one line to a pipe); safe to call from any thread."""

    def __call__(self, type_: EventType, /, **data: Any) -> None:
        """Send it; raises ValueError for fields that ftq_shared.events does not document."""


class Control:
    """How the agent talks to a running phase: stop it, pause it, let it go on."""

    def __init__(self) -> None:
        self._stop = threading.Event()
        self._go = threading.Event()
        self._go.set()
        self.stop_reason: StopReason | None = None
        # Monotonic; from then on another host may take the job, until the agent names a later time.
        self.pause_at = math.inf

    def stop(self, reason: StopReason) -> None:
        """Ask the phase to stop at its next safe point; of several reasons a cancel counts."""
        if self.stop_reason is None or reason is StopReason.CANCEL:
            self.stop_reason = reason
        self._stop.set()
        self._go.set()

    def pause(self) -> None:
        """Hold the phase at its next safe point; one that is stopping must save, not wait."""
        if not self._stop.is_set():
            self._go.clear()

    def resume(self) -> None:
        """Let a paused phase go on."""
        self._go.set()

    def check(self) -> None:
        """Be a safe point: wait while paused, raise when asked to stop.

        Raises JobCancelled after a cancel, Interrupted after any other stop.
        """
        self._wait_to_go()
        if not self._stop.is_set():
            return
        if self.stop_reason is StopReason.CANCEL:
            raise JobCancelled("the job was cancelled")
        raise Interrupted(f"stopped: {self.stop_reason}", code=str(self.stop_reason))

    def stop_requested(self) -> bool:
        """Wait while paused; return whether the phase was asked to stop.

        For code that must first save its work, such as a trainer at a step boundary.
        """
        self._wait_to_go()
        return self._stop.is_set()

    def _wait_to_go(self) -> None:
        """Wait while paused.

        The time is looked at here as well: a host that has just woken may run us before anything
        else of it, also before what would end us.
        """
        if time.monotonic() >= self.pause_at:
            self.pause()
        self._go.wait()


class Owner(Protocol):
    """What a phase may ask of whoever holds its lease."""

    def flush_events(self) -> None:
        """Wait until every event emitted so far is in a file of the storage.

        Call it before a checkpoint is sealed: the next owner resumes behind it and does not emit
        the steps before it again.
        """

    def check_lease(self) -> None:
        """Have the broker confirm the claim, before something that cannot be undone.

        Waits while the broker is away. Raises Stale. The claim may be lost right after the answer,
        so what follows must be harmless when it is done twice.
        """

    def try_lock(self, what: str) -> str:
        """Try to take the fleet's lock on `what`, until the claim ends.

        Waits while the broker is away. Returns '' when this job has it now, else the job that has.
        Raises Stale.
        """


class SoleOwner:
    """The owner of a phase outside a fleet: no lease can be lost and every lock is free."""

    def flush_events(self) -> None:
        """Do nothing."""

    def check_lease(self) -> None:
        """Do nothing."""

    def try_lock(self, what: str) -> str:
        return ""


@dataclass(frozen=True)
class Devices:
    """What the phase may compute on. One child per rank when there are several GPUs."""

    gpus: tuple[str, ...] = ()  # GPU UUIDs, in rank order; empty means the CPU
    rank: int = 0
    cpu_threads: int = 1  # threads, or processes, that may compute
    world_size: int = 1  # ranks that train together
    meeting: str = ""  # file through which they find each other


@dataclass(frozen=True)
class PhaseContext:
    """Everything a phase needs; nothing of it comes from the environment."""

    job: str
    phase: Phase
    attempt: int
    token_number: int  # of the claim; a later claim has a higher one
    spec: JobSpec
    paths: JobPaths
    emit: Emit
    secrets: Mapping[str, str] = field(default_factory=dict)  # HF_TOKEN and others, by name
    endpoint: str | None = None  # the Hub's URL; None is the public one
    devices: Devices = field(default_factory=Devices)
    control: Control = field(default_factory=Control)
    created: str = ""  # when the job was submitted, RFC 3339
    claim_name: str = ""  # of the claim's folder; by default the token's number
    fresh_after: int = 0  # checkpoints of tokens up to this number are not resumed from
    replay: Replay | None = None  # the step of another job that is repeated; None: no replay
    owner: Owner = field(default_factory=SoleOwner)
    data_roots: DataRoots = field(default_factory=DataRoots)  # that `worker:` may name

    @property
    def claim(self) -> str:
        """Name of this claim's own folder, `paths.claim_dir(claim)`: nobody else writes there."""
        return self.claim_name or str(self.token_number)

    @property
    def hub_token(self) -> str | bool:
        """The Hub token, or False: never a token that happens to lie on the host."""
        return self.secrets.get("HF_TOKEN") or False

    def resolve(
        self, field_name: str, value: Any, reason: str, *, this_training: bool = False
    ) -> None:
        """Store and emit the value of a field that was `auto`, and the reason.

        `this_training`: what was learned in it is of no use to one that is started afresh.
        """
        known = read_resolved(self.paths)
        known[field_name] = {"value": value, "reason": reason}
        if this_training:
            known[field_name]["token"] = self.token_number
        write_json(self.paths.resolved, known)
        self.emit(EventType.RESOLVED, field=field_name, value=value, reason=reason)

    def doing(self, what: str, *, since_s: float = 0.0) -> None:
        """Say what begins now, before work that cannot count itself; the agent tells its time.

        `since_s`: for how many seconds it has been going on, for work that says so again and again.
        """
        self.emit(EventType.PROGRESS, task=what, done=round(since_s), unit="s")

    def check(self, name: str, ok: bool, message: str, hint: str = "") -> None:
        self.emit(
            EventType.CHECK, name=name, ok=ok, message=message, **({"hint": hint} if hint else {})
        )

    def warn(self, message: str, hint: str = "") -> None:
        """Emit a warning: the job goes on."""
        self.emit(EventType.WARNING, message=message, **({"hint": hint} if hint else {}))
