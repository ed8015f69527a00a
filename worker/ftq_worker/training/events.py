"""The trainer's callback that emits every step and evaluation, and stops when they diverge.

Facts about the trainer that this rests on (transformers 5.23, TRL 1.16; tests hold them):
`on_step_end` comes before that step's `on_log`, so a step is reported from `on_log`; evaluation
logs share the step's number and have `eval_` names; the last log is a mean over the whole run
(`train_loss`) and is not a step. Logging every step costs one synchronisation with the device,
which the loss needs anyway; nothing here adds another.
"""

import math
from collections.abc import Callable
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ftq_shared.events import EventType
from ftq_worker.job.context import Emit
from ftq_worker.training.best import best_step
from ftq_worker.training.clock import RunClock
from ftq_worker.training.divergence import STAYS, Diverged, LossWatch
from ftq_worker.training.scoring import rounded
from ftq_worker.training.settings import TrainSettings

FP16_BAD_NORMS = 20  # gradient overflows in a row that fp16's loss scaling may need to recover

EVAL_FIELDS = (
    "loss",
    "loss_low",
    "loss_high",
    "accuracy",
    "accuracy_low",
    "accuracy_high",
    "f1_macro",
    "tokens_accuracy",
    "gain",
    "gain_low",
    "rows",
    "seconds",
)


class EventCallback(TrainerCallback):  # type: ignore[misc]  # transformers has no types
    """Emits `step` and `eval`, and stops a run that has diverged; see `divergence`."""

    def __init__(
        self, emit: Emit, settings: TrainSettings, clock: RunClock, saves_left: Callable[[], int]
    ) -> None:
        self._emit, self._settings, self._clock = emit, settings, clock
        self._saves_left = saves_left
        self._tokens_seen = 0.0
        self.bad_norms = 0  # steps in a row
        self.last_loss: float | None = None
        self.watch = LossWatch()
        self.failure: Diverged | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Begin the clock: loading and scoring before this belong to no step."""
        # A resumed state goes on counting where it was; TRL's counter starts at 0 again.
        self._tokens_seen = 0.0 if self._counts_from_zero else float(state.num_input_tokens_seen)
        self._clock.start()

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **_: Any,
    ) -> None:
        """Report a step; other logs (evaluations, the run's mean) are not steps."""
        if not logs or "loss" not in logs or "learning_rate" not in logs:
            return
        # Kept in memory and in every checkpoint otherwise: only evaluations are looked at later.
        state.log_history.pop()
        if self._emit_step(state, logs) or self.failure:
            self._stop(control)

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        self._clock.evaluated()
        scored = metrics or {}
        figures = {f: scored[f"eval_{f}"] for f in EVAL_FIELDS if f"eval_{f}" in scored}
        self._emit(
            EventType.EVAL,
            set="validation",
            when="during",
            step=state.global_step,
            best=best_step(state) == state.global_step,
            **rounded(figures),
        )
        if not math.isfinite(figures["loss"]):
            self._fail(f"the validation loss is {figures['loss']}", state.global_step)
            self._stop(control)

    @property
    def _counts_from_zero(self) -> bool:
        return self._settings.task != "classification"

    def _emit_step(self, state: TrainerState, logs: dict[str, Any]) -> bool:
        """Emit the event; return whether the run has diverged by its numbers."""
        step, settings, clock = state.global_step, self._settings, self._clock
        seen = float(logs.get("num_tokens", logs.get("num_input_tokens_seen", 0)))
        seconds = clock.step(seen - self._tokens_seen)
        self._tokens_seen = seen
        loss = logs["loss"]
        if loss is not None:
            self.last_loss = float(loss)
        step_s = clock.step_s()
        optional = {
            "grad_norm": logs.get("grad_norm") if loss is not None else None,
            "tokens_accuracy": logs.get("mean_token_accuracy") if loss is not None else None,
            "examples_per_s": settings.batch_size / step_s if step_s else None,
        }
        self._emit(
            EventType.STEP,
            step=step,
            steps=settings.steps,
            epoch=round(float(logs.get("epoch", state.epoch or 0.0)), 4),
            lr=logs["learning_rate"],
            step_s=round(seconds, 4),
            eta_s=round(self.eta_s(step), 1),
            tokens_per_s=round(clock.tokens_per_s(), 1),
            **(rounded({"loss": float(loss)}) if loss is not None else {"loss": None}),
            **rounded({k: float(v) for k, v in optional.items() if v is not None}),
        )
        if loss is None:  # all rows of the step are left out: it says nothing of the run
            return False
        return self._has_diverged(step, float(loss), logs.get("grad_norm"))

    def eta_s(self, step: int) -> float:
        """Return the seconds that are left after `step`; 0.0 at the last one."""
        left = self._settings.steps - step
        if not left:
            return 0.0
        every = self._settings.eval_every
        evals_left = math.ceil(self._settings.steps / every) - step // every if every else 0
        return self._clock.eta_s(left, evals_left, self._saves_left())

    def _has_diverged(self, step: int, loss: float, norm: float | None) -> bool:
        limit, leapt = self.watch.limit(), self.watch.leapt(loss)
        if not math.isfinite(loss):
            return self._fail(f"the loss is {loss}", step)
        if leapt:
            what = f"the loss of {STAYS} steps in a row is above {limit:.4g}; now it is {loss:.4g}"
            return self._fail(what, step, "diverged")
        if norm is None or math.isfinite(norm):
            self.bad_norms = 0
            return False
        self.bad_norms += 1
        if self._settings.precision == "fp16" and self.bad_norms < FP16_BAD_NORMS:
            return False  # loss scaling skips such a step and tries a smaller scale
        return self._fail(f"the gradient's norm is {norm}", step)

    def _fail(self, what: str, step: int, code: str = "nonfinite_loss") -> bool:
        onset = step - max(0, self.watch.above - 1)
        self.failure = Diverged(
            f"step {step}: {what}",
            code=code,
            hint=f"lower train.learning_rate (it is {self._settings.learning_rate:g}), or look at "
            f"the rows: `ftq replay JOB --step {onset}`; with fp16, try train.precision bf16 or"
            " fp32",
            step=step,
        )
        self.failure.onset = onset
        return True

    @staticmethod
    def _stop(control: TrainerControl) -> None:
        control.should_training_stop = True
        control.should_evaluate = control.should_save = False  # broken weights are not kept
