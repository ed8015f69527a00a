"""Is the saved model the trained one, and is it better than its base? The golden scores tell."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ftq_shared.events import EventType
from ftq_shared.judging import FEWEST_TO_JUDGE, TOO_FEW_TO_JUDGE, rows_in_words
from ftq_worker.job.context import PhaseContext
from ftq_worker.job.reports import RowFigures, Trained
from ftq_worker.training.best import SMALLEST_GAIN
from ftq_worker.training.intervals import Interval, gain_interval, ratio_interval

EXACT = 1e-3  # relative difference of a loss that float32 on the same kind of device may show
HALF = 2e-2  # the same for a run in bf16 or fp16, or weights saved so
# The same where training quantized the base and the published adapter sits on the whole one: only
# what is clearly broken shows.
QUANTIZED = 0.25


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


def same_as_trained(
    now: Sequence[RowFigures], then: Sequence[RowFigures], trained: Trained, saved: torch.dtype
) -> Verification:
    """Compare the loss of some rows with what training measured on the model in memory.

    `saved` is the precision that the weights were rounded to since.
    """
    before, after = _loss(then), _loss(now)
    quantized = trained.method == "qlora"
    exact = trained.settings["precision"] == "fp32" and saved is torch.float32
    share = QUANTIZED if quantized else EXACT if exact else HALF
    change = after - before
    worst = change if quantized else abs(change)
    ok = worst <= share * max(1.0, abs(before))  # False for NaN
    says = "is" if ok else "is not"
    figures = f"{after:.4f}"
    if figures != f"{before:.4f}":
        figures += f", was {before:.4f}"
    if quantized:
        figures += " on the 4-bit base"
    return Verification(
        "saved_model",
        ok,
        f"loaded afresh, its loss on {rows_in_words(len(now))} {says} what training measured: "
        f"{figures}",
        before=before,
        after=after,
    )


def _loss(rows: Sequence[RowFigures]) -> float:
    return ratio_interval([row[0] for row in rows], [row[1] for row in rows])[0]


def against_base(
    base: dict[str, float],
    now: dict[str, float],
    before: Sequence[RowFigures],
    after: Sequence[RowFigures],
) -> Verification:
    """Compare with the base model on the same rows: better, worse, or neither for certain.

    `base` and `now` are the figures of the rows `before` and `after`, which are paired: what counts
    is the interval of their differences (`gain_interval`). Below 30 rows there is no verdict, and
    none where all rows have the same figure: figures only.
    """
    name = "accuracy" if "accuracy" in now else "loss"
    figures = f"golden {name} {_with_interval(now, name)}"
    of_base = f"the base model's {_with_interval(base, name)}"
    gain, ends = _gain(name, before, after)
    why_not = ""
    if len(after) < FEWEST_TO_JUDGE:
        why_not = f"{rows_in_words(len(after))}: {TOO_FEW_TO_JUDGE}"
    elif ends is None and not (f"{name}_low" in now and f"{name}_low" in base):
        why_not = "all rows have the same figure, so that nothing tells how far to trust it"
    if why_not:
        message = f"{figures}, {of_base}; {why_not}"
        return Verification("golden", True, message, base[name], now[name])
    if ends is None:  # every row has changed alike: the two intervals tell
        low = max(now[f"{name}_low"], base[f"{name}_low"])
        apart = low > min(now[f"{name}_high"], base[f"{name}_high"])
    else:
        apart = (ends[0] > 0 or ends[1] < 0) and abs(gain) > SMALLEST_GAIN
    word = ("better than" if gain > 0 else "worse than") if apart else "not clearly different from"
    by = f"; gain row by row {gain:.4f} ({ends[0]:.4f} to {ends[1]:.4f})" if ends else ""
    message = f"{figures}, {word} {of_base}{by}"
    return Verification("golden", not (apart and gain < 0), message, base[name], now[name])


def _gain(
    name: str, before: Sequence[RowFigures], after: Sequence[RowFigures]
) -> tuple[float, Interval | None]:
    """Return by how much the figure has got better, row by row, and the interval of that."""
    if name == "accuracy":
        gained = [float(now[2] - then[2]) for then, now in zip(before, after, strict=True)]
        return ratio_interval(gained, [1] * len(gained))
    then, now = [row[0] for row in before], [row[0] for row in after]
    return gain_interval(then, now, [row[1] for row in after])


def _with_interval(figures: dict[str, float], name: str) -> str:
    if f"{name}_low" not in figures:
        return f"{figures[name]:.4f}"
    return f"{figures[name]:.4f} ({figures[f'{name}_low']:.4f} to {figures[f'{name}_high']:.4f})"
