"""The `auto` rules of training: pure functions from facts to a value and its reason.

Imports no torch: `scripts/docs.py` and the tests of the rules do without it.
"""

import math
from typing import Literal

from ftq_shared.spec import LEAST_RANK, Task
from ftq_worker.job.auto import Resolved, auto_rule
from ftq_worker.training.attention import Precision, packs_fast
from ftq_worker.training.facts import RunFacts
from ftq_worker.training.memory_need import USABLE, Checkpointing
from ftq_worker.training.memory_plan import BUSY_TOKENS, Method, Plan
from ftq_worker.training.memory_plan import MOST_ROWS as MAX_MICRO_BATCH

# On a CPU 8 rows a pass, more where rows are short: below some 1,000 tokens a pass is bound by its
# overhead (MiniLM, rows of 12 tokens, 2 cores: 32 rows a pass took half the time of 8).
CPU_MICRO_BATCH = 8
CPU_TOKENS = 2_048  # of a pass, padding counted
FEWEST_STEPS = 100  # batch_size is halved until a run has as many
SMALLEST_BATCH = 4
EVALS_PER_RUN = 10
EVAL_SHARE = 0.10  # of the run's time, at most
TRAIN_COST = 3.0  # a training pass over a row costs about three forward passes
# Roughly, to weigh a save against training: operations per second of two cores and of an A100, and
# bytes that torch writes per second.
SPEED = {"cpu": 1e11, "cuda": 1e14}
WRITTEN_PER_S = 1e9
# What an adapter can hold, and what there is to learn: about 2 bits for each of its numbers
# (Allen-Zhu & Li 2024, arXiv 2404.05405), about one for each trained token (Schulman et al. 2025,
# "LoRA Without Regret", section on capacity).
BITS_OF_A_NUMBER = 2
BITS_OF_A_TOKEN = 1
HIGHEST_RANK = 256
WARMUP_SHARE = {Task.CLASSIFICATION: 0.06}
WARMUP_SHARE_ELSE = 0.03
SAVE_EVERY_MIN_S = 120.0  # never more often than every 2 minutes
SAVE_EVERY_MAX_S = 1_800.0  # at most 30 minutes of work are lost
SAVE_COST = 50  # saving costs at most a fiftieth of the time
_SAVE_BOUNDS = f"between {SAVE_EVERY_MIN_S / 60:.0f} and {SAVE_EVERY_MAX_S / 60:.0f} minutes"

Strategy = Literal["ddp", "fsdp"]


@auto_rule(
    "train.method",
    "encoder: full; decoder: LoRA; QLoRA when LoRA fits the card in no other way and bitsandbytes"
    " is installed",
)
def method(facts: RunFacts, plan: Plan | None = None) -> Resolved[Method]:
    if plan and plan.setup.method == "qlora":
        price = "the base is rounded to 4 bits, and multiplied out in every pass"
        return Resolved("qlora", f"LoRA does not fit; {price}; {plan.why}")
    kind = methods(facts)[0]
    if kind == "full":
        return Resolved("full", "an encoder is small enough to train whole")
    return Resolved("lora", "a decoder: LoRA keeps the base frozen")


def methods(facts: RunFacts, quantized: bool = False) -> list[Method]:
    """Return the methods that `auto` may come to, the better first."""
    if facts.model.kind == "encoder":
        return ["full"]
    return ["lora", "qlora"] if quantized else ["lora"]


@auto_rule(
    "train.gradient_checkpointing",
    "none where plain training fits the card with a pass that keeps it busy"
    f" ({BUSY_TOKENS:,} tokens); else every fourth layer, every second, all, the first that fits;"
    " then smaller passes; none on a CPU",
)
def gradient_checkpointing(facts: RunFacts, plan: Plan | None = None) -> Resolved[Checkpointing]:
    if plan is None:
        return Resolved("none", "CPU: memory is not short, and nothing is computed twice")
    return Resolved(plan.setup.checkpointing, f"{plan.price()}; {plan.why}")


