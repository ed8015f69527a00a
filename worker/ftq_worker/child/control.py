"""The child's end of its two pipes: a leash that holds it, and a line to ask its agent by.

Down the control pipe come {"secrets"}, {"lease": {"until", "pause_at"}} (seconds on the monotonic
clock, which all processes of a host share), {"stop": reason} and {"answer"}. Up the event pipe goes
{"ask"} between the events.
"""

import json
import os
import queue
import select
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

from ftq_shared.errors import Stale
from ftq_shared.keys import CHILD_S, PAUSE_S
from ftq_worker.host.wire import LineReader, to_line
from ftq_worker.job.context import Control, StopReason


class Leash:
    """Keeps the child alive while its agent renews the lease, and passes on what it is told."""

    def __init__(self, fd: int, control: Control) -> None:
        self._reader = LineReader(fd)
        self._control = control
        self._pause_at = time.monotonic() + PAUSE_S
        self.secrets: dict[str, str] = {}
        self._secrets_came = threading.Event()
        self.answers: queue.Queue[dict[str, Any]] = queue.Queue()

    def hold(self) -> None:
        """Arm the kernel's timer and begin to listen; returns once the secrets are here."""
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, CHILD_S)
        threading.Thread(target=self._listen, name="leash", daemon=True).start()
        self._secrets_came.wait()

    def _listen(self) -> None:
        """Read control lines; pause when the lease may soon be somebody else's."""
        while True:
            patience_s = self._pause_at - time.monotonic()
            if patience_s <= 0:
                self._control.pause()
            ready, _, _ = select.select([self._reader.fd], [], [], max(0.0, patience_s) or None)
            for line in self._reader.read() if ready else ():
                self._obey(json.loads(line))
            if not self._reader.open:
                # Only the agent holds the other end: it is dead, and somebody else may soon
                # own the job.
                os.killpg(0, signal.SIGKILL)

    def _obey(self, message: dict[str, Any]) -> None:
        """Carry out one control line."""
        if "secrets" in message:
            self.secrets = message["secrets"]
            self._secrets_came.set()
        if "lease" in message:
            self._hold_until(**message["lease"])
        if "answer" in message:
            self.answers.put(message["answer"])
        if "stop" in message:
            self._control.stop(StopReason(message["stop"]))

    def _hold_until(self, until: float, pause_at: float) -> None:
        """Take a renewed lease: both times are on the clock that all processes of a host share."""
        now = time.monotonic()
        # 0 would turn the timer off: a lease that came too late ends us at once.
        signal.setitimer(signal.ITIMER_REAL, max(0.001, until - now))
        self._pause_at = pause_at
        if pause_at > now:
            self._control.resume()


class Lifeline:
    """What a phase asks of its agent, over the two pipes: the `Owner` of a phase in a fleet."""

    def __init__(self, send: Callable[[bytes], None], leash: Leash) -> None:
        self._send, self._leash = send, leash
        self._one_at_a_time = threading.Lock()

    def flush_events(self) -> None:
        """Wait until the agent has written down every event that was told so far."""
        self._ask({"ask": "written"})

    def check_lease(self) -> None:
        """Wait until the broker has confirmed the claim just now. Raises Stale."""
        self._ask({"ask": "confirm"})

    def try_lock(self, what: str) -> str:
        """Try to take a lock; '' when it is ours, else the job that has it. Raises Stale."""
        return str(self._ask({"ask": "lock", "what": what})["owner"])

    def _ask(self, question: dict[str, str]) -> dict[str, Any]:
        with self._one_at_a_time:
            self._send(to_line(question))
            answer = self._leash.answers.get()
        if answer["status"] == "stale":
            raise Stale("somebody else owns this job now, or nobody")
        return answer
