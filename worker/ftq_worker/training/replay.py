"""A recorded step, trained again as it was: its rows, what each of them weighs, and the numbers.

Nothing of the job is written to: what a replay saves on its way lies in its own folder.
"""

import math
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import (
    PreTrainedTokenizerBase,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from ftq_worker.job.context import Control, Interrupted, PhaseContext
from ftq_worker.job.prepared_sets import PreparedSets
from ftq_worker.job.progress import Progress
from ftq_worker.job.row_sources import RowSources
from ftq_worker.training import checkpoints
from ftq_worker.training.end_of_turn import IGNORED
from ftq_worker.training.flow import agreed
from ftq_worker.training.left_out import without
from ftq_worker.training.recovery import release
from ftq_worker.training.replay_plan import Leg, Plan
from ftq_worker.training.room import check_room
from ftq_worker.training.scoring import RowScore, scoring_order, with_fused_head
from ftq_worker.training.session import build_trainer, settle
from ftq_worker.training.settings import TrainSettings
from ftq_worker.training.trainers import FtqSFTTrainer, FtqTrainer


@dataclass(frozen=True)
class StepFigures:
    """What a trainer logs of a step."""

    loss: float | None  # None: all its rows are left out
    grad_norm: float | None
    learning_rate: float


@dataclass(frozen=True)
class RowFigures:
    """One row of the replayed step."""

    position: int  # in the training set
    tokens: int
    trained: int | None  # tokens; None for a classification
    loss: float  # its own mean, in nats
    grad_norm: float | None  # None where it was not computed


@dataclass
class Replayed:
    """What a replay has found."""

    steps: dict[int, StepFigures] = field(default_factory=dict)  # those on the way, and the step
    rows: list[RowFigures] = field(default_factory=list)  # the highest loss first


@dataclass(frozen=True)
class Material:
    """What a job was trained from."""

    base: Path
    tokenizer: PreTrainedTokenizerBase
    sets: PreparedSets
    labels: list[str]
    sources: RowSources | None


def repeat(ctx: PhaseContext, plan: Plan, material: Material) -> Replayed:
    """Train from the plan's start to its step, and stop there.

    Raises JobCancelled and Interrupted at a step's end, and what a trainer raises.
    """
    found, start = Replayed(), plan.start.path if plan.start else None
    rate = plan.start.facts.get("learning_rate") if plan.start else None
    # A stop is looked for at a step's end, by all ranks together.
    task = f"repeat steps to step {plan.step}"
    progress = Progress(ctx.emit, Control(), task, "steps", plan.repeated + 1)
    for number, leg in enumerate(plan.legs):
        is_last = number == len(plan.legs) - 1
        torch.set_num_threads(leg.run.cpu_threads)  # sums depend on it
        replaying = _Replaying(ctx, leg, plan.step if is_last else None, found, progress)
        trainer = _trainer(ctx, leg, material, replaying)
        trainer.saved_rate = rate
        trainer.train(resume_from_checkpoint=str(start) if start else None)
        ctx.control.check()
        if leg.until not in found.steps and leg.until > plan.after_step:
            raise Interrupted("another rank was asked to stop")
        folder = checkpoints.part_folder(ctx.paths, ctx.claim)
        start, rate = folder / f"checkpoint-{leg.until}", leg.run.settings.learning_rate
        del trainer, replaying  # their memory is free before the next one is built
        release()
    progress.finish()
    if ctx.devices.rank == 0:
        shutil.rmtree(checkpoints.part_folder(ctx.paths, ctx.claim), ignore_errors=True)
    return found


def _trainer(
    ctx: PhaseContext, leg: Leg, material: Material, replaying: "_Replaying"
) -> FtqSFTTrainer | FtqTrainer:
    """Return the trainer of a leg; evaluations change no weight and are left out."""
    sets = material.sets
    asked = replace(leg.run.settings, eval_every=None)
    settings, writer = settle(ctx, asked, material.base, sets.train["length"])
    gone = left_out_at(leg, material)
    trained = replace(sets, train=without(sets.train, gone))
    trainer = build_trainer(
        ctx,
        settings,
        writer,
        material.base,
        material.tokenizer,
        trained,
        material.labels,
        [replaying],
    )
    if gone:
        trainer.leave_out()
    trainer.before_save = partial(check_room, ctx)
    replaying.connect(trainer, settings, sets.train, gone)
    return trainer


def left_out_at(leg: Leg, material: Material) -> frozenset[int]:
    """Return the positions of the rows that a leg's run has left out."""
    if not leg.run.left_out or material.sources is None:
        return frozenset()
    found = material.sources.positions(leg.run.left_out).values()
    return frozenset(place for place in found if place is not None)


class _Replaying(TrainerCallback):  # type: ignore[misc]  # transformers has no types
    """Notes each step, looks at the rows of the one that is asked for, and stops behind it."""

    def __init__(
        self,
        ctx: PhaseContext,
        leg: Leg,
        step: int | None,
        found: Replayed,
        progress: Progress,
    ) -> None:
        self._ctx, self._leg, self._step, self._found = ctx, leg, step, found
        self._progress = progress
        self._trainer: FtqSFTTrainer | FtqTrainer
        self._settings: TrainSettings
        self._train: Dataset
        self._gone: frozenset[int]

    def connect(
        self,
        trainer: FtqSFTTrainer | FtqTrainer,
        settings: TrainSettings,
        train: Dataset,
        gone: frozenset[int],
    ) -> None:
        """Set whose steps these are; `train` is the whole set, `gone` what is left out of it."""
        self._trainer, self._settings, self._train, self._gone = trainer, settings, train, gone

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Tell the order of the rows which epoch this is, as in a training."""
        self._trainer.order.epoch = state.global_step // self._settings.steps_per_epoch

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Look at the rows with the weights that the step begins with; draw no random number."""
        if state.global_step + 1 == self._step:
            number = state.global_step % self._settings.steps_per_epoch
            rows = [r for r in self._trainer.order.rows_of(number) if r not in self._gone]
            if rows:
                self._found.rows = look_at_rows(self._ctx, self._trainer, self._train, rows)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Stop at the leg's last step; where another leg follows, with all that it needs."""
        (stop,) = agreed(self._settings, self._ctx.control.stop_requested())
        done = state.global_step >= self._leg.until
        if stop or done:
            control.should_training_stop = True
        if done and not stop and self._step is None:
            control.should_save = True

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, Any] | None = None,
        **_: Any,
    ) -> None:
        if not logs or "loss" not in logs or "learning_rate" not in logs:
            return
        loss, norm = logs["loss"], logs.get("grad_norm")
        self._found.steps[state.global_step] = StepFigures(
            None if loss is None else float(loss),
            None if norm is None or loss is None else float(norm),
            float(logs["learning_rate"]),
        )
        self._progress.advance()


