"""The lock of an embedded broker: who holds it, and a signal that reaches only that process."""

import fcntl
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from ftq_shared.errors import UsageError

_WRITTEN_S = 2.0  # a holder writes who it is right after it has the lock


@dataclass(frozen=True)
class Holder:
    """The process that holds a lock; `started` tells it from a later one with its pid."""

    pid: int
    started: str  # '' where the system does not say

    @classmethod
    def here(cls) -> "Holder":
        return cls(os.getpid(), started(os.getpid()))

    def terminate(self) -> None:
        """Send SIGTERM; a process that has only the pid of the holder gets none."""
        if not hasattr(os, "pidfd_open"):
            os.kill(self.pid, signal.SIGTERM)
            return
        try:
            process = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return
        try:
            if self._lives():  # asked while the pid cannot go to another process
                signal.pidfd_send_signal(process, signal.SIGTERM)
        except ProcessLookupError:
            return
        finally:
            os.close(process)

    def _lives(self) -> bool:
        return started(self.pid) == self.started


def started(pid: int) -> str:
    """Return when a process started, in ticks since the boot; '' for none, or outside Linux."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    return stat.rpartition(")")[2].split()[19]  # field 22 of proc(5)


def take(path: Path) -> IO[str]:
    """Take the lock and return its file, which holds it while it is open.

    The lock of a process that has died is free. Raises UsageError when another one has it.
    """
    lock = path.open("a+")
    deadline = time.monotonic() + _WRITTEN_S
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except OSError:  # or somebody just looks at who holds it, as `holder` does
            found = holder(path)
            if found or time.monotonic() > deadline:
                lock.close()
                raise already_up(found.pid if found else "which is just ending") from None
    me = Holder.here()
    lock.truncate(0)
    lock.write(f"{me.pid} {me.started}")
    lock.flush()
    return lock


def holder(path: Path) -> Holder | None:
    """Return the process that holds the lock, None when nobody does.

    Raises UsageError when somebody does who cannot be seen from here: then nobody may be ended.
    """
    deadline = time.monotonic() + _WRITTEN_S
    while path.exists():
        with path.open() as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
                return None
            except OSError:
                pid, _, start = lock.read().strip().partition(" ")
        if pid.isdecimal() and _is(int(pid), start):
            return Holder(int(pid), start or started(int(pid)))
        if time.monotonic() > deadline:
            raise UsageError(
                f"the lock {path} is held, but not by a process that can be seen from here",
                code="foreign_lock",
                hint="stop `ftq up` on the machine or in the container that shares this FTQ_HOME",
            )
        time.sleep(0.02)
    return None


def _is(pid: int, start: str) -> bool:
    """Return whether the process that wrote the lock lives; ftq 0.1.0 wrote no start time."""
    now = started(pid)
    if not Path("/proc/self").exists():
        return True
    return bool(now) and start in ("", now)


def already_up(pid: int | str) -> UsageError:
    """Return the error for a second `ftq up` on the same data."""
    text = f"ftq is up already (process {pid})"
    return UsageError(text, code="already_up", hint="`ftq down` stops it")
