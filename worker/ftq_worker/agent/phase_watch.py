"""A phase as its agent sees it from outside: how long it is silent, stuck, at work, and how large.

A phase whose events stop is told of by the agent, is warned of after half of its patience, and is
ended after all of it: the commonest failure of several GPUs is a rank that waits for ever.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ftq_shared.errors import ErrorInfo
from ftq_shared.events import EventType
from ftq_shared.states import Phase
from ftq_worker.host.messages import Ending, EventBody, Outcome
from ftq_worker.host.process_tree import Use

QUIET_S = 4.0  # of silence, after which the agent says what the phase is at
STALL_S = 600.0  # without progress, after which a phase is stuck
STALL_STEPS = 10.0  # or so many times its slowest recent step, if that is longer
FIRST_STEP_S = 3600.0  # until a training's first step: it compiles, or computes on a CPU
MAX_S = {Phase.VALIDATE: 600.0, Phase.PREPARE: 12 * 3600.0, Phase.PUBLISH: 12 * 3600.0}
# How tasks begin whose time does not count against MAX_S: it is not the phase's own.
WAITS = ("wait for ", "download your files")
MEMORY_SHARE = 0.75  # of the host's memory; a training's need is estimated before it starts
IO_MOVED = 2**20  # bytes read or written between two looks that count as progress before the steps


@dataclass
class PhaseWatch:
    """Judges one run of a phase. Times are seconds, `clock` is monotonic."""

    phase: Phase
    memory_bytes: int  # of the host
    clock: Callable[[], float] = time.monotonic
    slowest_step_s: float = 0.0
    slowest_save_s: float = 0.0
    _doing: dict[str, Any] = field(default_factory=dict)  # data of the last progress event
    _steps: bool = False  # whether it is between two steps
    _trains: bool = False  # whether it has made a step
    _paused_since: float | None = None
    _step_task: str = ""  # what comes after the newest step
    _io: int = 0
    _waited_s: float = 0.0
    _waits_since: float | None = None

    def __post_init__(self) -> None:
        self._started = self._progress = self._doing_since = self._said = self.clock()
        self._warned = False

    def note(self, body: EventBody) -> None:
        """Take in an event of the phase's: it is a sign of progress."""
        now, data = self.clock(), body["data"]
        kind = body["type"]
        if kind == EventType.STEP:
            if self._trains:
                self.slowest_step_s = max(self.slowest_step_s * 0.99, now - self._progress)
            self._trains = True
            following = f"step {data['step'] + 1} of {data['steps']}"
            self._step_task = following if data["step"] < data["steps"] else ""
        elif kind == EventType.CHECKPOINT:
            self.slowest_save_s = max(self.slowest_save_s, float(data.get("seconds") or 0.0))
        if kind == EventType.PROGRESS:
            self._do(data, now)
        elif self._step_task or kind == EventType.STEP:  # a step, or what is between two
            self._do({"task": self._step_task}, now)
        waits = kind == EventType.PROGRESS and str(data.get("task")).startswith(WAITS)
        self._waited_s += self._waits_s(now)
        self._waits_since = now if waits else None
        self._steps = kind == EventType.STEP
        self._progress = self._said = now
        self._warned = False

    def _waits_s(self, now: float) -> float:
        """Return for how long it has been waiting for something that is not its own."""
        return 0.0 if self._waits_since is None else now - self._waits_since

    def _do(self, data: dict[str, Any], now: float) -> None:
        if data.get("task") != self._doing.get("task"):
            self._doing_since = now
        self._doing = data

    def pause(self, paused: bool) -> None:
        """Note whether it may work now: while it may not, no time counts."""
        now = self.clock()
        if self._paused_since is not None:
            self._waited_s += now - self._paused_since
            self._progress = now
        self._paused_since = now if paused else None

    def sign_of_life(self) -> dict[str, Any] | None:
        """Return the data of a progress event, when nothing was heard for QUIET_S."""
        now = self.clock()
        if now - self._said < QUIET_S:
            return None
        self._said, doing = now, self._doing
        if doing.get("done", 0) < (doing.get("total") or 0):
            return doing
        uncounted = doing.get("unit", "s") == "s"
        task = doing.get("task") if uncounted else None
        since = self._doing_since if task else self._progress
        return {"task": task or str(self.phase), "done": round(now - since), "unit": "s"}

    def patience_s(self) -> float:
        """Return for how long it may show no progress."""
        first = FIRST_STEP_S if self.phase is Phase.TRAIN and not self._trains else 0.0
        return max(STALL_S, STALL_STEPS * self.slowest_step_s, first)

    def is_stuck_soon(self) -> str:
        """Return words for a warning, once for each silence: half of the patience is over."""
        quiet_s = self.clock() - self._progress
        if self._warned or quiet_s < self.patience_s() / 2:
            return ""
        self._warned = True
        left_s = self.patience_s() - quiet_s
        return f"no progress for {quiet_s:.0f} s; in {left_s:.0f} s more the phase is ended"

    def verdict(self, use: Use) -> Outcome | None:
        """Return how the phase must end now, None when it may go on."""
        now = self.clock()
        if not self._steps and use.io_bytes - self._io >= IO_MOVED:
            self._progress = now  # a library that loads or saves says nothing for minutes
        self._io = use.io_bytes
        limit_s = MAX_S.get(self.phase)
        if limit_s and now - self._started - self._waited_s - self._waits_s(now) >= limit_s:
            return self._too_long(limit_s)
        if self.phase is not Phase.TRAIN and use.memory_bytes > MEMORY_SHARE * self.memory_bytes:
            return self._too_large(use.memory_bytes)
        if now - self._progress >= self.patience_s():
            words = f"the phase showed no progress for {now - self._progress:.0f} s"
            return Outcome(Ending.DIED, ErrorInfo("no_progress", words))
        return None

    def _too_long(self, limit_s: float) -> Outcome:
        error = ErrorInfo(
            "phase_timeout",
            f"{self.phase} took longer than {limit_s / 60:.0f} minutes",
            "the log shows what it was at; a smaller or local copy of the input may help",
        )
        return Outcome(Ending.FAILED, error)

    def _too_large(self, used: int) -> Outcome:
        share = f"{MEMORY_SHARE:.0%} of this host's {self.memory_bytes / 1e9:.1f} GB"
        error = ErrorInfo(
            "memory_limit",
            f"{self.phase} used {used / 1e9:.1f} GB of memory; it may use {share}",
            "the last progress shows what it was at: split huge rows or files, or use a host with "
            "more memory",
        )
        return Outcome(Ending.FAILED, error)
