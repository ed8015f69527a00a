"""When a training has diverged: a loss that is no number, or one that has leapt and stays.

A single step may leap for its rows alone, and most spikes pass by themselves; so a leap counts when
several steps in a row lie above all that came before. A step lies above when its loss exceeds the
largest of the recent ones, and their median by more than six times their spread. The spread is that
of the differences from step to step, so that a loss which falls fast has no wide one (von Neumann
1941, "Distribution of the ratio of the mean square successive difference to the variance"), by the
median of their size, which stands up to outliers (Hampel 1974, "The influence curve and its role in
robust estimation", JASA 69).
What follows, an earlier checkpoint and a lower rate, is what OPT-175B was trained with (Zhang et
al. 2022, arXiv 2205.01068, section 2.5).

All that is looked at is part of every checkpoint, so a resumed run decides as an unbroken one does.
"""

import math
import statistics
from dataclasses import dataclass, field
from itertools import pairwise

from ftq_shared.errors import TrainingFailed

WINDOW = 50  # steps that a loss is compared with
FEWEST = 20  # before that many nothing is known of the spread
STAYS = 5  # steps in a row that make it no accident
SPREADS = 6.0
# Of a normal distribution, by the median size of the difference of two of its values.
SIGMA = 1.4826 / math.sqrt(2)
SMALLEST_LEAP = 0.2  # nats; a run that knows its rows by heart has next to no spread


class Diverged(TrainingFailed):
    """Raised when a run has diverged; checkpoints of `onset` and later steps are no good."""

    default_code = "diverged"
    onset: int = 0


@dataclass
class LossWatch:
    """Looks at the loss of each step; `recent` and `above` are what a resumed run needs."""

    recent: list[float] = field(default_factory=list)  # of the steps that did not lie above
    above: int = 0  # steps in a row

    def leapt(self, loss: float) -> bool:
        """Note the loss of a step, and return whether the run has diverged by it."""
        limit = self.limit()
        if not math.isfinite(loss) or (limit is not None and loss > limit):
            self.above += 1
            return self.above >= STAYS
        self.above = 0
        self.recent = [*self.recent[1 - WINDOW :], loss]
        return False

    def limit(self) -> float | None:
        """Return the loss above which a step lies; None while too few steps are known."""
        if len(self.recent) < FEWEST:
            return None
        spread = SIGMA * statistics.median(abs(b - a) for a, b in pairwise(self.recent))
        leap = max(SPREADS * spread, SMALLEST_LEAP)
        return max(*self.recent, statistics.median(self.recent) + leap)
