"""What the kernel offers and tells a process of the host: prctl(2) and /proc."""

import contextlib
import ctypes
import os
import signal
from pathlib import Path

from ftq_shared.processes import IS_LINUX, prctl

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_M_TRIM_THRESHOLD = -1  # glibc's malloc.h
_M_TOP_PAD = -2
_M_MMAP_MAX = -4


def end_with_parent(parent: int, signum: int = signal.SIGTERM) -> None:
    """Get `signum` when the parent dies; ends at once when it is gone already."""
    prctl(_PR_SET_PDEATHSIG, signum)
    if os.getppid() != parent:
        os._exit(1)


def hide_memory() -> None:
    """Keep other users, and core dumps, away from this process's memory and environment."""
    prctl(_PR_SET_DUMPABLE, 0)


def keep_freed_memory() -> None:
    """Keep large blocks that are freed for the next ones, where the C library is glibc.

    By default each goes back to the kernel, and the next is mapped and zeroed page by page; the
    steps of a training ask for the same blocks again and again. See mallopt(3).
    """
    with contextlib.suppress(AttributeError):  # another C library
        tune = ctypes.CDLL(None).mallopt
        tune(_M_MMAP_MAX, 0)
        tune(_M_TRIM_THRESHOLD, -1)  # never
        tune(_M_TOP_PAD, 64 * 2**20)  # the heap grows in pieces of so many bytes


def start_ticks(pid: int) -> float | None:
    """Return when a process started, in a unit of the system's own; None when it is gone.

    With it, a pid that was given to another process is told apart.
    """
    if not IS_LINUX:
        return _create_time(pid)
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    return float(stat.rpartition(")")[2].split()[19])  # field 22 of proc(5)


def _create_time(pid: int) -> float | None:
    import psutil

    try:
        return float(psutil.Process(pid).create_time())
    except psutil.NoSuchProcess:
        return None


def oom_kills() -> int:
    """Return how many processes of this machine the kernel has killed for want of memory."""
    try:
        lines = Path("/proc/vmstat").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))


def usable_memory() -> int:
    """Return how many bytes of memory this host's processes may use together.

    In a container that is the limit of its control group (cgroup v2, then v1).
    """
    import psutil

    least = int(psutil.virtual_memory().total)
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        try:
            limit = (Path("/sys/fs/cgroup") / name).read_text().strip()
        except OSError:
            continue
        if limit.isdecimal():  # "max" is none
            least = min(least, int(limit))
    return least


def die_first() -> None:
    """Let the kernel choose this process, and what it starts, before others when memory runs out.

    See oom_score_adj in proc(5).
    """
    with contextlib.suppress(OSError):  # not Linux, or the kernel does not let us
        Path("/proc/self/oom_score_adj").write_text("500")


def usable_cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def thread_count() -> int:
    """Return the number of threads of this process."""
    return len(os.listdir("/proc/self/task"))
