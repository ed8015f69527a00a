"""One training, from trainer to figures: the steps that `phases.train` puts in order."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerBase,
    TrainerCallback,
    TrainerState,
)

from ftq_shared.events import EventType
from ftq_shared.spec import Task
from ftq_worker.job.context import Control, PhaseContext
from ftq_worker.job.prepared_sets import PreparedSets
from ftq_worker.job.reports import LeftOutRow, Trained, Validated
from ftq_worker.training import checkpoints
from ftq_worker.training.attention_proof import keep_apart
from ftq_worker.training.best import best_step, evaluations, is_over
from ftq_worker.training.checkpoints import STATE, Checkpoint, RunFigures
from ftq_worker.training.classification import build_classification
from ftq_worker.training.clock import RunClock
from ftq_worker.training.cpu_guard import CpuGuard
from ftq_worker.training.events import EVAL_FIELDS, EventCallback
from ftq_worker.training.flow import FlowCallback
from ftq_worker.training.memory_peak import MemoryPeak
from ftq_worker.training.packed_steps import with_packing
from ftq_worker.training.parallel import agree, from_first_rank
from ftq_worker.training.room import check_room
from ftq_worker.training.runs import versions
from ftq_worker.training.scoring import scoring_progress
from ftq_worker.training.settings import TrainSettings
from ftq_worker.training.sft import build_sft, load_writer
from ftq_worker.training.trainers import FtqSFTTrainer, FtqTrainer

INTERRUPTED = "an earlier attempt was interrupted"  # why a training is resumed


@dataclass
class Session:
    """A trainer with its callbacks, and the figures of earlier attempts."""

    trainer: FtqSFTTrainer | FtqTrainer
    events: EventCallback
    cpu_guard: CpuGuard
    memory: MemoryPeak
    clock: RunClock
    settings: TrainSettings
    known: RunFigures = field(default_factory=RunFigures)

    def agree(self, ctx: PhaseContext, resume: Checkpoint | None) -> None:
        """Compare with the other ranks what is trained. Raises TrainingFailed."""
        agree(
            lambda: {
                **{f"train.{name}": value for name, value in self.settings.to_json().items()},
                "prepared data": checkpoints.data_id(ctx.paths)[:12],
                "an order of rows": self.trainer.order.digest(),
                "the checkpoint": resume and resume.path.name,
            }
        )

    def figures(self) -> RunFigures:
        """Return what a later attempt goes on from: it goes into every checkpoint."""
        return {
            **self.known,
            "seconds": self.seconds(),
            "train_loss": self.train_loss(),
            "best_rows": self.trainer.best_rows,
            "losses": self.trainer.losses,
            "recent_losses": self.events.watch.recent,
            "steps_above": self.events.watch.above,
            "bad_norms": self.events.bad_norms,
            "learning_rate": self.settings.learning_rate,
            "memory": self.memory.found or self.known.get("memory", {}),
        }

    def seconds(self) -> float:
        """Return the time that training took, over all attempts."""
        spent = self.known.get("seconds", 0.0)
        return round(spent + self.clock.now() - self.clock.started, 3)

    def train_loss(self) -> float | None:
        """Return the loss of the last step, also when an earlier attempt computed it."""
        last = self.events.last_loss
        return last if last is not None else self.known.get("train_loss")


def one_voice(ctx: PhaseContext) -> PhaseContext:
    """Return the context with events from rank 0 only: all ranks see the same."""
    if ctx.devices.rank == 0:
        return ctx
    return dataclasses.replace(ctx, emit=lambda type_, /, **data: None)


def build_session(
    ctx: PhaseContext,
    settings: TrainSettings,
    base: Path,
    tokenizer: PreTrainedTokenizerBase,
    sets: PreparedSets,
    labels: list[str],
) -> Session:
    """Load the base model and put trainer and callbacks together."""
    settings, writer = settle(ctx, settings, base, sets.train["length"])
    rows = len(sets.train)
    if again := settings.repeated(rows):
        words = f"{again} of the {rows:,} rows come twice in a pass"
        ctx.emit(EventType.LOG, line=f"{words}, so that all ranks get as many")
    clock = RunClock()
    flow = FlowCallback(ctx, settings, clock)
    events = EventCallback(ctx.emit, settings, clock, flow.saves_left)
    cpu_guard = CpuGuard(ctx.emit, clock, events.eta_s)
    memory = MemoryPeak(ctx.emit, settings.counted_bytes)
    callbacks: list[TrainerCallback] = [events, flow]
    if not settings.on_cpu:
        callbacks.append(memory)
    if settings.on_cpu and ctx.spec.resources.gpus == "auto":  # nobody asked for the CPU
        callbacks.append(cpu_guard)
    trainer = build_trainer(ctx, settings, writer, base, tokenizer, sets, labels, callbacks)
    # A stop waits for the end of an evaluation: the step before it is not lost.
    trainer.watch_scoring = partial(
        scoring_progress, ctx.emit, Control(), "score the validation rows"
    )
    session = Session(trainer, events, cpu_guard, memory, clock, settings)
    trainer.before_save = partial(check_room, ctx)
    flow.connect(session.figures, trainer.order, trainer.save_weights)
    return session


def settle(
    ctx: PhaseContext, settings: TrainSettings, base: Path, lengths: Sequence[int]
) -> tuple[TrainSettings, PreTrainedModel | None]:
    """Return the settings as they are used, and the model of a text task, loaded to look at it."""
    ctx.doing("load the model")
    writer = None
    if settings.task is not Task.CLASSIFICATION:
        writer = load_writer(settings, base)
        settings = keep_apart(ctx, settings, writer)
    if settings.packing:
        settings = with_packing(settings, lengths)
    return settings, writer


def build_trainer(
    ctx: PhaseContext,
    settings: TrainSettings,
    writer: PreTrainedModel | None,
    base: Path,
    tokenizer: PreTrainedTokenizerBase,
    sets: PreparedSets,
    labels: list[str],
    callbacks: list[TrainerCallback],
) -> FtqSFTTrainer | FtqTrainer:
    """Return the trainer of a task; it writes to the claim's own folder."""
    output = checkpoints.part_folder(ctx.paths, ctx.claim)
    train, validation = sets.train, sets.validation
    if writer is None:
        return build_classification(
            settings, base, tokenizer, labels, train, validation, output, callbacks
        )
    return build_sft(settings, writer, tokenizer, train, validation, output, callbacks)


