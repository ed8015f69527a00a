"""Progress events, a few per second however fast the work is."""

import time
from collections.abc import Callable

from ftq_shared.events import EventType
from ftq_worker.job.context import Control, Emit

PERIOD_S = 0.2  # five a second are as many as an eye follows


class Progress:
    """Counts one piece of work; every `advance` is also a safe point to stop at.

    The last event always carries the final count, so nothing ends at 97 %. Work that is done
    within `after_s` seconds is not told of at all.
    """

    def __init__(
        self,
        emit: Emit,
        control: Control,
        task: str,
        unit: str,
        total: int | None = None,
        clock: Callable[[], float] = time.monotonic,
        after_s: float = 0.0,
    ) -> None:
        self._emit, self.control = emit, control
        self._task, self._unit, self._total = task, unit, total
        self._clock = clock
        self._after_s = after_s
        self._sent_at = clock() + after_s - PERIOD_S
        self._sent: int | None = None
        self.done = 0

    def advance(self, units: int = 1) -> None:
        """Count `units` more; raises what Control.check raises when the phase must stop."""
        self.control.check()
        self.done += units
        if self._clock() - self._sent_at >= PERIOD_S:
            self._send()

    def at(self, done: int) -> None:
        """Set the count, for work that may begin a part again."""
        self.advance(done - self.done)

    def finish(self) -> None:
        unknown, self._total = self._total is None, self._total or self.done
        if (unknown or self._sent != self.done) and (self._sent is not None or not self._after_s):
            self._send()

    def _send(self) -> None:
        self._sent_at, self._sent = self._clock(), self.done
        self._emit(
            EventType.PROGRESS,
            task=self._task,
            done=self.done,
            unit=self._unit,
            total=self._total,
        )
