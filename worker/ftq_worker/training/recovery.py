"""Faults that a training outlives: what is changed, and how it goes on in the same process.

What is changed is resolved anew, so that later attempts at the job train with it from the start.
"""

import gc
import shutil
from collections.abc import Callable
from dataclasses import replace

import torch
from accelerate.state import GradientState

from ftq_shared.events import EventType
from ftq_worker.job.context import Interrupted, PhaseContext
from ftq_worker.training import checkpoints
from ftq_worker.training.auto_rules import largest_divisor
from ftq_worker.training.checkpoints import Checkpoint
from ftq_worker.training.device_errors import OutOfMemory, device_errors
from ftq_worker.training.divergence import Diverged
from ftq_worker.training.packed_steps import with_packing
from ftq_worker.training.runs import note_divergence
from ftq_worker.training.session import INTERRUPTED, Session, train
from ftq_worker.training.settings import TrainSettings

LOWERED = 0.25  # of the learning rate: halved twice, as there is one try
# Given why there was an interruption.
Begin = Callable[[TrainSettings, str], tuple[Session, Checkpoint | None]]


def train_to_the_end(ctx: PhaseContext, settings: TrainSettings, begin: Begin) -> Session:
    """Train, again from the last checkpoint after each fault that can be outlived.

    `begin` makes the session and finds the checkpoint that it goes on from. Raises what `train`
    raises and the errors of `device_errors` where nothing is left to change.
    """
    why = INTERRUPTED
    while True:
        with device_errors(settings):
            session, resume = begin(settings, why)
        try:
            with device_errors(session.settings):
                train(session, resume)
        except OutOfMemory as error:
            settings = _with_smaller_passes(ctx, settings, session, error)
            why = "memory ran out"
        except Diverged as error:
            settings = _with_lower_rate(ctx, settings, error)
            why = "the training had diverged"
        else:
            return session
        del session, resume  # the error with its frames is gone as well: their memory is free
        release()
        if ctx.devices.rank == 0:
            shutil.rmtree(checkpoints.part_folder(ctx.paths, ctx.claim), ignore_errors=True)


def _with_smaller_passes(
    ctx: PhaseContext, settings: TrainSettings, session: Session, error: OutOfMemory
) -> TrainSettings:
    """Return the settings with half the rows in a forward pass and the same rows in a step.

    Raises `error` where a pass has one row or memory ran out in scoring, Interrupted with several
    ranks: those that did not run out of memory wait for this one, so all begin again.
    """
    used = settings.micro_batch
    # Scoring has passes of its own, which no micro-batch makes smaller.
    if used == 1 or session.trainer.is_scoring:
        raise error
    share = settings.micro_batch * settings.accumulation
    micro = largest_divisor(share, used // 2)
    while session.settings.packing and micro > 1:
        smaller = replace(settings, micro_batch=micro, accumulation=share // micro)
        lengths = session.trainer.train_dataset["length"]
        if with_packing(smaller, lengths).accumulation > session.settings.accumulation:
            break
        micro = largest_divisor(share, micro // 2)  # the sequences were shorter than they might be
    reason = (
        f"memory ran out with {used} rows in a forward pass: micro_batch is {micro} from now on"
    )
    ctx.resolve("train.micro_batch", micro, reason)
    ctx.emit(
        EventType.GUARD,
        name="out_of_memory",
        message=f"step {session.trainer.state.global_step + 1}: {error.message}",
        action=f"training goes on from its last checkpoint with micro_batch {micro}: the rows of "
        "a step, their order and the schedule stay the same",
    )
    if settings.world_size > 1:
        raise Interrupted(reason, code="out_of_memory")
    return replace(settings, micro_batch=micro, accumulation=share // micro, counted_bytes=None)


def _with_lower_rate(ctx: PhaseContext, settings: TrainSettings, error: Diverged) -> TrainSettings:
    """Return the settings with a lower rate, and leave only checkpoints of before; once per job.

    The checkpoints go first: an attempt that is cut off before the new rate is stored comes to the
    same step again. Raises `error` where the job has to stop.
    """
    stops = settings.on_divergence == "stop"
    rate = settings.learning_rate * LOWERED
    onset = error.onset
    note_divergence(ctx, onset)
    action = (
        "training was stopped"
        if stops
        else f"training goes on from its last checkpoint before step {onset}, or its beginning if "
        f"there is none, with a peak learning rate of {rate:.3g} instead of "
        f"{settings.learning_rate:.3g}; the next time it stops"
    )
    if ctx.devices.rank == 0:
        ctx.emit(EventType.GUARD, name=error.code, message=error.message, action=action)
    if stops:
        raise error
    if ctx.devices.rank == 0:
        ctx.owner.check_lease()
        data = checkpoints.data_id(ctx.paths)
        checkpoints.roll_back(ctx.paths, data, ctx.token_number, ctx.fresh_after, onset)
        reason = f"lowered after {error.message}"
        ctx.resolve("train.learning_rate", rate, reason, this_training=True)
        once = "the learning rate was lowered once already"
        ctx.resolve("train.on_divergence", "stop", once, this_training=True)
    if settings.world_size > 1:
        torch.distributed.barrier()  # no rank looks for a checkpoint before
    return replace(settings, learning_rate=rate, on_divergence="stop")


def release() -> None:
    """Free what a trainer held: on the card, and in accelerate's memory of its data loader."""
    GradientState._reset_state()
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
