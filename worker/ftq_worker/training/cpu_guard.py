"""Does a run that came to the CPU only because the fleet has no GPU end in reasonable time?"""

from collections.abc import Callable
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ftq_shared.errors import Refused
from ftq_shared.events import EventType
from ftq_worker.job.auto import auto_rule
from ftq_worker.job.context import Emit
from ftq_worker.training.clock import RunClock

MEASURED_STEPS = 5  # the first steps are slower than the rest; a median of five is not
LIMIT_S = 1_800.0  # a run that takes longer has to be asked for


@auto_rule(  # the dispatcher's plan (dispatch/policy.py) gives the GPU, this is the limit
    "resources.gpus",
    "1; when no host that is online has a GPU: the CPU, refused after the first steps if training"
    f" would take more than {LIMIT_S / 60:.0f} minutes",
)
class CpuGuard(TrainerCallback):  # type: ignore[misc]  # transformers has no types
    """Looks once, after the first steps, and stops a run that is predicted to take too long.

    Comes after the callback that ends a step on the clock; `eta_s` tells what is left at a step.
    """

    def __init__(self, emit: Emit, clock: RunClock, eta_s: Callable[[int], float]) -> None:
        self._emit, self._clock, self._eta_s = emit, clock, eta_s
        self._looked = False
        self.failure: Refused | None = None

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Predict the run's end as soon as enough steps are measured."""
        if self._looked or self._clock.measured < MEASURED_STEPS:
            return
        self._looked = True
        left_s = self._eta_s(state.global_step)
        total_s = self._clock.elapsed_s() + left_s
        if left_s and total_s > LIMIT_S:
            self._refuse(total_s)
            control.should_training_stop = True
            control.should_evaluate = control.should_save = False

    def _refuse(self, total_s: float) -> None:
        message = (
            f"training would take about {_words(total_s)} on the CPU, at"
            f" {self._clock.step_s():.1f} s a step; without a GPU in the fleet, `gpus: auto` allows"
            f" {LIMIT_S / 60:.0f} minutes"
        )
        self._emit(
            EventType.GUARD,
            name="too_slow_on_cpu",
            message=message,
            action="training was stopped",
        )
        self.failure = Refused(
            message,
            code="too_slow_on_cpu",
            hint="start `ftq worker` on a host with a GPU and `ftq retry` the job; or submit again"
            " with --gpus 0 to train on the CPU all the same, or with fewer rows (data.max_rows)"
            " or epochs",
            field="resources.gpus",
        )


def _words(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes} minutes" if minutes < 120 else f"{minutes / 60:.1f} hours"
