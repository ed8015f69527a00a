"""The leash: a tiny process above a phase, which ends it when the lease of its job ends.

    agent --- control pipe ---> leash --- the same lines ---> phase

The kernel's timer stands on the leash, and only the leash's own idle interpreter sets it anew: a
library that holds the phase's interpreter for minutes neither delays a renewal nor the end. When
the leash dies, of its timer or otherwise, the kernel kills the phase (PR_SET_PDEATHSIG, prctl(2)).
"""

import os
import resource
import select
import signal
import time
from collections.abc import Callable

from ftq_shared.lifetimes import CHILD_S
from ftq_shared.processes import become_subreaper
from ftq_shared.signals import Wakeup
from ftq_worker.host.linux import die_first, end_with_parent
from ftq_worker.host.messages import LeaseTimes, read_control
from ftq_worker.host.wire import LineReader


def run_on_leash(control: int, events: int, phase: Callable[[int, int], int]) -> int:
    """Run `phase(control, events)` in a process below this one, which becomes its leash.

    Returns the exit code; a phase that dies of a signal takes the leash with it. Call it with one
    thread.
    """
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, CHILD_S)
    become_subreaper()  # what the phase leaves behind stays below
    die_first()
    read, write = os.pipe()
    leash = os.getpid()
    if (pid := os.fork()) == 0:
        os.close(control)
        os.close(write)
        end_with_parent(leash, signal.SIGKILL)
        become_subreaper()
        return phase(read, events)
    os.close(read)
    os.close(events)
    return _end_like(_Leash(pid, control, write).hold())


class _Leash:
    """Passes lines on and keeps the timer."""

    def __init__(self, pid: int, control: int, phase: int) -> None:
        self._pid, self._phase = pid, phase
        self._reader = LineReader(control)
        self._unsent: list[bytes] = []
        os.set_blocking(phase, False)

    def hold(self) -> int:
        """Keep the phase until it ends; returns its wait status."""
        wakeup = Wakeup((), children=True)
        poll = select.poll()
        poll.register(self._reader.fd, select.POLLIN)
        poll.register(wakeup.fd, select.POLLIN)
        while True:
            pid, status = os.waitpid(self._pid, os.WNOHANG)
            if pid:
                return status
            poll.poll(100 if self._unsent else None)
            wakeup.clear()
            for line in self._reader.read():
                self._take(line)
            self._send()
            if not self._reader.open:
                # Only the agent holds the other end: it is dead, and somebody else may soon own
                # the job.
                os.killpg(0, signal.SIGKILL)

    def _take(self, line: bytes) -> None:
        """Take a line of the agent's; of leases that the phase has not read, only the newest."""
        if isinstance(lease := read_control(line), LeaseTimes):
            # 0 would turn the timer off: a lease that came too late ends us at once.
            left_s = max(0.001, lease.until - time.monotonic())
            signal.setitimer(signal.ITIMER_REAL, left_s)
            unsent = self._unsent[1:]  # the first may be half sent
            self._unsent[1:] = [one for one in unsent if not one.startswith(b'{"lease"')]
        self._unsent.append(line + b"\n")

    def _send(self) -> None:
        """Pass on as much as the pipe takes; a phase that is busy reads it later."""
        while self._unsent:
            try:
                sent = os.write(self._phase, self._unsent[0])
            except BlockingIOError:
                return
            except BrokenPipeError:  # the phase is ending
                self._unsent.clear()
                return
            self._unsent[0] = self._unsent[0][sent:]
            if not self._unsent[0]:
                del self._unsent[0]


def _end_like(status: int) -> int:
    """End as the phase did: by the same signal, or by returning the same exit code."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # one core dump is enough
        if number != signal.SIGKILL:
            signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    return os.waitstatus_to_exitcode(status)
