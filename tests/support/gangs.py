"""Trainings with several ranks on the CPU, run as an agent runs them: real processes, gloo.

A PhaseRun starts a zygote's children, one for each rank, and sees to their end. Of fleet and broker
only the store in memory is there.
"""

import json
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

from ftq_shared.events import EventType
from ftq_shared.in_memory import MemoryHosts, MemoryStore
from ftq_shared.job_record import RECORD_VERSION, Replay
from ftq_shared.processes import children_of
from ftq_shared.states import Phase
from ftq_worker.agent import phase_run
from ftq_worker.agent.child import Child, Spawn
from ftq_worker.agent.phase_run import PhaseRun
from ftq_worker.agent.run_handle import RunHandle
from ftq_worker.host.messages import ChildRequest, LeaseTimes
from tests.support.agents import services
from tests.support.store_jobs import HOST, run, submit
from tests.support.tiny_jobs import TinyJob

LONGEST_S = 120.0  # of one attempt


@dataclass
class Attempt:
    """What one claim of a gang came to."""

    ranks: int
    events: list[tuple[EventType, dict[str, Any]]]
    output: str
    pids: list[int] = field(default_factory=list)

    def of(self, kind: EventType) -> list[dict[str, Any]]:
        return [data for seen, data in self.events if seen is kind]

    def steps(self) -> dict[int, dict[str, Any]]:
        return {data["step"]: data for data in self.of(EventType.STEP)}

    def losses(self) -> dict[int, float]:
        return {step: data["loss"] for step, data in self.steps().items()}


class GangJob:
    """A prepared job that trains with as many ranks as each attempt is given."""

    def __init__(self, job: TinyJob, spawn: Spawn) -> None:
        self.job, self._spawn = job, spawn
        self.store = MemoryStore()
        submit(self.store, job=job.ctx.job, spec=job.ctx.spec)
        self._claims = 0

    def attempt(
        self,
        ranks: int,
        kill: tuple[int, int] | None = None,
        *,
        delay_s: float = 0.0,
        by: signal.Signals = signal.SIGKILL,
        verify: bool = False,
        request: Callable[[ChildRequest], ChildRequest] = lambda request: request,
    ) -> Attempt:
        """Train under a new claim; `kill`: a rank, and the step after whose event it gets a signal.

        What is saved is verified with `verify` only: it takes a process more.
        """
        parts = phase_run.parts_of(Phase.TRAIN)[: 2 if verify else 1]
        with mock.patch.object(phase_run, "parts_of", return_value=parts):
            return self._attempt(self.job.ctx.job, ranks, kill, delay_s, by, request)

    def replay(self, ranks: int, step: int) -> Attempt:
        """Replay a step, as a job of its own."""
        spec, again = self.job.ctx.spec, Replay(self.job.ctx.job, step)
        mine = f"ft-{self._claims:08d}"
        self.store.submit(mine, spec, client_key=mine, owner="me", endpoint="", replay=again)
        return self._attempt(mine, ranks, None, 0.0, signal.SIGKILL, lambda request: request)

    def _attempt(
        self,
        job: str,
        ranks: int,
        kill: tuple[int, int] | None,
        delay_s: float,
        by: signal.Signals,
        request: Callable[[ChildRequest], ChildRequest],
    ) -> Attempt:
        self._claims += 1
        seen = len(self.store.broker.events(job))
        host = {**HOST, "record_version": str(RECORD_VERSION)}
        MemoryHosts(self.store.broker).heartbeat("h1", "i1", "", host)
        run(self.store, job, random=f"{self._claims:016x}")
        (lease,) = self.store.leases()
        pids: list[int] = []

        def spawn(asked: ChildRequest, output: int) -> Child:
            child = self._spawn(request(asked), output)
            pids.append(child.pid)
            return child

        processes: Any = SimpleNamespace(add=lambda pid: None, remove=lambda pids: None)
        given = replace(
            services(self.store, self.job.ctx.paths.storage, spawn, processes, memory_bytes=10**12),
            cpu_ranks=ranks,
        )
        until = time.monotonic() + LONGEST_S
        handle = RunHandle(lease.id, lease.token, LeaseTimes(until, until), lambda: None)
        record = replace(
            self.store.get(lease.id),
            phase=Phase.TRAIN,
            token_number=self._claims,
            spec_json=self.job.ctx.spec.model_dump_json(),
        )
        one = PhaseRun(given, record, handle)
        thread = threading.Thread(target=one.work)
        thread.start()
        while thread.is_alive():
            if kill and self._has_trained(seen, kill[1]):
                time.sleep(delay_s)
                (phase,) = children_of(pids[kill[0]])
                os.kill(phase, by)
                kill = None
            thread.join(0.01)
            if time.monotonic() > until:
                handle.abandon()
        events = self.store.broker.events(job)[seen:]
        output = one.paths.output(record.claim).read_text(errors="replace")
        return Attempt(ranks, [(event.type, event.data) for event in events], output, pids)

    def _has_trained(self, seen: int, step: int) -> bool:
        events = self.store.broker.events(self.job.ctx.job)[seen:]
        return any(e.type is EventType.STEP and e.data["step"] >= step for e in events)


def without_dropout(base: Path) -> Path:
    """Take the dropout out of a tiny base: ranks draw other numbers than one process does."""
    path = base / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {name: 0.0 for name in config if "dropout" in name}))
    return base
