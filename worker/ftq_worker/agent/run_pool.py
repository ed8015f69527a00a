"""The phases that this host runs: taken with a token, worked on in a thread each, handed back."""

import logging
import secrets
import threading
import time
from collections.abc import Callable
from functools import partial

from redis.exceptions import RedisError

from ftq_shared.broker import translated
from ftq_shared.errors import BrokerUnreachable, ErrorInfo
from ftq_shared.hosts import HostStore, running_after_restart
from ftq_shared.lifetimes import HOST_LOST_S
from ftq_shared.states import Phase
from ftq_worker.agent.outcome import read_result, report_until_heard
from ftq_worker.agent.phase_run import PhaseRun
from ftq_worker.agent.run_handle import RunHandle
from ftq_worker.agent.services import Services
from ftq_worker.host.messages import LeaseTimes, StopReason

log = logging.getLogger(__name__)

_LOOK_S = 0.2  # between two looks at runs that end
END_S = 15.0  # for killing what did not save in time, and for reporting to the broker


class RunPool:
    """What runs here. Safe to use from several threads."""

    def __init__(self, services: Services, hosts: HostStore, on_end: Callable[[], None]) -> None:
        self._services = services
        self._hosts = hosts
        self._on_end = on_end  # called after each run: a slot is free
        self._runs: dict[str, RunHandle] = {}  # by job
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._nonces: dict[str, str] = {}  # by token: of claims whose answer may have been lost
        self._closing = False
        self._taking: set[str] = set()  # tokens whose `take` may still start a run
        self._idle = threading.Condition(self._lock)
        self.full = False  # whether the storage has no room

    def runs(self) -> dict[str, RunHandle]:
        """Return the runs by job, as they are now."""
        with self._lock:
            return dict(self._runs)

    def take(self, job: str, token: str) -> bool:
        """Claim a phase that was placed here and start it; False when it is not to be had.

        Raises RuntimeError when the system has no thread for it. After any error, try again.
        """
        if running := self.runs().get(job):
            if running.token == token:  # the broker lost the claim
                running.claim_again()
            return False  # a run under an older token has to end first
        with self._lock:
            if token in self._taking:
                return False
            welcome = not self._closing and not self.full
            if welcome:
                self._taking.add(token)
        if not welcome:
            why = "is going down" if self._closing else "has no room on its disk"
            self._services.store.requeue(
                job, token, f"{self._services.host} {why}", counts_attempt=False
            )
            return False
        try:
            return self._claim_and_start(job, token)
        finally:
            with self._lock:
                self._taking.discard(token)
                self._idle.notify_all()

    def _claim_and_start(self, job: str, token: str) -> bool:
        if self._may_run_elsewhere(job):
            return False  # the next look tries again
        run = self._claim(job, token)
        if run is not None and not self._start(run):
            return False
        self._nonces.pop(token, None)
        return run is not None

    def hand_back(self, announce: Callable[[float], None]) -> bool:
        """Stop all runs so that they can go on elsewhere; return whether all have ended.

        `announce` is told, on the monotonic clock, how long their saves may take.
        """
        with self._lock:
            self._closing = True
        runs = self.runs().values()
        needed_s = END_S + max((run.grace_s(StopReason.DRAIN) for run in runs), default=0.0)
        deadline = time.monotonic() + needed_s
        announce(deadline)
        for run in runs:
            run.stop(StopReason.DRAIN)
        with self._lock:
            self._idle.wait_for(lambda: not self._taking, deadline - time.monotonic())
            threads = list(self._threads)
        while alive := [thread for thread in threads if thread.is_alive()]:
            # However long a save may take: it needs a lease; then only a report is left.
            due = max((run.due(deadline, END_S) for run in self.runs().values()), default=deadline)
            if time.monotonic() >= due:
                break
            alive[0].join(_LOOK_S)
        if left := sorted(self.runs()):
            extra = {"action": "not_handed_back", "jobs": left}
            log.error("not handed back: %s; their leases run out", ", ".join(left), extra=extra)
        return not left

    def may_have_claimed(self, token: str) -> bool:
        """Return whether a claim with it was sent whose answer never came."""
        return token in self._nonces

    def _may_run_elsewhere(self, job: str) -> bool:
        """Return whether a broker that has just started may have forgotten a later owner."""
        server = self._services.store.server()
        if server.uptime_s > HOST_LOST_S:
            return False
        others = [host for host in self._hosts.all() if host.name != self._services.host]
        running = running_after_restart(server, others)
        return running is None or self._services.store.get(job).is_held_by(running)

    def _claim(self, job: str, token: str) -> PhaseRun | None:
        """Claim a phase with its token; None when it is not to be had."""
        services = self._services
        nonce = self._nonces.setdefault(token, secrets.token_hex(8))
        claim = partial(
            services.store.claim,
            job,
            token,
            nonce=nonce,
            instance=services.instance,
            storage_id=services.storage_id,
        )
        asked = time.monotonic()
        if claim() != "ok":
            return None
        record = services.store.get(job)
        if record.token != token:  # it was lost again at once
            return None
        again = partial(_try_again, job, claim)
        return PhaseRun(services, record, RunHandle(job, token, LeaseTimes.renewed(asked), again))

    def _start(self, run: PhaseRun) -> bool:
        """Work on a claimed phase in a thread of its own; False when another one was faster."""
        job = run.record.id
        thread = threading.Thread(target=self._work, args=(run,), name=job, daemon=True)
        with self._lock:
            if job in self._runs:
                return False
            thread.start()  # it may fail, and then nothing has happened
            self._runs[job] = run.handle
            self._threads.append(thread)
        if self._closing:  # it came while we were handing back
            run.handle.stop(StopReason.DRAIN)
        return True

    def _work(self, run: PhaseRun) -> None:
        job = run.record.id
        try:
            if not (self._cards_are_sick(run) or self._start_over(run) or self._ended_before(run)):
                run.work()
        except Exception:  # the lease runs out, and somebody else takes the job
            log.exception("run of %s", job, extra={"action": "run_failed", "job": job})
        finally:
            with self._lock:
                if self._runs.get(job) is run.handle:
                    del self._runs[job]
                self._threads = [t for t in self._threads if t is not threading.current_thread()]
            self._on_end()

    def _cards_are_sick(self, run: PhaseRun) -> bool:
        """Send a phase back whose cards were set aside while it was placed here."""
        if not (sick := self._services.cards.sick(run.record.gpus)):
            return False
        reason = f"{sick[0].name} of {self._services.host} {sick[0].why}"
        self._report(run, self._services.store.requeue, reason, counts_attempt=False)
        return True

    def _start_over(self, run: PhaseRun) -> bool:
        """Send a job whose files are not in this storage back to its first phase."""
        replays = "replay_of" in run.record.summary  # it has no files yet; it looks for the other's
        if run.record.phase is Phase.VALIDATE or replays or run.paths.marker.exists():
            return False
        reason = f"its files are not in the storage of {self._services.host}; it starts over"
        self._report(
            run, self._services.store.requeue, reason, counts_attempt=False, phase=Phase.VALIDATE
        )
        return True

    def _ended_before(self, run: PhaseRun) -> bool:
        """End a job whose result is in the storage: the broker was rolled back to before it."""
        result = read_result(run.paths.result)
        if result is None or result["round"] != run.record.round:
            return False
        job, state = run.record.id, result["state"]
        extra = {"action": "ended_before", "job": job}
        log.warning("%s had ended already: %s", job, state, extra=extra)
        error = ErrorInfo.from_json(result["error"]) if result["error"] else None
        self._report(run, self._services.store.finish, state, error=error)
        return True

    def _report(
        self, run: PhaseRun, change: Callable[..., object], *args: object, **how: object
    ) -> None:
        job, handle = run.record.id, run.handle
        report = partial(change, job, handle.token, *args, **how)
        report_until_heard(job, report, lambda: handle.lost)


def _try_again(job: str, claim: Callable[[], object]) -> None:
    """Claim a job once more; the next renewal asks again when that fails."""
    try:
        with translated():
            claim()
    except (BrokerUnreachable, RedisError) as error:
        extra = {"action": "claim_failed", "job": job}
        log.warning("claim of %s again: %s", job, error, extra=extra)
