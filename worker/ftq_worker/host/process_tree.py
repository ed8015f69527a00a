"""Which processes belong to one worker, written down so that others can end them.

run_dir/processes.json   the guard's own: agent, Celery, zygote
run_dir/phases.json      the agent's: the children that run phases

Each entry is [pid, start], so that a pid that the kernel has given to somebody else is left alone.
"""

import json
import logging
import os
import secrets
import signal
import time
from collections.abc import Iterable
from pathlib import Path

import psutil

from ftq_worker.host.linux import start_ticks

log = logging.getLogger("ftq.guard")

GONE_S = 5.0  # a killed process that is still there after so long hangs in the kernel
FRESH_S = 0.3  # between a start and the note of it


def note(path: Path, pids: Iterable[int]) -> None:
    """Replace the list in `path`; of processes that have ended nothing is written.

    A list that cannot be written is removed: who reads an old one takes what was started since for
    a stranger.
    """
    entries = [[pid, start] for pid in pids if (start := start_ticks(pid)) is not None]
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        part.write_text(json.dumps(entries))
        part.replace(path)
    except OSError as error:
        log.warning("%s: %s", path, error)
        for file in (part, path):
            file.unlink(missing_ok=True)


def noted(path: Path) -> set[int] | None:
    """Return the processes of a list that still run; None when there is no list to read."""
    try:
        entries = json.loads(path.read_text())
        return {int(pid) for pid, start in entries if start_ticks(int(pid)) == start}
    except (OSError, ValueError, TypeError) as error:
        log.debug("%s: %s", path, error)
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
        log.error("processes %s do not die", sorted(left))


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


def children_of(pid: int) -> list[int]:
    """Return the direct children of a process of ours; Linux only."""
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except FileNotFoundError:
        return []
    return [int(child) for child in text.split()]


class Orphans:
    """Ends what dead phases have left: it falls to the guard, their next subreaper."""

    def __init__(self, guard: int, run_dir: Path) -> None:
        self._guard, self._run_dir = guard, run_dir

    def end(self, phases: Iterable[int]) -> None:
        """Kill every child of the guard that is neither its own nor one of the `phases`.

        When the zygote dies, the phases it forked fall to the guard too: they go on.
        """
        if strangers := self._strangers(phases):
            # One that the guard has started a moment ago may not be written down yet.
            time.sleep(FRESH_S)
            strangers &= self._strangers(phases)
        if strangers:
            log.warning("ending what a phase left behind: %s", sorted(strangers))
            kill_all(strangers)

    def _strangers(self, phases: Iterable[int]) -> set[int]:
        own = noted(self._run_dir / "processes.json")
        if own is None:  # without the guard's word, its own processes would be strangers too
            return set()
        known = {os.getpid(), *phases} | own
        return {pid for pid in children_of(self._guard) if pid not in known and runs(pid)}


def end_family(run_dir: Path) -> None:
    """Kill what is left of a worker whose guard has died.

    What a phase has left behind fell to init then, and is written down nowhere: it is known by
    its environment, which names the folder.
    """
    lists = [noted(run_dir / name) for name in ("processes.json", "phases.json")]
    left = set().union(*(pids for pids in lists if pids))
    left |= {pid for pid in psutil.pids() if pid != os.getpid() and _belongs(pid, run_dir)}
    if left:
        log.warning("ending processes that a dead guard has left: %s", sorted(left))
        kill_all(left)
