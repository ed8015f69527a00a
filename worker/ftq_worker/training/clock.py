"""Where the time of a run goes: steps, evaluations and saves apart, and when it will end."""

import statistics
import time
from collections import deque
from collections.abc import Callable

RECENT_STEPS = 50  # steps that speed and ETA look at


class RunClock:
    """Measures by laps: each lap is the time since the last one, given to one kind of work.

    So everything between two laps is counted once, and a pause is taken out of the lap it fell in.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self.now = now
        self._mark = now()
        self.started = self._mark
        self._steps: deque[float] = deque(maxlen=RECENT_STEPS)
        self._tokens: deque[float] = deque(maxlen=RECENT_STEPS)
        self._evals: deque[float] = deque(maxlen=RECENT_STEPS)
        self._saves: deque[float] = deque(maxlen=RECENT_STEPS)

    def start(self) -> None:
        """Begin anew: what came before (loading, scoring) belongs to no step."""
        self._mark = self.started = self.now()

    def skip(self, seconds: float) -> None:
        """Take a pause out of the current lap."""
        self._mark += seconds

    def step(self, tokens: float) -> float:
        """End a step that trained on `tokens` tokens without padding; return its seconds."""
        seconds = self._lap()
        self._steps.append(seconds)
        self._tokens.append(tokens)
        return seconds

    def evaluated(self) -> float:
        """End an evaluation; return its seconds."""
        self._evals.append(self._lap())
        return self._evals[-1]

    def kept_best(self) -> None:
        """Count the time since the evaluation's end to it: its weights were written."""
        self._evals[-1] += self._lap()

    def saved(self) -> float:
        """End a save; return its seconds."""
        self._saves.append(self._lap())
        return self._saves[-1]

    def lap_s(self) -> float:
        """Return the seconds of the lap so far."""
        return self.now() - self._mark

    @property
    def measured(self) -> int:
        """The recent steps that the figures below rest on, at most RECENT_STEPS."""
        return len(self._steps)

    def elapsed_s(self) -> float:
        """Return the seconds since the start, pauses included."""
        return self.now() - self.started

    def step_s(self) -> float:
        """Return the median of the recent steps, in seconds; 0.0 before the first."""
        return statistics.median(self._steps) if self._steps else 0.0

    def tokens_per_s(self) -> float:
        """Return the tokens per second of the recent steps."""
        return sum(self._tokens) / max(sum(self._steps), 1e-9)

    def eta_s(self, steps_left: int, evals_left: int, saves_left: int) -> float:
        """Return the seconds until the end, evaluations and saves counted at their own pace."""
        evals = statistics.median(self._evals) if self._evals else 0.0
        saves = statistics.median(self._saves) if self._saves else 0.0
        return steps_left * self.step_s() + evals_left * evals + saves_left * saves

    def _lap(self) -> float:
        now = self.now()
        seconds, self._mark = max(now - self._mark, 0.0), now
        return seconds
