"""Rows that a person leaves out of a training by name: `ftq retry JOB --without-rows FILE`.

Every other row keeps its place in the order and its step: a row that is left out is put in its own
place as one token that no loss counts, under the length that the order knows it by. So a step has
fewer examples, and its loss is the mean over those that are there: over their trained tokens, or,
for a classification, over the rows. A step of which nothing is left changes no weight.

They are left out from the step on where the training goes on. Whatever attempt comes later leaves
them out as well, also one that starts afresh.
"""

import json
from collections.abc import Container, Sequence
from dataclasses import dataclass, replace

import torch
from datasets import Dataset, Features, concatenate_datasets
from transformers import TrainerState

from ftq_shared.errors import Refused
from ftq_shared.events import EventType
from ftq_shared.paths import read_json
from ftq_shared.row_refs import RowRef, load_refs
from ftq_worker.job.context import PhaseContext
from ftq_worker.job.reports import LeftOutRow
from ftq_worker.job.row_sources import load_sources
from ftq_worker.training import checkpoints
from ftq_worker.training.best import is_over
from ftq_worker.training.checkpoints import STATE, Checkpoint
from ftq_worker.training.end_of_turn import IGNORED
from ftq_worker.training.runs import Run, read_runs
from ftq_worker.training.session import Session

NAMED = 20  # rows in a message


@dataclass(frozen=True)
class LeftOut:
    """The rows that a training leaves out."""

    refs: tuple[RowRef, ...] = ()  # as they were asked for, in order
    at: frozenset[int] = frozenset()  # their positions in the training set
    new: tuple[RowRef, ...] = ()  # those that no run of this training has left out before
    asked: bool = True  # the retry that we are in has named them, and not an earlier one


def find_left_out(ctx: PhaseContext, rows: int, runs: Sequence[Run]) -> LeftOut:
    """Return what the job leaves out of its `rows` training rows, and tell what is not there.

    `runs` are those of this training so far. Raises Refused where rows have no names, where none of
    the named ones is in the training set, and where none of it would be left. A retry that names
    none of them, after such a refusal, goes on with a warning.
    """
    asked = read_json(ctx.paths.without_rows)
    if not asked:
        return LeftOut()
    refs, known = load_refs(json.dumps(asked["rows"])), set(runs[-1].left_out) if runs else set()
    try:
        return replace(_resolve(ctx, rows, refs, known), asked=asked["asked"])
    except Refused as error:
        if asked["asked"]:
            raise
        _tell_given_up(ctx, error)
        return replace(_resolve(ctx, rows, [r for r in refs if r in known], known), asked=False)


def _tell_given_up(ctx: PhaseContext, error: Refused) -> None:
    ctx.warn(f"an earlier retry named rows to be left out, which are not: {error.message}")


def _resolve(
    ctx: PhaseContext, rows: int, refs: Sequence[RowRef], known: Container[RowRef]
) -> LeftOut:
    """Return where rows stand in the training set; `known` were left out before."""
    if not refs:
        return LeftOut()
    sources = load_sources(ctx.paths, rows)
    if sources is None:
        raise rows_unnamed(ctx.job)
    found = sources.positions(refs)
    new = tuple(ref for ref in refs if ref not in known)
    at = frozenset(place for place in found.values() if place is not None)
    _tell_missing(ctx, [ref for ref, place in found.items() if place is None and ref in new])
    if new and all(found[ref] is None for ref in new):
        raise Refused(
            f"none of the {len(new):,} rows to be left out is in the training set: {named(new)}",
            code="rows_not_trained",
            hint="rows are named by file and row, as `ftq replay JOB --rows-out FILE` writes them",
        )
    if len(at) == rows:
        raise Refused(
            f"all {rows:,} training rows are to be left out: nothing would be trained",
            code="all_rows_left_out",
            hint="take the rows that may stay out of the file",
        )
    return LeftOut(tuple(refs), at, new)


def rows_unnamed(job: str) -> Refused:
    """Return the error for a job whose prepare did not write down where rows came from."""
    return Refused(
        "an older version has prepared this job and did not write down where its rows came from",
        code="rows_unnamed",
        hint=f"`ftq retry {job} --from prepare` prepares it again",
    )


def _tell_missing(ctx: PhaseContext, missing: Sequence[RowRef]) -> None:
    if missing:
        one = len(missing) == 1
        ctx.warn(
            f"{len(missing):,} of the rows to be left out {'is' if one else 'are'} in no training"
            f" step: {named(missing)}",
            hint="such a row is held out, was left out by a rule, or is not in the data; the report"
            " page says which rules took which rows",
        )


