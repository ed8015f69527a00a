"""All processes below this one, however they were started, so that none outlives its owner.

As a Linux subreaper (prctl(2), PR_SET_CHILD_SUBREAPER), a process becomes the parent of every
orphan below it. What it has started, directly or not, is then exactly the tree under it, and needs
no search by name. Outside Linux there is no such tree: everything here then finds nothing.
"""

import contextlib
import ctypes
import os
import signal
import sys
import time
from pathlib import Path

IS_LINUX = sys.platform == "linux"
_PR_SET_CHILD_SUBREAPER = 36


def own_module(module: str, *args: str) -> list[str]:
    """Return the command that runs a module of ours.

    Without the working directory on its path: a `json.py` or `queue.py` of the person's own that
    lies there would be imported instead of Python's.
    """
    return [sys.executable, "-P", "-m", module, *args]


def prctl(option: int, value: int) -> None:
    """Set one of the kernel's attributes of this process. Raises OSError; a no-op outside Linux."""
    if IS_LINUX and ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl({option})")


def become_subreaper() -> None:
    """Become the parent of every orphan below this process, so that none escapes its end."""
    prctl(_PR_SET_CHILD_SUBREAPER, 1)


def children_of(pid: int) -> list[int]:
    """Return the direct children of a process of ours, whichever of its threads started them."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):  # the thread has ended meanwhile
            found += map(int, task.read_text().split())
    return found


def descendants(pid: int | None = None) -> dict[int, str]:
    """Return pid and command of every living process below `pid`, by default below this one.

    Of this process's own children, those that have ended are collected on the way.
    """
    found: dict[int, str] = {}
    for child in children_of(os.getpid() if pid is None else pid):
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
