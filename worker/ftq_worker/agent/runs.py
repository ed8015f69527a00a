"""The phases that this host runs: taken with a token, worked on in a thread each, handed back."""

import logging
import secrets
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ftq_shared.errors import ErrorInfo
from ftq_shared.hosts import HostStore, running_after_restart
from ftq_shared.keys import HOST_LOST_S
from ftq_shared.paths import read_json
from ftq_shared.states import TERMINAL, Phase
from ftq_worker.agent.run import PhaseRun
from ftq_worker.agent.services import Bench
from ftq_worker.job.context import StopReason

log = logging.getLogger("ftq.agent")

DRAIN_GRACE_S = 60.0  # for checkpoints, when the host goes down
SETTLE_S = 15.0  # for killing what did not save in time, and for telling the broker


class Roster:
    """What runs here. Safe to use from several threads."""

    def __init__(self, bench: Bench, hosts: HostStore, on_end: Callable[[], None]) -> None:
        self._bench = bench
        self._hosts = hosts
        self._on_end = on_end  # called after each run: a slot is free
        self._runs: dict[str, PhaseRun] = {}
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._nonces: dict[str, str] = {}  # by token: of claims whose answer may have been lost
        self._closing = False
        self._taking: set[str] = set()  # tokens whose `take` may still start a run
        self._idle = threading.Condition(self._lock)
        self.full = False  # whether the storage has no room

    def runs(self) -> dict[str, PhaseRun]:
        """Return the runs by job, as they are now."""
        with self._lock:
            return dict(self._runs)

    def pids(self) -> list[int]:
        """Return the processes of all phases that run here."""
        return [pid for run in self.runs().values() for pid in run.pids()]

    def take(self, job: str, token: str) -> bool:
        """Claim a phase that was placed here and start it; False when it is not to be had.

        Raises RuntimeError when the system has no thread for it. After any error, try again.
        """
        if running := self.runs().get(job):
            if running.token == token:  # the broker lost the claim
                running.claim_again()
            return False  # what we still hold under an old token has to end first
        with self._lock:
            if token in self._taking:
                return False
            welcome = not self._closing and not self.full
            if welcome:
                self._taking.add(token)
        if not welcome:
            why = "is going down" if self._closing else "has no room on its disk"
            self._bench.store.requeue(job, token, f"{self._bench.host} {why}", burn=False)
            return False
        try:
            if self._may_run_elsewhere(job):
                return False  # the next look tries again
            run = self._claim(job, token)
            if run is not None and not self._start(run):
                return False
            self._nonces.pop(token, None)
            return run is not None
        finally:
            with self._lock:
                self._taking.discard(token)
                self._idle.notify_all()

    def hand_back(self) -> bool:
        """Stop all runs so that they can go on elsewhere; return whether all have ended."""
        deadline = time.monotonic() + DRAIN_GRACE_S + SETTLE_S
        with self._lock:
            self._closing = True
        for run in self.runs().values():
            run.stop(StopReason.DRAIN, DRAIN_GRACE_S)
        with self._lock:
            self._idle.wait_for(lambda: not self._taking, deadline - time.monotonic())
            threads = list(self._threads)
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        if left := sorted(self.runs()):
            log.error("not handed back: %s; their leases run out", ", ".join(left))
        return not left

    def may_have_claimed(self, token: str) -> bool:
        """Return whether a claim with it was sent, and nobody knows with what success."""
        return token in self._nonces

    def _may_run_elsewhere(self, job: str) -> bool:
        """Return whether a broker that has just started may have forgotten a later owner."""
        server = self._bench.store.server()
        if server.uptime_s > HOST_LOST_S:
            return False
        others = [host for host in self._hosts.all() if host.name != self._bench.host]
        running = running_after_restart(server, others)
        return running is None or self._bench.store.get(job).is_held_by(running)

    def _claim(self, job: str, token: str) -> PhaseRun | None:
        """Claim a phase with its token; None when it is not to be had."""
        bench = self._bench
        nonce, asked = self._nonces.setdefault(token, secrets.token_hex(8)), time.monotonic()
        answer = bench.store.claim(
            job, token, nonce=nonce, instance=bench.instance, storage_id=bench.storage_id
        )
        if answer != "ok":
            return None
        record = bench.store.get(job)
        if record.token != token:  # it was lost again at once
            return None
        return PhaseRun(bench, record, nonce, asked)

    def _start(self, run: PhaseRun) -> bool:
        """Work on a claimed phase in a thread of its own; False when another one was faster."""
        thread = threading.Thread(target=self._work, args=(run,), name=run.job, daemon=True)
        with self._lock:
            if run.job in self._runs:
                return False
            thread.start()  # it may fail, and then nothing has happened
            self._runs[run.job] = run
            self._threads.append(thread)
        if self._closing:  # it came while we were handing back
            run.stop(StopReason.DRAIN, DRAIN_GRACE_S)
        return True

    def _work(self, run: PhaseRun) -> None:
        """Carry a run to its end."""
        try:
            if not self._start_over(run) and not self._ended_before(run):
                run.work()
        except Exception:  # the lease runs out, and somebody else takes the job
            log.exception("run of %s", run.job, extra={"action": "run_failed", "job": run.job})
        finally:
            with self._lock:
                if self._runs.get(run.job) is run:
                    del self._runs[run.job]
                self._threads = [t for t in self._threads if t is not threading.current_thread()]
            self._on_end()

    def _start_over(self, run: PhaseRun) -> bool:
        """Send a job whose files are not in this storage back to its first phase."""
        if run.record.phase is Phase.VALIDATE or run.paths.marker.exists():
            return False
        reason = f"its files are not in the storage of {self._bench.host}; it starts over"
        requeue, first = self._bench.store.requeue, Phase.VALIDATE
        run.tell(lambda: requeue(run.job, run.token, reason, burn=False, phase=first))
        return True

    def _ended_before(self, run: PhaseRun) -> bool:
        """End a job whose result is in the storage: the record has gone back in time."""
        result = read_result(run.paths.result)
        if not result or result.get("round") != run.record.round:
            return False
        log.warning("%s had ended already: %s", run.job, result["state"])
        error = ErrorInfo.from_json(result["error"]) if result.get("error") else None
        finish = self._bench.store.finish
        run.tell(lambda: finish(run.job, run.token, result["state"], error=error))
        return True


def read_result(path: Path) -> dict[str, Any]:
    """Return what an earlier owner wrote at a job's end; empty when there is nothing to believe."""
    try:
        result = read_json(path)
    except ValueError as error:
        log.warning("%s is damaged and not believed: %s", path, error)
        return {}
    known = isinstance(result, dict) and result.get("state") in TERMINAL
    return dict(result) if known else {}
