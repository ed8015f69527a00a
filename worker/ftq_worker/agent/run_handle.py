"""What the agent's other threads may touch of a run: its lease, its stop, its processes."""

import logging
import signal
import threading
import time
from collections.abc import Callable, Iterable

from ftq_worker.agent.child import DIE_S, Child, HostTrouble
from ftq_worker.host.messages import LeaseTimes, Secrets, Stop, StopReason

log = logging.getLogger(__name__)

STOP_GRACE_S = 60.0  # for the rest of a step and a save, after a phase was asked to stop
SAVE_GRACE_S = 600.0  # for a save whose time nobody has measured
CANCEL_GRACE_S = 3.0  # a person who cancels waits: a save that takes longer is not made
KILL_GRACE_S = 5.0  # between TERM and KILL


class RunHandle:
    """All of a run that other threads may touch, under one lock: its processes and its lease."""

    def __init__(
        self, job: str, token: str, lease: LeaseTimes, claim_again: Callable[[], None]
    ) -> None:
        self.job, self.token = job, token
        self.lost = False  # set once: somebody else owns the job, or nobody
        self.stop_reason: StopReason | None = None  # set once: the first that came
        self._claim_again = claim_again
        self._lock = threading.Lock()
        self._lease = lease
        self.save_s = 0.0  # what the rest of a step and a save need: set by who watches the phase
        self._children: list[Child] = []  # one per rank, in rank order
        self._term_at: float | None = None  # monotonic; when patience with a stop is over
        self._killed_at: float | None = None  # monotonic; when a child was first sent SIGKILL
        self.ended_at: float | None = None  # monotonic; when the last process was gone

    def add(self, child: Child, secrets: Secrets) -> None:
        """Take a child that was just started, and tell it all that was said before it was there."""
        with self._lock:
            self._children.append(child)
            child.send(secrets)
            child.send(self._lease)
            if self.stop_reason:
                child.send(Stop(self.stop_reason))
        if self.lost:
            child.kill_tree()

    def children(self) -> list[Child]:
        with self._lock:
            return list(self._children)

    def forget_children(self) -> None:
        """Let go of the children, which have ended well: others follow under the same lease.

        A deadline that was over while they ended is met: only they had one.
        """
        with self._lock:
            ended, self._children = self._children, []
            if self.stop_reason is StopReason.DEADLINE:
                self.stop_reason = self._term_at = None
        for child in ended:
            child.close()

    def extend_lease(self, lease: LeaseTimes) -> None:
        """Let the children live and work for longer."""
        with self._lock:
            self._lease = lease.at_least(self._lease)
            for child in self._children:
                child.send(self._lease)

    def claim_again(self) -> None:
        """Tell a broker that has lost the claim, but not the placement, who holds it.

        In a thread, because leases are renewed meanwhile. The next renewal asks again.
        """
        name = f"claim {self.job}"
        threading.Thread(target=self._claim_again, name=name, daemon=True).start()

    def lease_held(self) -> bool:
        """Return whether the lease was renewed lately enough for the phase to live."""
        with self._lock:
            return time.monotonic() < self._lease.until

    def is_paused(self) -> bool:
        """Return whether the phase stands still, because its lease may soon be over."""
        with self._lock:
            return time.monotonic() >= self._lease.pause_at

    def grace_s(self, reason: StopReason) -> float:
        """Return how long the phase may take to stop: as long as a save needs."""
        return CANCEL_GRACE_S if reason is StopReason.CANCEL else max(STOP_GRACE_S, self.save_s)

    def due(self, deadline: float, report_s: float) -> float:
        """Return by when a run should be over, on the monotonic clock.

        At most `report_s` after its processes are gone, or stand still because nobody renews the
        lease: then nothing is saved any more.
        """
        with self._lock:
            ends = self._lease.pause_at if self.ended_at is None else self.ended_at
        return min(deadline, ends + report_s)

    def stop(self, reason: StopReason) -> None:
        """Ask the phase to save and end; after its grace period it is killed.

        The first reason stays, but a cancel comes before every other one: it needs no save.
        """
        with self._lock:
            if self.stop_reason in (reason, StopReason.CANCEL):
                return
            if self.stop_reason is not None and reason is not StopReason.CANCEL:
                return
            self.stop_reason = reason
            self._term_at = time.monotonic() + self.grace_s(reason)
            for child in self._children:
                child.send(Stop(reason))

    def abandon(self, *, stale: bool = True) -> None:
        """End at once and report nothing: by default because the token is stale."""
        if stale and not self.lost:
            extra = {"action": "lease_lost", "job": self.job}
            words = (
                "%s is ended here: its token is stale, so another host has it, or the broker has"
                " forgotten it (a flush, a restart without its file). Its files stay in jobs/%s"
            )
            log.warning(words, self.job, self.job, extra=extra)
        self.lost = True
        self.kill(self.children())

    def kill(self, children: Iterable[Child]) -> None:
        """Kill children with all that they have started; does not wait for it."""
        self._killed_at = self._killed_at or time.monotonic()
        for child in children:
            child.kill_tree()

    def enforce_stop(self) -> None:
        """Send TERM, and later KILL, to a phase that was asked to stop and does not.

        After a cancel it is KILL at once: a person waits, and nothing is to be saved.

        Raises HostTrouble when a process does not even die of KILL.
        """
        now = time.monotonic()
        if self._killed_at and now >= self._killed_at + DIE_S:
            raise HostTrouble("a process of the phase does not die")
        if self._term_at is None or now < self._term_at:
            return
        if self.stop_reason is StopReason.CANCEL or now >= self._term_at + KILL_GRACE_S:
            self.kill(self.children())
            return
        for child in self.children():
            child.kill_tree(signal.SIGTERM)
