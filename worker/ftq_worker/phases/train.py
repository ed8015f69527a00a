"""The train phase: from prepared rows to a saved model; every step is an event."""

import shutil
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerBase

from ftq_worker.job.atomic_folders import swap_in
from ftq_worker.job.context import PhaseContext
from ftq_worker.job.prepared_sets import load_sets
from ftq_worker.job.quiet import quiet_libraries
from ftq_worker.job.reports import Prepared, Trained, Validated
from ftq_worker.training.base_model import fetch_base, load_tokenizer
from ftq_worker.training.blueprint import fit_adapter
from ftq_worker.training.device_errors import device_errors
from ftq_worker.training.end_of_turn import trained_ends
from ftq_worker.training.facts import look_at_device, run_facts
from ftq_worker.training.resolve import resolve_settings
from ftq_worker.training.session import (
    build_session,
    emit_random_head,
    find_resume,
    keep_best,
    one_voice,
    report,
    score_golden,
    train,
)
from ftq_worker.training.trained_model import save_model


def run(ctx: PhaseContext) -> None:
    """Train, score before and after, and leave `model/` and `train.json`.

    Raises TrainingFailed, Refused or UsageError to end the job; Interrupted or JobCancelled at a
    step boundary, after a checkpoint was written.
    """
    ctx = one_voice(ctx)
    quiet_libraries()
    torch.set_num_threads(ctx.devices.cpu_threads)
    validated = Validated.load(ctx.paths.validated)
    prepared = Prepared.load(ctx.paths.prepared_report)

    device = look_at_device(ctx.devices)
    facts = run_facts(validated.task, validated.model, prepared, device)
    sets = load_sets(ctx.paths, prepared)
    settings = resolve_settings(ctx, facts)
    ctx.doing("look at the base model")
    base = fetch_base(ctx, validated.model)
    settings = fit_adapter(ctx, settings, base)
    tokenizer = load_tokenizer(base, ctx.spec.data.chat_template)

    with device_errors(settings):
        session = build_session(ctx, settings, base, tokenizer, sets, prepared.labels)
        resume = find_resume(ctx)
        session.known = resume.facts.copy() if resume else {}
        if "golden_before" not in session.known:
            emit_random_head(ctx, validated)
            session.known["golden_before"] = score_golden(ctx, session, sets.golden, "before")
        ctx.control.check()

        train(session, resume)
        ctx.control.check()  # a stop ended the run early: its checkpoint is written

        best = keep_best(ctx, session)
        after = score_golden(ctx, session, sets.golden, "after")
        figures = report(session, session.known["golden_before"], after, best)

    if ctx.devices.rank == 0:
        ends = trained_ends(sets.train)
        _leave(ctx, figures, session.trainer.model, tokenizer, validated, base, ends)
    session.trainer.end()


def _leave(
    ctx: PhaseContext,
    figures: Trained,
    model: torch.nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    validated: Validated,
    base: Path,
    ends: list[int],
) -> None:
    """Write the model, then the report: a report that is there belongs to the model."""
    ctx.doing("save the model")
    aside = ctx.paths.claim_dir(ctx.claim) / "model"
    save_model(model, tokenizer, validated.model, base, ends, aside)
    ctx.owner.check_lease()  # what follows changes files that all attempts share
    ctx.paths.train_report.unlink(missing_ok=True)  # of a training before, with another model
    shutil.rmtree(ctx.paths.release, ignore_errors=True)  # as well
    swap_in(aside, ctx.paths.model)
    figures.save(ctx.paths.train_report)
