"""All processes below this one, however they were started: so that none outlives its owner.

As a Linux subreaper, a process becomes the parent of every orphan below it. What it started
directly or not is then exactly the tree under it, and needs no search by name.
"""

import contextlib
import ctypes
import os
import signal
import sys
import time
from pathlib import Path

_PR_SET_CHILD_SUBREAPER = 36


def adopt_orphans() -> None:
    """Become the parent of every orphan below this process; does nothing outside Linux."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def descendants(pid: int | None = None) -> dict[int, str]:
    """Return pid and command of every living process below; none outside Linux.

    Processes that have ended are collected on the way.
    """
    found: dict[int, str] = {}
    for child in _children(os.getpid() if pid is None else pid):
        if pid is None and _collected(child):
            continue
        found |= {child: _command(child)} | descendants(child)
    return found


def kill_descendants(timeout_s: float = 10.0) -> dict[int, str]:
    """Kill everything below this process and return what does not even end then."""
    deadline = time.monotonic() + timeout_s
    while (left := descendants()) and time.monotonic() < deadline:
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)
    return left


def _children(pid: int) -> list[int]:
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            found += map(int, task.read_text().split())
    return found


def _collected(pid: int) -> bool:
    """Return whether a child of ours had ended, and is gone now."""
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:  # its Popen was faster
        return True


def _command(pid: int) -> str:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_text(errors="replace")
    except OSError:
        return ""
    return words.replace("\0", " ").strip()