def look_at_rows(
    ctx: PhaseContext, trainer: FtqSFTTrainer | FtqTrainer, train: Dataset, rows: Sequence[int]
) -> list[RowFigures]:
    """Return the figures of rows with the weights as they are, the highest loss first."""
    chosen = train.select(rows)
    scores: list[RowScore] = []
    trainer.score(chosen, lambda count: None, scores.extend)
    by_place = dict(zip(scoring_order(chosen), scores, strict=True))
    norms = dict(enumerate(_norms(ctx, trainer, chosen)))
    found = [
        RowFigures(
            position=row,
            tokens=int(chosen[place]["length"]),
            trained=_trained(chosen[place]),
            loss=by_place[place].loss / max(by_place[place].count, 1),
            grad_norm=norms.get(place),
        )
        for place, row in enumerate(rows)
    ]
    return sorted(found, key=lambda row: (-_order(row), row.position))


def _order(row: RowFigures) -> float:
    """Return what rows are sorted by: those whose figures are no numbers come before all."""
    whole = math.isfinite(row.loss) and math.isfinite(row.grad_norm or 0.0)
    return row.loss if whole else math.inf


def _trained(row: Mapping[str, Any]) -> int | None:
    if "labels" not in row:
        return None
    return sum(1 for label in row["labels"] if label != IGNORED)


def _norms(
    ctx: PhaseContext, trainer: FtqSFTTrainer | FtqTrainer, rows: Dataset
) -> Iterator[float]:
    """Yield the norm of the gradient of each row's own mean loss, as far as memory goes.

    With several ranks there is none: a rank has a part of the gradient, or meets the others.
    """
    me: Any = trainer
    if me.args.world_size > 1:
        return
    model, training = me.model, me.model.training
    gradient: Callable[[Mapping[str, Any]], float] = partial(_norm, me)
    model.eval()  # without dropout, as the loss: and no random number is drawn
    progress = Progress(ctx.emit, ctx.control, "look at the rows", "rows", len(rows), after_s=1.0)
    try:
        for row in rows:
            yield gradient(row)
            progress.advance()
        progress.finish()
    except torch.OutOfMemoryError:  # a pass of one row, though without what saves memory elsewhere
        ctx.warn("memory ran out over a row's own gradient: the norms of the others are not known")
    finally:
        model.zero_grad()
        model.train(training)


def _norm(trainer: Any, row: Mapping[str, Any]) -> float:
    names = ("input_ids", "labels") if "labels" in row else ("input_ids", "label")
    batch = trainer._prepare_inputs(trainer.data_collator([{name: row[name] for name in names}]))
    trainer.model.zero_grad()
    if "label" in row:
        loss = trainer.model(**batch).loss
    else:
        out = with_fused_head(trainer.model)(**batch, use_cache=False, fused_lm_head=True)
        loss = -out.log_probs.float().sum() / out.label_mask.sum()
    # As in training: without its scale, what fp16 computes with would be lost.
    scale = trainer.accelerator.scaler.get_scale() if trainer.accelerator.scaler else 1.0
    (loss * scale).backward()
    grads = [p.grad for p in trainer.model.parameters() if p.grad is not None]
    return float(torch.nn.utils.get_total_norm(grads)) / scale
