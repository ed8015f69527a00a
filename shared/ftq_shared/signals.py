"""Waiting for signals without losing one, and without a lock that a handler could wait for."""

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

    def wait(self, seconds: float) -> bool:
        """Wait for a signal; return whether it is time to stop."""
        if not self.stop and select.select([self._wake], [], [], seconds)[0]:
            self._wake.recv(4096)
        return self.stop