def find_resume(ctx: PhaseContext, reason: str = INTERRUPTED) -> Checkpoint | None:
    """Return the newest good checkpoint; emit what is resumed, why, and what was skipped."""
    ctx.doing("look for a checkpoint")
    data = checkpoints.data_id(ctx.paths)
    found, problems = from_first_rank(
        lambda: checkpoints.newest_good(ctx.paths, data, ctx.fresh_after)
    )
    if found is None:
        if problems:  # checkpoints were written, and none of them can be used
            ctx.warn(
                f"training starts from the beginning: {'; '.join(problems)}",
                hint="there is no older checkpoint; look at the storage if this happens again",
            )
        return None
    for problem in problems:
        ctx.warn(
            f"a damaged checkpoint is skipped: {problem}",
            hint=f"that of step {found.step} is used; look at the storage if this happens again",
        )
    ctx.emit(
        EventType.RESUMED,
        step=found.step,
        path=found.path.relative_to(ctx.paths.root).as_posix(),
        reason=reason,
    )
    return found


def train(session: Session, resume: Checkpoint | None) -> None:
    """Train to the end, or to the step where a stop was asked for.

    Raises Diverged when a loss or gradient is not finite or the loss has leapt, Refused when the
    training would take too long on the CPU. Where all steps are done already, the checkpoint is
    only loaded.
    """
    session.trainer.best_rows = session.known.get("best_rows", [])
    session.trainer.losses = session.known.get("losses", [])
    watch = session.events.watch
    watch.recent = session.known.get("recent_losses", [])
    watch.above = session.known.get("steps_above", 0)
    session.events.bad_norms = session.known.get("bad_norms", 0)
    session.trainer.saved_rate = session.known.get("learning_rate")
    if resume is None:
        session.trainer.train()
    else:
        state = TrainerState.load_from_json(str(resume.path / STATE))
        if is_over(state, session.settings):
            session.trainer.state = state
            session.trainer.load(resume.path)
        else:
            session.trainer.train(resume_from_checkpoint=str(resume.path))
    if failure := session.events.failure or session.cpu_guard.failure:
        raise failure


def keep_best(ctx: PhaseContext, session: Session) -> int | None:
    """Load the weights of the best evaluation; return its step, None without evaluations."""
    state = session.trainer.state
    best = best_step(state)
    if best is None or best == state.global_step:
        return best
    data = checkpoints.data_id(ctx.paths)
    found = checkpoints.last_trained(ctx.paths, data, ctx.fresh_after, best)
    problem = from_first_rank(lambda: checkpoints.damage(found) if found else "it is gone")
    if found is None or problem:
        ctx.warn(f"the best checkpoint (step {best}) cannot be used: {problem}; the last one is")
        return int(state.global_step)
    ctx.doing(f"load the best checkpoint, of step {best}")
    session.trainer.load(found.path)
    return best


def emit_random_head(ctx: PhaseContext, validated: Validated) -> None:
    """Emit that a classification head is new, so that the score before is chance."""
    if validated.head_is_new:
        ctx.emit(
            EventType.LOG,
            line="the base model has no classification head: the score before is a random one's",
        )


def report(session: Session, best: int | None, left_out: list[LeftOutRow]) -> Trained:
    """Return the figures of the finished training."""
    state, settings = session.trainer.state, session.settings
    validation = [
        {"step": float(e["step"])}
        | {f: float(e[f"eval_{f}"]) for f in EVAL_FIELDS if f"eval_{f}" in e}
        for e in evaluations(state)
    ]
    return Trained(
        method=settings.method,
        steps=state.global_step,
        epochs=round(state.global_step / settings.steps_per_epoch, 4),
        seconds=session.seconds(),
        best_step=best,
        train_loss=session.train_loss(),
        golden_before=session.known["golden_before"],
        validation=validation,
        memory=session.memory.found or session.known.get("memory", {}),
        left_out=left_out,
        settings=settings.to_json(),
        versions=dict(versions()),
    )
