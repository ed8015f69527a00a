"""A process's heartbeat: it touches a file, and others watch whether the file moves."""

import logging
import time
from collections.abc import Callable
from pathlib import Path

log = logging.getLogger(__name__)


def touch(path: Path) -> None:
    """Give a heartbeat; one that cannot be given is no reason to die."""
    try:
        path.parent.mkdir(mode=0o700, exist_ok=True)  # /tmp may have been cleaned
        path.touch()
    except OSError as error:
        log.warning("%s: %s", path, error, extra={"action": "heartbeat_failed"})


class LastBeat:
    """Measures, on its own clock, how long ago another process's file last moved."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._path, self._clock = path, clock
        self._seen, self._since = 0, clock()

    def silent_s(self) -> float:
        """Look once; return the seconds since the file was seen to move, or since the start."""
        try:
            moved = self._path.stat().st_mtime_ns
        except OSError:  # the process has just been started again
            moved = 0
        if moved and moved != self._seen:
            self._seen, self._since = moved, self._clock()
        return self._clock() - self._since
