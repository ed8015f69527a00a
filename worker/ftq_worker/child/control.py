"""A phase's end of its two pipes: what its agent says, and a way to ask it.

Which messages travel is in `ftq_worker.host.messages`.
"""

import os
import queue
import signal
import threading
import time
from collections.abc import Callable
from typing import assert_never

from ftq_shared.errors import Stale
from ftq_shared.lifetimes import PAUSE_S
from ftq_shared.signals import readable
from ftq_worker.host.messages import (
    Answer,
    LeaseTimes,
    Question,
    Secrets,
    Stop,
    read_control,
    report_line,
)
from ftq_worker.host.wire import LineReader
from ftq_worker.job.context import Control


class AgentListener:
    """Passes on what the agent says, and pauses the phase before its lease may be over.

    What ends it then is its leash.
    """

    def __init__(self, fd: int, control: Control) -> None:
        self._reader = LineReader(fd)
        self._control = control
        control.pause_at = time.monotonic() + PAUSE_S
        self.secrets: dict[str, str] = {}
        self._secrets_came = threading.Event()
        self.answers: queue.Queue[Answer] = queue.Queue()

    def start(self) -> None:
        """Begin to listen; returns once the secrets are here."""
        threading.Thread(target=self._listen, name="agent listener", daemon=True).start()
        self._secrets_came.wait()

    def _listen(self) -> None:
        """Read control messages; pause when the lease may soon be somebody else's."""
        while True:
            patience_s = self._control.pause_at - time.monotonic()
            if patience_s <= 0:
                self._control.pause()
            ready = readable(self._reader.fd, max(0.0, patience_s) or None)
            for line in self._reader.read() if ready else ():
                self._handle(line)
            if not self._reader.open:
                os.killpg(0, signal.SIGKILL)  # the leash is dead

    def _handle(self, line: bytes) -> None:
        match read_control(line):
            case Secrets(values):
                self.secrets = values
                self._secrets_came.set()
            case LeaseTimes() as lease:
                self._extend(lease)
            case Answer() as answer:
                self.answers.put(answer)
            case Stop(reason):
                self._control.stop(reason)
            case never:
                assert_never(never)

    def _extend(self, lease: LeaseTimes) -> None:
        self._control.pause_at = lease.pause_at
        if lease.pause_at > time.monotonic():
            self._control.resume()


class AgentLink:
    """What a phase asks of its agent, over the two pipes: the `Owner` of a phase in a fleet."""

    def __init__(self, send: Callable[[bytes], None], answers: "queue.Queue[Answer]") -> None:
        self._send, self._answers = send, answers
        self._one_at_a_time = threading.Lock()

    def flush_events(self) -> None:
        """Wait until the agent has written down every event that was emitted so far."""
        self._ask(Question("written"))

    def check_lease(self) -> None:
        """Wait until the broker has confirmed the claim just now. Raises Stale."""
        self._ask(Question("confirm"))

    def try_lock(self, what: str) -> str:
        """Try to take a lock; '' when it is ours, else the job that has it. Raises Stale."""
        return self._ask(Question("lock", what)).owner

    def _ask(self, question: Question) -> Answer:
        with self._one_at_a_time:
            self._send(report_line(question))
            answer = self._answers.get()
        if answer.status == "stale":
            raise Stale("somebody else owns this job now, or nobody")
        return answer
