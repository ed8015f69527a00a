"""The train phase, first part: from prepared rows to a saved model; every step is an event."""

import shutil
from dataclasses import replace
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerBase

from ftq_shared.errors import FtqError
from ftq_shared.events import EventType
from ftq_shared.spec import Task
from ftq_worker.host.linux import keep_freed_memory
from ftq_worker.job.atomic_folders import swap_in
from ftq_worker.job.context import PhaseContext
from ftq_worker.job.prepared_sets import load_sets
from ftq_worker.job.quiet import quiet_libraries
from ftq_worker.job.reports import GoldenScores, Prepared, Trained, Validated
from ftq_worker.report.left_out import add_left_out
from ftq_worker.training.adapters import numbers_of_rank_one
from ftq_worker.training.attention import look_at_host, look_at_model
from ftq_worker.training.attention_proof import known_attention, settle_attention
from ftq_worker.training.base_model import fetch_base, fetch_config, load_tokenizer
from ftq_worker.training.blueprint import blueprint, fit_adapter
from ftq_worker.training.checkpoints import Checkpoint, RunFigures, data_id
from ftq_worker.training.device_errors import device_errors
from ftq_worker.training.end_of_turn import trained_ends
from ftq_worker.training.facts import look_at_device, run_facts
from ftq_worker.training.golden import golden_of, note_scores, score_before
from ftq_worker.training.left_out import (
    before_divergence,
    begin_without,
    find_left_out,
    left_out_so_far,
    refuse_too_late,
    runs_so_far,
    without,
)
from ftq_worker.training.memory_count import count
from ftq_worker.training.memory_need import Need, Setup
from ftq_worker.training.memory_plan import Count
from ftq_worker.training.parallel import gang
from ftq_worker.training.recovery import train_to_the_end
from ftq_worker.training.resolve import resolve_settings
from ftq_worker.training.runs import note_run
from ftq_worker.training.session import (
    Session,
    build_session,
    emit_random_head,
    find_resume,
    keep_best,
    one_voice,
    report,
)
from ftq_worker.training.settings import TrainSettings
from ftq_worker.training.trackers import tracked
from ftq_worker.training.trained_model import save_model


def run(ctx: PhaseContext) -> None:
    """Train, and leave `model/`, `train.json` and `golden.json`.

    Does nothing where an earlier attempt has left them: it was interrupted in the second part.

    Raises TrainingFailed, Refused or UsageError to end the job; Interrupted or JobCancelled at a
    step boundary, after a checkpoint was written.
    """
    with gang(ctx.devices):
        _run(one_voice(ctx))


def _run(ctx: PhaseContext) -> None:
    quiet_libraries()
    torch.set_num_threads(ctx.devices.cpu_threads)
    validated = Validated.load(ctx.paths.validated)
    prepared = Prepared.load(ctx.paths.prepared_report)
    runs = runs_so_far(ctx)
    left_out = find_left_out(ctx, prepared.rows.get("train", 0), runs)
    if _is_done(ctx):
        refuse_too_late(ctx, left_out, "the training is done")
        ctx.emit(EventType.LOG, line="an earlier attempt has trained and saved the model")
        return

    device = look_at_device(ctx.devices)
    if device.kind == "cpu":
        keep_freed_memory()
    sets = load_sets(ctx.paths, prepared)
    ctx.doing("look at the base model")
    config = fetch_config(ctx, validated.model)
    attention = look_at_model(blueprint(config, validated.task, ["a", "b"]))
    host = look_at_host(device.capability, known_attention(ctx))
    adapter = _adapter_numbers(ctx, validated, config)
    facts = run_facts(validated.task, validated.model, prepared, device, attention, host, adapter)
    counted = _counter(ctx, config) if device.kind == "cuda" else None
    settings = resolve_settings(ctx, facts, counted)
    settings = fit_adapter(ctx, settings, config)
    settings = settle_attention(ctx, settings, facts)
    base = fetch_base(ctx, validated.model)  # after all that could refuse the job
    tokenizer = load_tokenizer(base, ctx.spec.data.chat_template)

    before_divergence(ctx, runs)
    trained = replace(sets, train=without(sets.train, left_out.at))
    scored: RunFigures = {}  # before training: the same for every beginning of it

    def begin(settings: TrainSettings, why: str) -> tuple[Session, Checkpoint | None]:
        session = build_session(ctx, settings, base, tokenizer, trained, prepared.labels)
        resume = find_resume(ctx, why)
        if left_out.at:
            begin_without(ctx, session, resume, left_out)
        session.agree(ctx, resume)
        note_run(ctx, session.settings, resume, device.name, left_out.refs)
        session.known = resume.facts.copy() if resume else scored.copy()

        def score() -> None:
            score_before(ctx, session, sets)
            scored.update(golden_of(session.known))

        if "golden_scores" not in session.known:
            emit_random_head(ctx, validated)
            session.trainer.before_steps(score)
        ctx.control.check()
        return session, resume

    with tracked(ctx, settings) as ctx:
        session = train_to_the_end(ctx, settings, begin)
        ctx.control.check()  # a stop ended the run early: its checkpoint is written

        with device_errors(settings):
            best = keep_best(ctx, session)
            scores = note_scores(ctx, session, sets.golden)

    model = session.trainer.whole_model()
    if ctx.devices.rank == 0:
        ends = trained_ends(sets.train)
        gone = left_out_so_far(ctx)
        figures = report(session, best, gone)
        add_left_out(ctx.paths, gone)
        _leave(ctx, figures, scores, model, tokenizer, validated, base, ends)
    session.trainer.end()


def _adapter_numbers(ctx: PhaseContext, validated: Validated, config: Path) -> int:
    """Return how many numbers LoRA of rank 1 trains; 0 where no rank is to be found."""
    train, learns_tokens = ctx.spec.train, validated.task is not Task.CLASSIFICATION
    if train.method == "full" or train.lora.r != "auto" or not learns_tokens:
        return 0
    return numbers_of_rank_one(train.lora, blueprint(config, validated.task, []))


def _counter(ctx: PhaseContext, config: Path) -> Count:
    """Return what counts the memory of a step, from the model's configuration alone."""

    def counted(setup: Setup) -> Need:
        ctx.doing("count the memory of a training step")
        return count(config, setup)

    return counted


def _is_done(ctx: PhaseContext) -> bool:
    """Return whether this job's training, on these data, has ended and was saved."""
    if not ctx.paths.golden_scores.exists() or not ctx.paths.train_report.exists():
        return False
    try:
        known = GoldenScores.load(ctx.paths.golden_scores)
    except FtqError:  # damaged: the last checkpoint makes it again
        return False
    return known.token_number > ctx.fresh_after and known.data == data_id(ctx.paths)


def _leave(
    ctx: PhaseContext,
    figures: Trained,
    scores: GoldenScores,
    model: torch.nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    validated: Validated,
    base: Path,
    ends: list[int],
) -> None:
    """Write the model, then the reports: those that are there belong to the model."""
    ctx.doing("save the model")
    aside = ctx.paths.claim_dir(ctx.claim) / "model"
    save_model(model, tokenizer, validated.model, base, ends, aside)
    ctx.owner.check_lease()  # what follows changes files that all attempts share
    paths = ctx.paths
    for old in (paths.golden_scores, paths.train_report, paths.verified):  # of another model
        old.unlink(missing_ok=True)
    shutil.rmtree(paths.release, ignore_errors=True)  # as well
    swap_in(aside, paths.model)
    figures.save(paths.train_report)
    scores.save(paths.golden_scores)
