"""Which processes belong to one worker, written down so that others can end them.

run_dir/processes.json   by the supervisor: agent, Celery, zygote
run_dir/phases.json      by the agent: the children that run phases

Each entry is [pid, start]: a pid that the kernel has given to another process is left alone.
"""

import contextlib
import json
import logging
import os
import secrets
import signal
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import psutil

from ftq_shared.processes import children_of
from ftq_worker.host.linux import start_ticks

log = logging.getLogger(__name__)

GONE_S = 5.0  # a killed process that is still there after so long hangs in the kernel
FRESH_S = 0.3  # between a process's start and its entry in the list


def save_pids(path: Path, pids: Iterable[int]) -> None:
    """Replace the list in `path`; processes that have ended are left out.

    A list that cannot be written is removed: by an old list, a process that was started since
    would be killed as a leftover.
    """
    entries = [[pid, start] for pid in pids if (start := start_ticks(pid)) is not None]
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        part.write_text(json.dumps(entries))
        part.replace(path)
    except OSError as error:
        log.warning("%s: %s", path, error, extra={"action": "pids_not_saved"})
        for file in (part, path):
            file.unlink(missing_ok=True)


def load_pids(path: Path) -> set[int] | None:
    """Return the processes of a list that still run; None when there is no list to read."""
    try:
        entries = json.loads(path.read_text())
        return {int(pid) for pid, start in entries if start_ticks(int(pid)) == start}
    except (OSError, ValueError, TypeError) as error:
        log.debug("%s: %s", path, error, extra={"action": "pids_not_read"})
        return None


def kill_all(pids: Iterable[int]) -> None:
    """Kill processes with everything below them, and wait until they are gone."""
    doomed: list[psutil.Process] = []
    for pid in pids:
        try:
            process = psutil.Process(pid)
            doomed += [process, *process.children(recursive=True)]
        except psutil.NoSuchProcess:
            continue
    for process in doomed:
        try:
            process.send_signal(signal.SIGKILL)
        except psutil.NoSuchProcess:
            continue
    wait_gone([process.pid for process in doomed])


def wait_gone(pids: Iterable[int]) -> None:
    """Wait until processes have ended; zombies count as ended."""
    deadline = time.monotonic() + GONE_S
    left = set(pids)
    while left and time.monotonic() < deadline:
        left = {pid for pid in left if runs(pid)}
        time.sleep(0.01 if left else 0)
    if left:
        extra = {"action": "kill_failed", "pids": sorted(left)}
        log.error("processes %s do not die", sorted(left), extra=extra)


def session_of(leader: int) -> set[int]:
    """Return the processes of a session that still run, by its leader's pid."""
    found = set()
    for pid in psutil.pids():
        with contextlib.suppress(OSError):  # it has ended meanwhile
            if os.getsid(pid) == leader and runs(pid):
                found.add(pid)
    return found


@dataclass(frozen=True)
class Use:
    """What processes use together."""

    memory_bytes: int = 0  # resident and their own: pages of files can be dropped
    io_bytes: int = 0  # read and written so far


def use_of(pids: Iterable[int]) -> Use:
    """Return what processes use, with everything below them; what has ended uses nothing."""
    memory = io = 0
    for pid in [below for top in pids for below in tree_of(top)]:
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(pid)
            info = process.memory_info()
            memory += info.rss - getattr(info, "shared", 0)
            io += _io_bytes(process)
    return Use(memory, io)


def tree_of(pid: int) -> list[int]:
    """Return a process and all below it: cheap enough for every second."""
    return [pid, *(below for child in children_of(pid) for below in tree_of(child))]


def _io_bytes(process: psutil.Process) -> int:
    if not hasattr(process, "io_counters"):  # macOS
        return 0
    counters = process.io_counters()
    return int(counters.read_chars + counters.write_chars + counters.read_bytes)


def _belongs(pid: int, run_dir: Path) -> bool:
    try:
        environment = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:  # gone, or not ours to read and so not ours at all
        return False
    return os.fsencode(f'"{run_dir}"') in environment


def runs(pid: int) -> bool:
    """Return whether a process is there and no zombie."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


class PhaseProcesses:
    """The processes of all phases of a host, known to every run. Safe to use from any thread."""

    def __init__(self, supervisor: int, run_dir: Path) -> None:
        self._supervisor, self._run_dir = supervisor, run_dir
        self._lock = threading.Lock()
        self._started: dict[int, float | None] = {}  # by pid, in ticks since the boot

    def add(self, pid: int) -> None:
        """Write down a child that was started."""
        with self._lock:
            self._started[pid] = start_ticks(pid)
            self._save()

    def _save(self) -> None:
        """Write the list; a pid that the kernel has given to somebody else since is struck out."""
        self._started = {p: start for p, start in self._started.items() if start_ticks(p) == start}
        save_pids(self._run_dir / "phases.json", self._started)

    def remove(self, pids: Iterable[int]) -> None:
        """Strike out children that have ended, and kill what phases have left behind.

        Their orphans fall to the supervisor, the next subreaper: every child of it that is neither
        its own nor a phase is one. The phases of a zygote that died fall to it too: they go on.
        """
        with self._lock:
            for pid in pids:
                self._started.pop(pid, None)
            self._save()
        if orphans := self._orphans():
            # One that the supervisor has started a moment ago may not be written down yet.
            time.sleep(FRESH_S)
            orphans &= self._orphans()
        if orphans:
            extra = {"action": "orphans_killed", "pids": sorted(orphans)}
            log.warning("killing what a phase left behind: %s", sorted(orphans), extra=extra)
            kill_all(orphans)

    def _orphans(self) -> set[int]:
        own = load_pids(self._run_dir / "processes.json")
        if own is None:  # without that list, the supervisor's own processes would be orphans too
            return set()
        with self._lock:
            known = {os.getpid(), *self._started, *own}
        return {pid for pid in children_of(self._supervisor) if pid not in known and runs(pid)}


def kill_leftovers(run_dir: Path) -> None:
    """Kill what is left of a worker whose supervisor has died.

    What a phase had left behind fell to init then, and is written down nowhere: it is known by
    its environment, which names the folder.
    """
    lists = [load_pids(run_dir / name) for name in ("processes.json", "phases.json")]
    left = set().union(*(pids for pids in lists if pids))
    left |= {pid for pid in psutil.pids() if pid != os.getpid() and _belongs(pid, run_dir)}
    if left:
        extra = {"action": "leftovers_killed", "pids": sorted(left)}
        log.warning("killing what a dead supervisor has left: %s", sorted(left), extra=extra)
        kill_all(left)