@auto_rule(
    "train.epochs", "classification 4; SFT 3 below 5,000 rows, 2 below 50,000, else 1; text 1"
)
def epochs(facts: RunFacts) -> Resolved[float]:
    if facts.task is Task.CLASSIFICATION:
        return Resolved(4, "classification: four, the best is kept")
    if facts.task is not Task.SFT:
        return Resolved(1, f"{facts.task}: one pass")
    for limit, passes in ((5_000, 3), (50_000, 2)):
        if facts.rows < limit:
            return Resolved(passes, f"{facts.rows:,} rows, below {limit:,}")
    return Resolved(1, f"{facts.rows:,} rows, 50,000 or more")


@auto_rule(
    "train.learning_rate",
    "LoRA / full: SFT 2e-4 / 2e-5 (full, 7 billion parameters or more: 1e-5), text 1e-4 / 1e-5;"
    " full encoder by hidden size: up to 384 2e-4, below 1,024 5e-5, else 2e-5",
)
def learning_rate(facts: RunFacts, how: Method) -> Resolved[float]:
    if facts.model.kind == "encoder" and how == "full":
        size = facts.model.hidden_size
        rate = 2e-4 if size <= 384 else 5e-5 if size < 1024 else 2e-5
        return Resolved(rate, f"encoder with hidden size {size}")
    whole = how == "full"
    if facts.task is Task.TEXT:
        return Resolved(1e-5 if whole else 1e-4, f"plain text, {how}")
    if facts.task is Task.PREFERENCE:
        return Resolved(5e-7 if whole else 5e-6, f"preference, {how}")
    large = (facts.model.parameters or 0) >= 7e9
    if whole and large:
        return Resolved(1e-5, f"{facts.task}, full, 7 billion parameters or more")
    return Resolved(2e-5 if whole else 2e-4, f"{facts.task}, {how}")


@auto_rule(
    "train.lora.r",
    f"{LEAST_RANK}, doubled up to {HIGHEST_RANK} until the adapter's numbers can hold the trained"
    f" tokens of all epochs: {BITS_OF_A_NUMBER} bits a number, {BITS_OF_A_TOKEN} a token",
)
def lora_rank(facts: RunFacts, passes: float) -> Resolved[int]:
    rank, to_learn = LEAST_RANK, facts.trained_tokens * passes * BITS_OF_A_TOKEN
    held = BITS_OF_A_NUMBER * facts.adapter_numbers  # by a rank of one
    while held and rank < HIGHEST_RANK and rank * held < to_learn:
        rank *= 2
    if rank == LEAST_RANK:
        return Resolved(rank, "holds more than the rows have to teach")
    tokens = f"{facts.trained_tokens:,} trained tokens in {passes:g} epochs"
    return Resolved(rank, f"{rank * facts.adapter_numbers:,} numbers for {tokens}")


@auto_rule(
    "train.batch_size",
    f"32 for classification, else 16; halved down to {SMALLEST_BATCH} until there are"
    f" {FEWEST_STEPS} steps",
)
def batch_size(
    facts: RunFacts, passes: float, max_steps: int | None, unit: int = 1
) -> Resolved[int]:
    """Return a multiple of `unit`, which is ranks times a micro-batch that a person chose."""
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
    return Resolved(size, why)


