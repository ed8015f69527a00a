"""Score a model on a held-out set: the same code before and during training and in verification.

It uses no random number and no data loader, so that scoring never changes what is trained
(a torch DataLoader takes its base seed from the global generator when it is iterated).
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from datasets import Dataset
from torch import Tensor
from trl.trainer.utils import add_fused_lm_head

from ftq_worker.job.context import Control, Emit
from ftq_worker.job.progress import Progress
from ftq_worker.training.intervals import macro_f1, ratio_interval, wilson
from ftq_worker.training.sharded import is_sharded

# Padded tokens of one forward pass: a bound on memory on a card, on a CPU one on the time between
# two signs of life (a model of 135 M parameters takes about 10 s for 1,024 of them on one core).
TOKENS_PER_BATCH = {"cpu": 1_024}
TOKENS_PER_BATCH_ON_CARDS = 8_192
MAX_ROWS_PER_BATCH = 64
FUSED_MARK = "ftq_fused_head"  # attribute of a model whose forward has TRL's fused LM head


class Scorer(Protocol):
    """Scores a model on rows; returns the figures of an `eval` event, without set and when."""

    def __call__(
        self,
        model: torch.nn.Module,
        rows: Dataset,
        on_rows: "OnRows" = lambda count: None,
        *,
        on_scores: "OnScores" = lambda scores: None,
    ) -> dict[str, float]:
        """Return the figures; the model's train mode is restored.

        `on_rows` is told after each batch how many rows were scored with it, `on_scores` at the
        end the score of each row, always in the same order.
        """


OnRows = Callable[[int], object]
OnScores = Callable[[list["RowScore"]], object]


def score_language(
    model: torch.nn.Module,
    rows: Dataset,
    on_rows: OnRows = lambda count: None,
    *,
    on_scores: OnScores = lambda scores: None,
    pad_id: int = 0,
    precision: str = "fp32",
) -> dict[str, float]:
    """Return loss per trained token with its interval, where there is one, and the token accuracy.

    `rows` has `input_ids`, `labels` (-100 where not counted) and `length`. The loss is the sum
    over all trained tokens of all rows divided by their number, in nats.
    """
    start = time.monotonic()
    parts: list[RowScore] = []
    for batch, counts in _batches(rows, model):
        scored = _score_language_batch(model, batch, pad_id, precision)
        if counts:
            parts += scored
            on_rows(len(scored))
    parts = _from_all_ranks(parts)
    on_scores(parts)
    tokens = sum(p.count for p in parts)
    return {
        **_loss(parts),
        "tokens_accuracy": sum(p.right for p in parts) / max(tokens, 1),
        "rows": len(parts),
        "seconds": round(time.monotonic() - start, 3),
    }


def score_labels(
    model: torch.nn.Module,
    rows: Dataset,
    on_rows: OnRows = lambda count: None,
    *,
    on_scores: OnScores = lambda scores: None,
    pad_id: int = 0,
    precision: str = "fp32",
) -> dict[str, float]:
    """Return loss per example, accuracy with its Wilson interval, and macro F1.

    `rows` has `input_ids`, `label` (class id) and `length`.
    """
    start = time.monotonic()
    parts: list[RowScore] = []
    for batch, counts in _batches(rows, model):
        scored = _score_labels_batch(model, batch, pad_id, precision)
        if counts:
            parts += scored
            on_rows(len(scored))
    parts = _from_all_ranks(parts)
    on_scores(parts)
    right = sum(p.right for p in parts)
    accuracy_low, accuracy_high = wilson(right, len(parts))
    return {
        **_loss(parts),
        "accuracy": right / max(len(parts), 1),
        "accuracy_low": accuracy_low,
        "accuracy_high": accuracy_high,
        "f1_macro": macro_f1([p.predicted for p in parts], [p.actual for p in parts]),
        "rows": len(parts),
        "seconds": round(time.monotonic() - start, 3),
    }


def _loss(parts: list["RowScore"]) -> dict[str, float]:
    """Return the loss, with its interval where the rows show one."""
    loss, ends = ratio_interval([p.loss for p in parts], [p.count for p in parts])
    return {"loss": loss} | ({"loss_low": ends[0], "loss_high": ends[1]} if ends else {})


@dataclass(frozen=True)
class RowScore:
    """One scored row: summed loss, what it was summed over, and how much of it was right."""

    loss: float
    count: int
    right: int
    predicted: int = 0  # class id, classification only
    actual: int = 0


def _batches(rows: Dataset, model: torch.nn.Module) -> Iterator[tuple[dict[str, list[Any]], bool]]:
    """Yield this rank's rows, sorted by length, in batches of a bounded number of tokens.

    Each with whether it counts: ranks that hold parts of one model have to run it equally often,
    so that one with fewer batches gets some more.
    """
    most = TOKENS_PER_BATCH.get(device_of(model).type, TOKENS_PER_BATCH_ON_CARDS)
    rank, world = _rank_and_world()
    lengths, order = list(rows["length"]), scoring_order(rows)
    mine = _cut(order[rank::world], lengths, most)
    for batch in mine:
        yield rows[batch], True
    if is_sharded(model):
        longest = max(len(_cut(order[other::world], lengths, most)) for other in range(world))
        for _ in range(longest - len(mine)):
            yield rows[order[:1]], False


def _cut(order: Sequence[int], lengths: Sequence[int], most: int) -> list[list[int]]:
    """Cut rows that are sorted by length into batches of up to `most` tokens, padding counted."""
    batches: list[list[int]] = []
    for row in order:
        # Sorted: the last row of a batch is its longest, so padding makes size * length tokens.
        size = len(batches[-1]) + 1 if batches else 0
        if batches and size <= MAX_ROWS_PER_BATCH and size * lengths[row] <= most:
            batches[-1].append(row)
        else:
            batches.append([row])
    return batches


def scoring_order(rows: Dataset) -> list[int]:
    """Return the positions of the rows in the order in which they are scored: by their length."""
    lengths = list(rows["length"])
    return sorted(range(len(rows)), key=lambda i: (lengths[i], i))


def _score_language_batch(
    model: torch.nn.Module, batch: Mapping[str, list[Any]], pad_id: int, precision: str
) -> list[RowScore]:
    ids, mask = pad_right(batch["input_ids"], pad_id)
    labels, _ = pad_right(batch["labels"], -100)
    with _evaluating(model), _autocast(model, precision):
        device = device_of(model)
        out = with_fused_head(model)(
            input_ids=ids.to(device),
            attention_mask=mask.to(device),
            labels=labels.to(device),
            fused_lm_head=True,
        )
    losses = (-out.log_probs.float()).sum(dim=1).tolist()  # [rows, tokens - 1] -> [rows]
    counts = out.label_mask.sum(dim=1).tolist()
    right = out.is_top1.sum(dim=1).tolist()
    return [RowScore(*row) for row in zip(losses, counts, map(int, right), strict=True)]


def _score_labels_batch(
    model: torch.nn.Module, batch: Mapping[str, list[Any]], pad_id: int, precision: str
) -> list[RowScore]:
    ids, mask = pad_right(batch["input_ids"], pad_id)
    device = device_of(model)
    with _evaluating(model), _autocast(model, precision):
        out = model(input_ids=ids.to(device), attention_mask=mask.to(device))
    logits = out.logits.float().cpu()  # [rows, labels]
    actual = torch.tensor(batch["label"])
    losses = torch.nn.functional.cross_entropy(logits, actual, reduction="none").tolist()
    predicted = logits.argmax(dim=1).tolist()
    return [
        RowScore(loss, 1, int(guess == truth), guess, truth)
        for loss, guess, truth in zip(losses, predicted, actual.tolist(), strict=True)
    ]


def pad_right(rows: Sequence[Sequence[int]], value: int) -> tuple[Tensor, Tensor]:
    """Return (padded, mask), both [rows, longest]: the mask follows position, never a token id."""
    longest = max(len(row) for row in rows)
    padded = torch.full((len(rows), longest), value, dtype=torch.long)
    mask = torch.zeros((len(rows), longest), dtype=torch.long)
    for i, row in enumerate(rows):
        padded[i, : len(row)] = torch.tensor(row, dtype=torch.long)
        mask[i, : len(row)] = 1
    return padded, mask


def with_fused_head(model: torch.nn.Module) -> torch.nn.Module:
    """Give a decoder TRL's fused LM head, once: no [rows, tokens, vocabulary] logits are made."""
    base: Any = model
    if hasattr(base, "get_base_model"):
        base = base.get_base_model()
    if not getattr(base, FUSED_MARK, False):
        add_fused_lm_head(base, outputs=("log_probs", "entropy", "is_top1"))
        setattr(base, FUSED_MARK, True)
    return model


