"""One process that must run: started, restarted ever more slowly when it keeps dying, ended."""

import logging
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ftq_worker.host.heartbeat import HANG_S, PulseWatch

log = logging.getLogger("ftq.guard")

UNCLEAN = 75  # exit code (EX_TEMPFAIL): it ended, but some work was not handed back
CALM_S = 5.0  # a process that lived so long is restarted at once
NO_FORK_S = 1.0  # between two tries to start one, when the system has no room for it
SLOWEST_S = 30.0  # between two starts of one that keeps dying


@dataclass
class Process:
    """One process that must run."""

    name: str
    command: list[str]
    env: Mapping[str, str]
    pulse: PulseWatch
    clear_up: Callable[[], None] = lambda: None  # before it is started again
    popen: "subprocess.Popen[bytes] | None" = None
    started: float = 0.0
    delay_s: float = 0.0
    not_before: float = 0.0  # monotonic; the next start is no earlier

    @property
    def pid(self) -> int | None:
        """Its process id, None while it does not run."""
        return self.popen.pid if self.popen else None

    def keep(self) -> bool:
        """Start it when it does not run, kill it when it hangs; return whether it was started."""
        now = time.monotonic()
        if self.popen and self.popen.poll() is None:
            if self.pulse.hangs():
                log.warning("%s has shown no sign of life for %.0f s", self.name, HANG_S)
                self.popen.kill()
            return False
        if self.popen:
            calm = now - self.started > CALM_S
            self.delay_s = 0.0 if calm else min(SLOWEST_S, self.delay_s * 2 or 0.5)
            self.not_before = now + self.delay_s
            log.warning("%s ended (%s); starting it again", self.name, self.popen.returncode)
            self.popen = None
            self.clear_up()
        if now < self.not_before:
            return False
        self.pulse.reset()
        self.started = now
        try:
            self.popen = subprocess.Popen(
                self.command, env=dict(self.env), stdin=subprocess.DEVNULL, start_new_session=True
            )
        except OSError as error:  # out of processes or memory, for a while
            log.warning("%s cannot be started: %s", self.name, error)
            self.not_before = now + NO_FORK_S
            return False
        return True

    def end(self, wait_s: float) -> int | None:
        """Ask it to end, kill it when it does not; return its exit code, None if it never ran."""
        if not self.popen:
            return None
        if self.popen.poll() is None:
            self.popen.terminate()
        try:
            return self.popen.wait(wait_s)
        except subprocess.TimeoutExpired:
            log.warning("%s does not end; killing it", self.name)
            self.popen.kill()
            return self.popen.wait()
