"""What happens at a step boundary: stop, pause, save, keep the best, end early.

All decisions are made here and only here; the trainer's own save and best-model strategies are
off, because they cannot save by time, lose the best path when a job moves to a new attempt's
folder, and overwrite a requested save at an evaluation step.
"""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ftq_shared.events import EventType
from ftq_worker.job.context import PhaseContext
from ftq_worker.training import checkpoints
from ftq_worker.training.auto_rules import SAVE_EVERY_MIN_S, save_every_s
from ftq_worker.training.best import best_step, evaluations, is_over, why_early
from ftq_worker.training.best_weights import BestWeights
from ftq_worker.training.checkpoints import RunFigures
from ftq_worker.training.clock import RunClock
from ftq_worker.training.packed_steps import PackedOrder
from ftq_worker.training.sampling import LengthGroupedOrder
from ftq_worker.training.settings import TrainSettings


class FlowCallback(TrainerCallback):  # type: ignore[misc]  # transformers has no types
    """Stops, pauses and saves between steps; what it saves makes an exact resume possible."""

    def __init__(self, ctx: PhaseContext, settings: TrainSettings, clock: RunClock) -> None:
        self._ctx, self._settings, self._clock = ctx, settings, clock
        self._save_every_s = settings.save_every_s
        self._saved_at = clock.now()
        self._step = 0
        self._figures: Callable[[], RunFigures] = RunFigures
        self._order: LengthGroupedOrder | PackedOrder | None = None
        self._best = BestWeights(ctx)
        self._write_weights: Callable[[Path], None] = Path.mkdir

    def connect(
        self,
        figures: Callable[[], RunFigures],
        order: LengthGroupedOrder | PackedOrder,
        write_weights: Callable[[Path], None],
    ) -> None:
        """Set what a checkpoint holds beside the trainer's files, the rows' order, what writes."""
        self._figures, self._order, self._write_weights = figures, order, write_weights

    def saves_left(self) -> int:
        """Return about how many saves are still to come, the last one included."""
        left = self._settings.steps - self._step
        if every := self._settings.save_every_steps:
            return max(1, left // every)
        interval = self._save_every_s or SAVE_EVERY_MIN_S
        return 1 + int(left * self._clock.step_s() / interval)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Start the time to the first save, and say that the first step has begun."""
        self._saved_at, self._step = self._clock.now(), state.global_step
        if self._step < self._settings.steps:
            self._ctx.doing(f"step {self._step + 1} of {self._settings.steps}")

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Tell the order of the rows which epoch this is, also after a resume within it."""
        if self._order:
            self._order.epoch = state.global_step // self._settings.steps_per_epoch

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Wait while paused; stop with a checkpoint when asked to; save when it is time."""
        self._step = state.global_step
        self._best.seal(wait=False)
        wishes = self._stop_requested(), self._save_is_due(state.global_step)
        stop, save = agreed(self._settings, *wishes)
        if stop:
            control.should_training_stop = True
        if state.global_step >= self._settings.steps:
            self._save_the_end(args, control)
        elif stop or save:
            control.should_save = True

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Say that a save comes next: the trainer makes it after the step's log."""
        if control.should_save:
            self._ctx.doing(f"save the checkpoint of step {state.global_step}")

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Keep the best so far, and end a run that has stopped getting better."""
        if not math.isfinite(evaluations(state)[-1]["eval_loss"]):
            return  # EventCallback ends the run; broken weights are not kept
        if is_over(state, self._settings):
            control.should_training_stop = True
            self._save_the_end(args, control)
            if state.global_step < self._settings.steps and self._ctx.devices.rank == 0:
                self._ctx.emit(
                    EventType.GUARD,
                    name="early_stopping",
                    message=why_early(state),
                    action="training ends here; the best model is kept",
                )
        if best_step(state) == state.global_step and not control.should_save:
            self._ctx.doing(f"keep the weights of step {state.global_step}, the best so far")
            self._best.keep(state.global_step, self._write_weights)
            self._clock.kept_best()
        self.on_log(args, state, control)

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Seal what the trainer has written and make it the job's checkpoint."""
        if self._settings.world_size > 1:
            torch.distributed.barrier()  # every rank has written its part
        if self._ctx.devices.rank == 0:
            self._seal(state)
        self._resolve_interval(self._clock.saved())
        self._saved_at = self._clock.now()

    def _save_the_end(self, args: TrainingArguments, control: TrainerControl) -> None:
        """Save what is only loaded again: no step needs the optimizer any more."""
        control.should_save = True
        # transformers writes the weights of a sharded model together with the optimizer's state.
        args.save_only_model = not self._settings.sharded

    def _seal(self, state: TrainerState) -> None:
        ctx = self._ctx
        self._best.seal()  # this checkpoint names it
        best = best_step(state)
        part = checkpoints.part_folder(ctx.paths, ctx.claim)
        ctx.owner.flush_events()  # the next owner resumes behind these steps
        done = checkpoints.seal(
            part / f"checkpoint-{state.global_step}",
            step=state.global_step,
            token=ctx.token_number,
            data=checkpoints.data_id(ctx.paths),
            facts={**self._figures(), "best_step": best},
        )
        ctx.owner.check_lease()  # a stale owner may not name the job's newest checkpoint
        checkpoints.switch(ctx.paths, done, best)
        checkpoints.prune(ctx.paths, ctx.token_number, best, ctx.fresh_after)
        checkpoints.prune_weights(ctx.paths, best, range(ctx.token_number + 1))
        ctx.emit(
            EventType.CHECKPOINT,
            step=state.global_step,
            path=done.path.relative_to(ctx.paths.root).as_posix(),
            bytes=done.bytes,
            seconds=round(self._clock.lap_s(), 3),
            best=best == state.global_step,
        )

    def _resolve_interval(self, save_s: float) -> None:
        """Work out `save_every: auto` from the first save."""
        if self._settings.save_every_steps or self._save_every_s:
            return
        interval = save_every_s(save_s)
        self._save_every_s = interval.value
        if self._ctx.devices.rank == 0:
            self._ctx.resolve("train.save_every", f"{interval.value:g}s", interval.reason)

    def _stop_requested(self) -> bool:
        start = self._clock.now()
        stop = self._ctx.control.stop_requested()
        self._clock.skip(self._clock.now() - start)  # a pause is no step time
        return stop

    def _save_is_due(self, step: int) -> bool:
        if every := self._settings.save_every_steps:
            return step % every == 0
        return self._clock.now() - self._saved_at >= (self._save_every_s or SAVE_EVERY_MIN_S)


def agreed(settings: TrainSettings, *wishes: bool) -> list[bool]:
    """Return what all ranks do: they see clocks and pipes differ, so one rank's wish counts."""
    if settings.world_size == 1:
        return list(wishes)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    every = torch.tensor(wishes, dtype=torch.int32, device=device)
    torch.distributed.all_reduce(every, op=torch.distributed.ReduceOp.MAX)
    return [bool(wish) for wish in every.tolist()]