def device_of(model: torch.nn.Module) -> torch.device:
    """Return the device of the model's first parameter."""
    return next(model.parameters()).device


def _autocast(model: torch.nn.Module, precision: str) -> AbstractContextManager[Any]:
    dtypes = {"bf16": torch.bfloat16, "fp16": torch.float16}
    if precision not in dtypes:
        return nullcontext()
    return torch.autocast(device_of(model).type, dtype=dtypes[precision])


class _evaluating:  # noqa: N801 - reads as the context that it is
    """No gradients and no dropout inside; the mode of before afterwards."""

    def __init__(self, model: torch.nn.Module) -> None:
        self._model, self._was = model, model.training
        self._no_grad = torch.no_grad()

    def __enter__(self) -> None:
        self._no_grad.__enter__()
        self._model.eval()

    def __exit__(self, *error: object) -> None:
        self._model.train(self._was)
        self._no_grad.__exit__(*error)


def _rank_and_world() -> tuple[int, int]:
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return 0, 1
    return torch.distributed.get_rank(), torch.distributed.get_world_size()


def _from_all_ranks(parts: list[RowScore]) -> list[RowScore]:
    """Return every rank's rows in the order of `_batches`, however many ranks there are."""
    world = _rank_and_world()[1]
    if world == 1:
        return parts
    gathered: list[list[RowScore]] = [[] for _ in range(world)]
    torch.distributed.all_gather_object(gathered, parts)
    return [gathered[i % world][i // world] for i in range(sum(map(len, gathered)))]


def scoring_progress(emit: Emit, control: Control, task: str, rows: int) -> OnRows:
    """Return what is to be told of each scored batch; `rows` is the number of all, on all ranks."""
    progress = Progress(emit, control, task, "rows", rows, after_s=1.0)
    world = _rank_and_world()[1]

    def scored(count: int) -> None:
        progress.at(min(rows, progress.done + count * world))
        if progress.done >= rows:
            progress.finish()

    return scored


def rounded(figures: dict[str, float]) -> dict[str, float]:
    """Return figures with seven significant digits: float32 has no more, and lines stay short."""
    return {k: float(f"{v:.7g}") if isinstance(v, float) else v for k, v in figures.items()}
