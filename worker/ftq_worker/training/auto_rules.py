"""The `auto` rules of training: pure functions from facts to a value and its reason.

The table is docs/spec.md's (design, section 3). Each rule says why in words, because the value is
shown, stored and published together with its reason.
"""

import math
from dataclasses import dataclass
from typing import Any

from ftq_shared.spec import Lora, Task
from ftq_worker.training.facts import RunFacts
from ftq_worker.training.memory import estimate, largest_micro_batch

# On a CPU 8 rows a pass, more where rows are short: below some 1,000 tokens a pass is bound by its
# overhead (MiniLM, rows of 12 tokens, 2 cores: 32 rows a pass took half the time of 8).
CPU_MICRO_BATCH = 8
CPU_TOKENS = 2_048  # of a pass, padding counted
MAX_MICRO_BATCH = 64  # beyond this a card is full of work anyway
FEWEST_STEPS = 100  # batch_size is halved until a run has as many
SMALLEST_BATCH = 4
EVALS_PER_RUN = 10
EVAL_SHARE = 0.10  # of the run's time, at most
TRAIN_COST = 3.0  # a training pass over a row costs about three forward passes
WARMUP_SHARE = {Task.CLASSIFICATION: 0.06}
WARMUP_SHARE_ELSE = 0.03


@dataclass(frozen=True)
class Choice:
    """A resolved value and why it was chosen."""

    value: Any
    reason: str


def method(facts: RunFacts, lora: Lora) -> Choice:
    """Full for encoders, LoRA for decoders; QLoRA only where the host has bitsandbytes."""
    if facts.model.kind == "encoder":
        return Choice("full", "an encoder is small enough to train whole")
    if facts.device.kind == "cuda":
        need = estimate(facts, "lora", lora, 1)
        if need.total > 0.85 * facts.device.memory_bytes and _has_bitsandbytes():
            return Choice("qlora", f"LoRA would need {need.total / 1e9:.0f} GB ({need.words()})")
    return Choice("lora", "a decoder: LoRA keeps the base frozen")


def epochs(facts: RunFacts) -> Choice:
    """Four for classification (best kept); SFT by rows; one for the rest."""
    if facts.task is Task.CLASSIFICATION:
        return Choice(4, "classification: four, the best is kept")
    if facts.task is not Task.SFT:
        return Choice(1, f"{facts.task}: one pass")
    for limit, passes in ((5_000, 3), (50_000, 2)):
        if facts.rows < limit:
            return Choice(passes, f"{facts.rows:,} rows, below {limit:,}")
    return Choice(1, f"{facts.rows:,} rows, 50,000 or more")


def learning_rate(facts: RunFacts, how: str) -> Choice:
    """By task and method; for an encoder that is trained whole, by hidden size."""
    if facts.model.kind == "encoder" and how == "full":
        size = facts.model.hidden_size
        rate = 2e-4 if size <= 384 else 5e-5 if size < 1024 else 2e-5
        return Choice(rate, f"encoder with hidden size {size}")
    whole = how == "full"
    if facts.task is Task.TEXT:
        return Choice(1e-5 if whole else 1e-4, f"plain text, {how}")
    if facts.task is Task.PREFERENCE:
        return Choice(5e-7 if whole else 5e-6, f"preference, {how}")
    large = (facts.model.parameters or 0) >= 7e9
    if whole and large:
        return Choice(1e-5, f"{facts.task}, full, 7 billion parameters or more")
    return Choice(2e-5 if whole else 2e-4, f"{facts.task}, {how}")


def batch_size(facts: RunFacts, passes: float, max_steps: int | None, unit: int = 1) -> Choice:
    """32 for classification, else 16; halved down to 4 until there are 100 steps.

    `unit` is what it must be a multiple of: ranks times a micro-batch that a person chose.
    """
    size = start = 32 if facts.task is Task.CLASSIFICATION else 16
    while (
        size > SMALLEST_BATCH
        and not max_steps
        and steps_of(facts.rows, size, passes) < FEWEST_STEPS
    ):
        size //= 2
    why = f"{start} for {facts.task}"
    if size < start:
        why += f", halved for at least {FEWEST_STEPS} steps from {facts.rows:,} rows"
    if size % unit:
        size = math.ceil(size / unit) * unit
        why += f", a multiple of {unit}"
    return Choice(size, why)


def micro_batch(facts: RunFacts, how: str, lora: Lora, batch: int) -> Choice:
    """The largest divisor of a rank's share that fits: 8 and more on a CPU, 85 % of a card."""
    share = batch // facts.device.world_size
    if facts.device.kind == "cpu":
        rows = max(CPU_MICRO_BATCH, min(MAX_MICRO_BATCH, CPU_TOKENS // facts.max_length))
        why = f"CPU: up to {rows} rows of at most {facts.max_length} tokens at a time"
        return Choice(largest_divisor(share, rows), why)
    fits = largest_micro_batch(facts, how, lora, MAX_MICRO_BATCH)
    size = largest_divisor(share, fits)
    parts = estimate(facts, how, lora, size)
    of = f"{parts.total / 1e9:.1f} of {facts.device.memory_bytes / 1e9:.0f} GB"
    return Choice(size, f"{of} on {facts.device.name}: {parts.words()}")


def precision(facts: RunFacts) -> Choice:
    """bf16 on Ampere and later, fp16 on older cards, fp32 on a CPU."""
    if facts.device.kind == "cpu":
        return Choice("fp32", "CPU")
    kind = "bf16" if facts.device.bf16 else "fp16"
    return Choice(kind, f"{facts.device.name}, compute capability {facts.device.capability}")


def packing(facts: RunFacts) -> Choice:
    """Packed on CUDA with variable-length attention and a decoder; else grouped by length."""
    if facts.task is Task.CLASSIFICATION:
        return Choice(False, "classification: one row, one label; grouped by length")
    if facts.device.kind == "cpu":
        return Choice(False, "CPU: a packed row costs more attention; grouped by length instead")
    if not _has_flash_attention():
        return Choice(False, "no variable-length attention kernel here; grouped by length instead")
    return Choice(True, "variable-length attention is there: no padding at all")


def eval_every(facts: RunFacts, steps: int, passes: float) -> Choice:
    """Ten evaluations a run, as many as cost at most a tenth of the training's time."""
    cost = facts.validation_rows / max(TRAIN_COST * facts.rows * passes, 1)
    affordable = max(1, int(EVAL_SHARE / cost)) if cost else EVALS_PER_RUN
    count = min(EVALS_PER_RUN, affordable, steps)
    why = f"{count} a run"
    if affordable < EVALS_PER_RUN:
        why += f": {facts.validation_rows:,} rows would take more than a tenth of the time"
    return Choice(max(1, math.ceil(steps / count)), why)


def warmup_steps(task: Task, steps: int) -> int:
    """Return the steps of linear warm-up: 6 % for classification, else 3 %."""
    return round(WARMUP_SHARE.get(task, WARMUP_SHARE_ELSE) * steps)


def steps_of(rows: int, batch: int, passes: float) -> int:
    """Return the optimizer steps of a run; the last batch of a pass may be short."""
    return math.ceil(passes * math.ceil(rows / batch))


def largest_divisor(number: int, limit: int) -> int:
    """Return the largest divisor of `number` that is at most `limit`."""
    return next(d for d in range(min(number, limit), 0, -1) if number % d == 0)


def _has_bitsandbytes() -> bool:
    from transformers.utils import is_bitsandbytes_available

    return bool(is_bitsandbytes_available())


def _has_flash_attention() -> bool:
    from transformers.utils import is_flash_attn_2_available

    return bool(is_flash_attn_2_available())
