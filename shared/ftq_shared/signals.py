"""Waiting for signals without losing one, and without a lock that a handler could wait for."""

import contextlib
import select
import signal
import socket
from collections.abc import Iterable


class Wakeup:
    """Wakes the main thread at every signal that has a handler; `children`: at their deaths too.

    Not a threading.Event: a handler that sets one while its own thread holds the event's lock
    waits for ever. Make one per process, in the main thread.
    """

    def __init__(self, stopping: Iterable[signal.Signals], *, children: bool) -> None:
        self.stop = False  # whether one of `stopping` came
        self._wake, write = socket.socketpair()
        self._wake.setblocking(False)
        write.setblocking(False)
        signal.set_wakeup_fd(write.detach(), warn_on_full_buffer=False)
        if children:
            signal.signal(signal.SIGCHLD, lambda *_: None)
        for signum in stopping:
            signal.signal(signum, self._ask_to_stop)

    def _ask_to_stop(self, *_: object) -> None:
        self.stop = True

    @property
    def fd(self) -> int:
        """Readable once a signal has come, for who waits for more than signals."""
        return self._wake.fileno()

    def clear(self) -> None:
        """Take note of all signals so far."""
        with contextlib.suppress(BlockingIOError):
            self._wake.recv(4096)

    def wait(self, seconds: float) -> bool:
        """Wait for a signal; return whether it is time to stop."""
        if not self.stop and readable(self.fd, seconds):
            self.clear()
        return self.stop


def readable(fd: int, seconds: float | None) -> bool:
    """Wait until `fd` is readable, or at its end; False when time is over.

    By poll(2): select(2) takes no descriptor above 1023, and a host with many phases has more.
    """
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(None if seconds is None else 1000 * seconds))