def named(refs: Sequence[RowRef]) -> str:
    """Return rows in words; of many the first."""
    more = f" and {len(refs) - NAMED:,} more" if len(refs) > NAMED else ""
    return ", ".join(str(ref) for ref in refs[:NAMED]) + more


def runs_so_far(ctx: PhaseContext) -> list[Run]:
    """Return the runs of the training that goes on, on the data as they are now, oldest first."""
    data = checkpoints.data_id(ctx.paths)
    return [run for run in read_runs(ctx.paths, ctx.fresh_after) if run.data == data]


def before_divergence(ctx: PhaseContext, runs: Sequence[Run]) -> None:
    """Leave no checkpoint of a step at which the last run had diverged, or of a later one."""
    onset = runs[-1].diverged if runs else None
    if onset is None:
        return
    if ctx.devices.rank == 0:
        ctx.owner.check_lease()
        data = checkpoints.data_id(ctx.paths)
        checkpoints.roll_back(ctx.paths, data, ctx.token_number, ctx.fresh_after, onset)
        words = f"the training had diverged at step {onset}: it goes on from a checkpoint before"
        ctx.emit(EventType.LOG, line=words)
    if ctx.devices.world_size > 1:
        torch.distributed.barrier()  # no rank looks for a checkpoint before


def begin_without(
    ctx: PhaseContext, session: Session, resume: Checkpoint | None, left_out: LeftOut
) -> None:
    """Let a session reckon with rows that are left out, and say from which step on.

    Raises Refused where no step is left for rows that are new among them.
    """
    if resume:
        state = TrainerState.load_from_json(str(resume.path / STATE))
        if is_over(state, session.settings):
            refuse_too_late(ctx, left_out, f"step {resume.step} was its last")
    session.trainer.leave_out()
    _tell_left_out(ctx, left_out, resume.step if resume else 0)


def refuse_too_late(ctx: PhaseContext, left_out: LeftOut, why: str) -> None:
    """Raise Refused (`trained_already`) where new rows come after the last step."""
    if not left_out.new:
        return
    error = Refused(
        f"no step is left to be trained without {named(left_out.new)}: {why}",
        code="trained_already",
        hint=f"`ftq retry {ctx.job} --from train` trains again from the beginning, without these"
        f" rows; `ftq retry {ctx.job}` goes on with the model as it is",
    )
    if left_out.asked:
        raise error
    _tell_given_up(ctx, error)


def _tell_left_out(ctx: PhaseContext, left_out: LeftOut, after_step: int) -> None:
    here = len(left_out.at)
    words = (
        f"left out of training from step {after_step + 1} on, as asked: {here:,}"
        f" {'row' if here == 1 else 'rows'}: {named(left_out.refs)}"
    )
    ctx.warn(
        words,
        hint="all other rows keep their step; the model card and the report page name these",
    )


def without(train: Dataset, at: frozenset[int]) -> Dataset:
    """Return the training set with nothing to learn at some positions; as long as before.

    Columns, order and the lengths by which rows are grouped stay. Nothing is copied.
    """
    if not at:
        return train
    places = sorted(at)
    stubs = [_stub(train[place]) for place in places]
    blank = Dataset.from_list(stubs, features=Features(train.features))
    order = list(range(len(train)))
    for number, place in enumerate(places):
        order[place] = len(train) + number
    return concatenate_datasets([train, blank]).select(order)


def _stub(row: dict[str, object]) -> dict[str, object]:
    """Return a row of one token that no loss counts."""
    ids = row["input_ids"]
    assert isinstance(ids, list)
    if "labels" in row:
        return {**row, "input_ids": ids[:1], "labels": [IGNORED]}
    return {**row, "input_ids": ids[:1], "label": IGNORED}


def left_out_so_far(ctx: PhaseContext) -> list[LeftOutRow]:
    """Return the rows that the present training has left out, each with the step before."""
    first: dict[RowRef, int] = {}
    for run in read_runs(ctx.paths, ctx.fresh_after):
        for ref in run.left_out:
            first[ref] = min(run.after_step, first.get(ref, run.after_step))
    return [
        LeftOutRow(file=ref.file, row=ref.row, from_step=step + 1)
        for ref, step in sorted(first.items())
    ]
