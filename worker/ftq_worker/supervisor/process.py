"""One process that must run: started, restarted ever more slowly when it keeps dying, ended.

A frozen process (SIGSTOP, a deadlock) does not end by itself: it is known by its heartbeat, a file
that it touches, and killed.
"""

import logging
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

log = logging.getLogger(__name__)

HANG_S = 30.0  # a process without a heartbeat for so long is killed and started again
LONGEST_LOOK_S = 2.0  # a gap between two looks that counts; a longer one was the supervisor's own
CALM_S = 5.0  # a process that lived so long is restarted at once
NO_FORK_S = 1.0  # between two tries to start one, when the system has no room for it
SLOWEST_S = 30.0  # between two starts of one that keeps dying


class HeartbeatWatch:
    """Measures, on its own clock, for how long a file has not been touched.

    Time in which the supervisor did not look, because it was frozen as well, is not counted: its
    processes get a whole HANG_S after they wake.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._path, self._clock = path, clock
        self.reset()

    def reset(self) -> None:
        """Forget what was seen: the process was started anew, and may import for minutes."""
        self._path.unlink(missing_ok=True)
        self._seen = 0
        self._quiet_s = 0.0
        self._looked = self._clock()

    def is_hung(self) -> bool:
        """Look once; return whether the process has been silent for too long."""
        now = self._clock()
        passed, self._looked = min(now - self._looked, LONGEST_LOOK_S), now
        moved = self._path.stat().st_mtime_ns if self._path.exists() else 0
        if moved != self._seen or not moved:
            self._seen, self._quiet_s = moved, 0.0
        else:
            self._quiet_s += passed
        return self._quiet_s >= HANG_S


@dataclass
class Process:
    """One process that must run."""

    name: str
    command: list[str]
    env: Mapping[str, str]
    heartbeat: HeartbeatWatch
    on_restart: Callable[[], None] = lambda: None  # clears up, before it is started again
    popen: "subprocess.Popen[bytes] | None" = None
    started: float = 0.0
    delay_s: float = 0.0
    not_before: float = 0.0  # monotonic; the next start is no earlier

    @property
    def pid(self) -> int | None:
        """Its process id, None while it does not run."""
        return self.popen.pid if self.popen else None

    def ensure_running(self) -> bool:
        """Start it when it does not run, kill it when it hangs; return whether it was started."""
        now = time.monotonic()
        if self.popen and self.popen.poll() is None:
            if self.heartbeat.is_hung():
                self._log("hung", "has given no heartbeat for %.0f s; killing it", HANG_S)
                self.popen.kill()
            return False
        if self.popen:
            calm = now - self.started > CALM_S
            self.delay_s = 0.0 if calm else min(SLOWEST_S, self.delay_s * 2 or 0.5)
            self.not_before = now + self.delay_s
            self._log("ended", "ended (%s); starting it again", self.popen.returncode)
            self.popen = None
            self.on_restart()
        return now >= self.not_before and self._start(now)

    def _start(self, now: float) -> bool:
        self.heartbeat.reset()
        self.started = now
        try:
            self.popen = subprocess.Popen(
                self.command, env=dict(self.env), stdin=subprocess.DEVNULL, start_new_session=True
            )
        except OSError as error:  # out of processes or memory, for a while
            self._log("not_started", "cannot be started: %s", error)
            self.not_before = now + NO_FORK_S
            return False
        return True

    def end(self, wait_s: float, until: Callable[[], float] = lambda: 0.0) -> int | None:
        """Ask it to end, kill it when it does not; return its exit code, None if it never ran.

        It gets `wait_s`, or longer when it says `until` when it needs, on the monotonic clock.
        """
        if not self.popen:
            return None
        if self.popen.poll() is None:
            self.popen.terminate()
        started = time.monotonic()
        while time.monotonic() < max(started + wait_s, until()):
            try:
                return self.popen.wait(LONGEST_LOOK_S)
            except subprocess.TimeoutExpired:
                continue
        self._log("killed", "does not end within %.0f s; killing it", time.monotonic() - started)
        self.popen.kill()
        return self.popen.wait()

    def _log(self, event: str, words: str, value: object) -> None:
        extra = {"action": f"process_{event}", "process_name": self.name, "pid": self.pid}
        log.warning("%s " + words, self.name, value, extra=extra)