@auto_rule(
    "train.micro_batch",
    f"the largest divisor of a device's share of the batch, up to {MAX_MICRO_BATCH}, within"
    f" {100 * USABLE:.0f} % of the card's memory, counted; on a CPU up to {CPU_MICRO_BATCH} rows,"
    f" or with short rows as many as have {CPU_TOKENS:,} tokens",
)
def micro_batch(facts: RunFacts, batch: int, plan: Plan | None = None) -> Resolved[int]:
    share = batch // facts.device.world_size
    if plan is None:
        rows = max(CPU_MICRO_BATCH, min(MAX_MICRO_BATCH, CPU_TOKENS // facts.max_length))
        why = f"CPU: up to {rows} rows of at most {facts.max_length} tokens at a time"
        return Resolved(largest_divisor(share, rows), why)
    return Resolved(plan.setup.micro_batch, f"{facts.device.name}: {plan.why}")


@auto_rule("train.precision", "bf16 on Ampere and later, fp16 on older cards, fp32 on a CPU")
def precision(facts: RunFacts) -> Resolved[Precision]:
    if facts.device.kind == "cpu":
        return Resolved("fp32", "CPU")
    kind: Precision = "bf16" if facts.device.bf16 else "fp16"
    return Resolved(kind, f"{facts.device.name}, compute capability {facts.device.capability}")


@auto_rule(
    "train.packing",
    "on CUDA with a variable-length attention kernel, where the model keeps documents apart:"
    " packed; else rows are grouped by length",
)
def packing(facts: RunFacts, kind: Precision) -> Resolved[bool]:
    if facts.task is Task.CLASSIFICATION:
        return Resolved(False, "classification: one row, one label; grouped by length")
    if facts.attention.mixing:
        return Resolved(False, f"{facts.attention.mixing}; grouped by length")
    if facts.device.kind == "cpu":
        return Resolved(False, "CPU: rows of similar length share a batch, with little padding")
    if not (kernel := packs_fast(facts.attention, facts.host, kind)):
        return Resolved(
            False, "no variable-length attention kernel here; grouped by length instead"
        )
    return Resolved(True, f"no padding at all: {kernel}")


@auto_rule(
    "train.eval_every",
    f"{EVALS_PER_RUN} per run, with keeping the best at most a tenth of the training's time",
)
def eval_every(facts: RunFacts, how: Method, steps: int, passes: float) -> Resolved[int]:
    each = facts.validation_rows / TRAIN_COST + (save_cost(facts) if how == "full" else 0)
    cost = each / max(facts.rows * passes, 1)
    affordable = max(1, int(EVAL_SHARE / cost)) if cost else EVALS_PER_RUN
    count = min(EVALS_PER_RUN, affordable, steps)
    why = f"{count} a run"
    if affordable < EVALS_PER_RUN:
        why += (
            f": {facts.validation_rows:,} rows, and keeping the best, would take more than a tenth"
            " of the time"
        )
    return Resolved(max(1, math.ceil(steps / count)), why)


def save_cost(facts: RunFacts) -> float:
    """Return about how many training rows take as long as writing all weights once.

    A training pass takes six operations for each weight and token (Kaplan et al. 2020, arXiv
    2001.08361, section 2.1), a save four bytes for each weight: their number cancels out.
    """
    row_s = 6 * facts.mean_length / SPEED[facts.device.kind]
    return 4 / WRITTEN_PER_S / row_s if row_s else 0.0


@auto_rule("train.save_every", f"{SAVE_COST} times the time of one save, {_SAVE_BOUNDS}")
def save_every_s(save_s: float) -> Resolved[float]:
    """Return the seconds between checkpoints that take `save_s` each."""
    seconds = min(max(SAVE_COST * save_s, SAVE_EVERY_MIN_S), SAVE_EVERY_MAX_S)
    why = f"{SAVE_COST} times the {save_s:.1f} s of a save, {_SAVE_BOUNDS}"
    return Resolved(round(seconds, 1), why)


def warmup_steps(task: Task, steps: int) -> int:
    """Return the steps of linear warm-up: 6 % for classification, else 3 %."""
    return round(WARMUP_SHARE.get(task, WARMUP_SHARE_ELSE) * steps)


def steps_of(rows: int, batch: int, passes: float) -> int:
    """Return the optimizer steps of a run; the last batch of a pass may be short."""
    return math.ceil(passes * math.ceil(rows / batch))


def largest_divisor(number: int, limit: int) -> int:
    """Return the largest divisor of `number` that is at most `limit`."""
    return next(d for d in range(min(number, limit), 0, -1) if number % d == 0)


def has_bitsandbytes() -> bool:
    """Return whether weights can be quantized to 4 bits here."""
    from transformers.utils import is_bitsandbytes_available

    return bool(is_bitsandbytes_available())
