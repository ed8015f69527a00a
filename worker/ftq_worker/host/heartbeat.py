"""Whether a process still works: it touches a file, and the guard looks whether the file moves.

A frozen process (SIGSTOP, a deadlock) does not end, so nobody would start it again.
"""

import logging
import time
from collections.abc import Callable
from pathlib import Path

log = logging.getLogger(__name__)

HANG_S = 30.0  # a process without a pulse for so long is killed and started again
LONGEST_LOOK_S = 2.0  # a gap between two looks that counts; what is longer was the guard's own


def touch(path: Path) -> None:
    """Give a sign of life; one that cannot be given is no reason to die."""
    try:
        path.parent.mkdir(mode=0o700, exist_ok=True)  # /tmp may have been cleaned
        path.touch()
    except OSError as error:
        log.warning("%s: %s", path, error)


class PulseWatch:
    """Measures, on its own clock, for how long a file has not been touched.

    Time in which the guard did not look, because it was frozen as well, is not counted: its
    processes get a whole HANG_S after they wake.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._path, self._clock = path, clock
        self.reset()

    def reset(self) -> None:
        """Forget what was seen: the process was started anew. It gets time to its first sign."""
        self._path.unlink(missing_ok=True)
        self._seen = 0
        self._quiet_s = 0.0
        self._looked = self._clock()

    def hangs(self) -> bool:
        """Look once; return whether the process has been silent for too long."""
        now = self._clock()
        passed, self._looked = min(now - self._looked, LONGEST_LOOK_S), now
        moved = self._path.stat().st_mtime_ns if self._path.exists() else 0
        if moved != self._seen or not moved:  # before its first sign it may import for minutes
            self._seen, self._quiet_s = moved, 0.0
        else:
            self._quiet_s += passed
        return self._quiet_s >= HANG_S
