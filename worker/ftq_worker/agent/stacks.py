"""What a phase's processes are at: their states from the kernel, and the stacks of their threads.

A phase dumps its stacks on SIGUSR1 into what it prints (faulthandler). That needs no interpreter,
so it also shows one that a library holds.
"""

import os
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from ftq_shared.processes import children_of
from ftq_worker.agent.child import Child

DUMP_S = 1.0  # a dump takes milliseconds
LINES = 60  # of all ranks
STATES = {"T": "stopped by a signal", "D": "waits in the kernel", "Z": "has ended"}


def stacks_of(children: Sequence[Child], output: Path) -> list[str]:
    """Return lines that say what each rank is at; takes DUMP_S."""
    lines: list[str] = []
    for rank, child in enumerate(children):
        before = output.stat().st_size
        for pid in children_of(child.pid):  # the child is the phase's leash
            lines.append(f"rank {rank}: process {pid} {_state(pid)}")
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGUSR1)
        time.sleep(DUMP_S)
        with output.open("rb") as file:
            file.seek(before)
            lines += file.read(1 << 16).decode(errors="replace").splitlines()
    return lines[:LINES]


def _state(pid: int) -> str:
    """Return what the kernel says that a process does."""
    try:
        letter = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "is gone"
    return STATES.get(letter, "runs or sleeps")
