"""Checks that the saved model is the trained one: loaded from its staged files, scored again."""

from dataclasses import dataclass
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
from ftq_shared.judging import FEWEST_TO_JUDGE, TOO_FEW_TO_JUDGE, rows_in_words
from ftq_shared.spec import Task
from ftq_worker.job.context import PhaseContext
from ftq_worker.job.reports import Prepared, Trained, Validated
from ftq_worker.publishing.answers import check_answers
from ftq_worker.publishing.metadata import Format
from ftq_worker.publishing.staging import attach
from ftq_worker.training.base_model import pad_id, saved_dtype
from ftq_worker.training.scoring import (
    rounded,
    score_labels,
    score_language,
    scoring_progress,
)

EXACT = 1e-3  # relative difference of a loss that float32 on the same kind of device may show
HALF = 2e-2  # the same for a run in bf16 or fp16, or weights saved so, verified in float32


@dataclass(frozen=True)
class Verification:
    """The result of one check, as the `verification` event carries it."""

    name: str
    ok: bool
    message: str
    before: float | None = None
    after: float | None = None

    def emit(self, ctx: PhaseContext) -> None:
        figures = {"before": self.before, "after": self.after}
        ctx.emit(
            EventType.VERIFICATION,
            name=self.name,
            ok=self.ok,
            message=self.message,
            **{k: v for k, v in figures.items() if v is not None},
        )


def load_staged(
    folder: Path, form: Format, base: Path, validated: Validated, prepared: Prepared, run: Trained
) -> torch.nn.Module:
    """Return the staged model from its files alone; an adapter on its freshly loaded base."""
    model: Any
    if form == "adapter":
        model = attach(folder, base, validated.task, prepared.labels, run)
        if validated.task is not Task.CLASSIFICATION:
            # As the card's code does: an adapter's own stops are not read by themselves.
            model.generation_config = GenerationConfig.from_pretrained(folder)
    else:
        classes = validated.task is Task.CLASSIFICATION
        auto = AutoModelForSequenceClassification if classes else AutoModelForCausalLM
        model = auto.from_pretrained(folder, dtype=torch.float32, trust_remote_code=False)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return model.to(device).eval()  # type: ignore[no-any-return]


def verify(
    ctx: PhaseContext,
    folder: Path,
    model: torch.nn.Module,
    validated: Validated,
    trained: Trained,
    golden: Dataset | None,
) -> None:
    """Check the staged model and emit every result.

    Raises FtqError (code `verification_failed`) at the end when any check failed: nothing is
    pushed then, and the saved model stays where it is.
    """
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    findings: list[Verification] = []
    if golden is not None:
        scores = _score(ctx, model, golden, validated.task, tokenizer)
        findings.append(same_as_trained(scores, trained, saved_dtype(folder)))
        findings.append(against_base(scores, trained))
    ctx.control.check()
    if validated.model.kind == "decoder" and validated.task is not Task.CLASSIFICATION:
        findings.append(_answers(ctx, model, tokenizer, golden))
    for finding in findings:
        finding.emit(ctx)
    bad = [f.message for f in findings if not f.ok]
    if bad:
        raise FtqError(
            f"the saved model did not verify: {'; '.join(bad)}",
            code="verification_failed",
            hint="nothing was pushed; the model is kept, `ftq fetch` brings it",
        )


def _answers(
    ctx: PhaseContext,
    model: torch.nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    golden: Dataset | None,
) -> Verification:
    def tick() -> None:
        ctx.control.check()
        ctx.doing("let the saved model answer")

    found = check_answers(model, tokenizer, golden, tick)
    if found.warning:
        ctx.warn(found.warning, hint="train longer: more rows, or more of train.epochs")
    return Verification("generates", found.ok, found.message)


def same_as_trained(
    scores: dict[str, float], trained: Trained, saved: torch.dtype = torch.float32
) -> Verification:
    """Compare with what train measured on the model in memory, before it was rounded to `saved`."""
    then, now = trained.golden_after.get("loss", 0.0), scores["loss"]
    exact = trained.settings["precision"] == "fp32" and saved is torch.float32
    allowed = (EXACT if exact else HALF) * max(1.0, abs(then))
    ok = abs(now - then) <= allowed  # False for NaN
    says = "is" if ok else "is not"
    figures = f"{now:.4f}"
    if figures != f"{then:.4f}":
        figures += f", was {then:.4f}"
    return Verification(
        "saved_model",
        ok,
        f"loaded afresh, its golden loss {says} what training measured: {figures}",
        before=then,
        after=now,
    )


def against_base(scores: dict[str, float], trained: Trained) -> Verification:
    """Compare with the base model: better, the same within the intervals, or worse.

    Below 30 rows there is no verdict, as there is none without an interval: figures only.
    """
    name = "accuracy" if "accuracy" in scores else "loss"
    base, now = trained.golden_before, scores
    figures = f"golden {name} {_with_interval(now, name)}"
    of_base = f"the base model's {_with_interval(base, name)}"
    why_not = _no_verdict(base, now, name)
    if why_not:
        message, ok = f"{figures}, {of_base}; {why_not}", True
    else:
        gain = now[name] - base[name] if name == "accuracy" else base[name] - now[name]
        apart = _high(base, name) < _low(now, name) or _high(now, name) < _low(base, name)
        word = "better than" if gain > 0 else "worse than"
        message = f"{figures}, {word if apart else 'not clearly different from'} {of_base}"
        ok = not (apart and gain < 0)
    return Verification("golden", ok, message, before=base[name], after=now[name])


def _no_verdict(base: dict[str, float], now: dict[str, float], name: str) -> str:
    """Return why the figures cannot be compared; empty where they can."""
    if now["rows"] < FEWEST_TO_JUDGE:
        return f"{rows_in_words(int(now['rows']))}: {TOO_FEW_TO_JUDGE}"
    if f"{name}_low" not in now or f"{name}_low" not in base:
        return "all rows have the same figure, so that nothing tells how far to trust it"
    return ""


def _low(figures: dict[str, float], name: str) -> float:
    return figures[f"{name}_low"]


def _high(figures: dict[str, float], name: str) -> float:
    return figures[f"{name}_high"]


def _with_interval(figures: dict[str, float], name: str) -> str:
    if f"{name}_low" not in figures:
        return f"{figures[name]:.4f}"
    return f"{figures[name]:.4f} ({_low(figures, name):.4f} to {_high(figures, name):.4f})"


def _score(
    ctx: PhaseContext,
    model: torch.nn.Module,
    golden: Dataset,
    task: Task,
    tokenizer: PreTrainedTokenizerBase,
) -> dict[str, float]:
    score = score_labels if task is Task.CLASSIFICATION else score_language
    on_rows = scoring_progress(ctx.emit, ctx.control, "score the saved model", len(golden))
    return rounded(score(model, golden, on_rows, pad_id=pad_id(tokenizer, model)))
