"""Verification: the model that training saved, staged as it will be published and loaded afresh.

It is scored on the device that it was trained on, in the precision that the card's own lines load,
and answers golden prompts. What passes becomes `release/`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedTokenizerBase,
)

from ftq_shared.errors import FtqError
from ftq_shared.events import EventType
from ftq_shared.sources import Place
from ftq_shared.spec import Task
from ftq_worker.job.atomic_folders import swap_in
from ftq_worker.job.context import PhaseContext
from ftq_worker.job.prepared_sets import load_sets
from ftq_worker.job.reports import (
    GoldenScores,
    Prepared,
    RowFigures,
    Trained,
    Validated,
    Verified,
)
from ftq_worker.publishing.answers import check_answers
from ftq_worker.publishing.metadata import Format
from ftq_worker.publishing.staging import attach, hash_files, resolve_format, stage
from ftq_worker.publishing.verdicts import Verification, against_base, same_as_trained
from ftq_worker.training.base_model import fetch_base, pad_id, saved_dtype
from ftq_worker.training.device_errors import device_errors
from ftq_worker.training.facts import look_at_device
from ftq_worker.training.golden import figures_of
from ftq_worker.training.scoring import (
    RowScore,
    rounded,
    score_labels,
    score_language,
    scoring_order,
    scoring_progress,
)


def verify(ctx: PhaseContext) -> None:
    """Verify the trained model; leave `release/` without its card, and verified.json.

    The golden figures of the saved model are added to train.json.

    Raises FtqError (`verification_failed`) when any check failed: the saved model stays where it
    is. Raises as well what staging, `fetch_base` and a device raise.
    """
    validated = Validated.load(ctx.paths.validated)
    prepared = Prepared.load(ctx.paths.prepared_report)
    trained = Trained.load(ctx.paths.train_report)
    known = GoldenScores.load(ctx.paths.golden_scores)
    golden = load_sets(ctx.paths, prepared).golden

    device = look_at_device(ctx.devices).kind
    form = resolve_format(ctx, trained, validated.model.place is Place.HUB)
    ctx.doing("look at the base model")
    base = fetch_base(ctx, validated.model)
    ctx.doing(f"put the {form} model together")
    folder = stage(ctx, form, base, validated, prepared, trained)
    ctx.control.check()
    ctx.doing("load the saved model")
    with device_errors(None):
        model = load_staged(folder, form, base, validated, prepared, trained, device)
        scores = _check(ctx, folder, model, validated, trained, known, golden)
    del model

    ctx.doing("hash the files")
    files = {file.name: file.sha256 for file in hash_files(folder)}
    ctx.owner.check_lease()  # what follows changes files that all attempts share
    ctx.paths.verified.unlink(missing_ok=True)
    swap_in(folder, ctx.paths.release)
    trained.model_copy(update={"golden_after": scores}).save(ctx.paths.train_report)
    Verified(format=form, files=files).save(ctx.paths.verified)


def load_staged(
    folder: Path,
    form: Format,
    base: Path,
    validated: Validated,
    prepared: Prepared,
    run: Trained,
    device: str,
) -> torch.nn.Module:
    """Return the staged model from its files alone; an adapter on its freshly loaded base."""
    model: Any
    dtype = _precision(folder, run, device)
    if form == "adapter":
        model = attach(folder, base, validated.task, prepared.labels, run, dtype)
        if validated.task is not Task.CLASSIFICATION:
            # As the card's code does: an adapter's own stops are not read by themselves.
            model.generation_config = GenerationConfig.from_pretrained(folder)
    else:
        classes = validated.task is Task.CLASSIFICATION
        auto = AutoModelForSequenceClassification if classes else AutoModelForCausalLM
        model = auto.from_pretrained(folder, dtype=dtype, trust_remote_code=False)
    return model.to(device).eval()  # type: ignore[no-any-return]


def _precision(folder: Path, run: Trained, device: str) -> torch.dtype:
    """Return what the staged weights are loaded in.

    On a card that which they are saved in, as the model card's lines load them; but no more than
    training had room for, which loads the frozen base of an adapter in half precision. A CPU
    computes in float32, whose sums differ least from those of training.
    """
    if device != "cuda":
        return torch.float32
    half = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(run.settings["precision"])
    saved = saved_dtype(folder)
    return half if half and saved is torch.float32 and run.method != "full" else saved


def _check(
    ctx: PhaseContext,
    folder: Path,
    model: torch.nn.Module,
    validated: Validated,
    trained: Trained,
    known: GoldenScores,
    golden: Dataset | None,
) -> dict[str, float]:
    """Check the staged model, emit every result, and return its golden figures."""
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    findings: list[Verification] = []
    figures: dict[str, float] = {}
    if golden is not None:
        rows = golden.select(known.rows)
        figures, scores = _score(ctx, model, rows, validated.task, tokenizer)
        ctx.emit(EventType.EVAL, set="golden", when="after", step=trained.steps, **figures)
        probe = _first(scores, rows, len(known.probe))
        findings.append(same_as_trained(probe, known.probe, trained, saved_dtype(folder)))
        before = known.before
        findings.append(against_base(trained.golden_before, figures, before, scores))
    ctx.control.check()
    if validated.model.kind == "decoder" and validated.task is not Task.CLASSIFICATION:
        findings.append(_answers(ctx, model, tokenizer, golden, trained.seconds))
    for finding in findings:
        finding.emit(ctx)
    bad = [f.message for f in findings if not f.ok]
    if bad:
        raise FtqError(
            f"the saved model did not verify: {'; '.join(bad)}",
            code="verification_failed",
            hint="nothing was pushed; the model is kept, `ftq fetch` brings it",
        )
    return figures


def _score(
    ctx: PhaseContext,
    model: torch.nn.Module,
    rows: Dataset,
    task: Task,
    tokenizer: PreTrainedTokenizerBase,
) -> tuple[dict[str, float], list[RowFigures]]:
    """Return the figures of the rows, and those of each row in the order of scoring."""
    score = score_labels if task is Task.CLASSIFICATION else score_language
    on_rows = scoring_progress(ctx.emit, ctx.control, "score the saved model", len(rows))
    scores: list[RowScore] = []
    padding = pad_id(tokenizer, model)
    figures = score(model, rows, on_rows, on_scores=scores.extend, pad_id=padding)
    return rounded(figures), figures_of(scores)


def _first(scores: Sequence[RowFigures], rows: Dataset, count: int) -> list[RowFigures]:
    """Return the scores of the first rows, in the order in which these alone are scored."""
    order = scoring_order(rows)
    return [score for row, score in zip(order, scores, strict=True) if row < count]


def _answers(
    ctx: PhaseContext,
    model: torch.nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    golden: Dataset | None,
    trained_s: float,
) -> Verification:
    def tick() -> None:
        ctx.control.check()
        ctx.doing("let the saved model answer")

    found = check_answers(model, tokenizer, golden, tick, trained_s=trained_s)
    if found.warning:
        ctx.warn(found.warning, hint="train longer: more rows, or more of train.epochs")
    return Verification("generates", found.ok, found.message)
