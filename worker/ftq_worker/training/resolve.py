"""Every value that a run uses, worked out once, before anything is loaded onto a device."""

import math
from collections.abc import Callable
from dataclasses import replace

from ftq_shared.duration import parse_duration
from ftq_shared.errors import Refused, UsageError, task_unsupported
from ftq_shared.spec import Auto, Task, Train
from ftq_worker.job.auto import Resolved, Value
from ftq_worker.job.context import PhaseContext
from ftq_worker.job.reports import read_resolved
from ftq_worker.training import auto_rules
from ftq_worker.training.auto_rules import Method
from ftq_worker.training.facts import RunFacts
from ftq_worker.training.settings import TrainSettings
from ftq_worker.training.trainer_args import check_trainer_args


def resolve_settings(ctx: PhaseContext, facts: RunFacts) -> TrainSettings:
    """Return the settings; every `auto` is resolved once per job and sent as an event.

    A later attempt uses what the first one resolved, so that it trains the same thing.
    Raises UsageError for values that cannot work together, Refused for what this host lacks.
    """
    train = ctx.spec.train
    check_trainer_args(facts.task, train.args)
    pick = _Resolver(ctx)
    method: Method = pick(
        "train.method", train.method, lambda: auto_rules.method(facts, train.lora)
    )
    _refuse_method(method, facts)
    epochs = pick("train.epochs", train.epochs, lambda: auto_rules.epochs(facts))
    rate = pick(
        "train.learning_rate", train.learning_rate, lambda: auto_rules.learning_rate(facts, method)
    )
    unit = facts.device.world_size * (1 if train.micro_batch == "auto" else train.micro_batch)
    batch = pick(
        "train.batch_size",
        train.batch_size,
        lambda: auto_rules.batch_size(facts, epochs, train.max_steps, unit),
    )
    micro = pick(
        "train.micro_batch",
        train.micro_batch,
        lambda: auto_rules.micro_batch(facts, method, train.lora, batch),
    )
    accumulation = _accumulation(batch, micro, facts.device.world_size)
    per_epoch = math.ceil(facts.rows / batch)
    steps = train.max_steps or auto_rules.steps_of(facts.rows, batch, epochs)
    return TrainSettings(
        task=facts.task,
        method=method,
        epochs=steps / per_epoch if train.max_steps else epochs,
        steps=steps,
        steps_per_epoch=per_epoch,
        learning_rate=rate,
        warmup_steps=auto_rules.warmup_steps(facts.task, steps),
        batch_size=batch,
        micro_batch=micro,
        accumulation=accumulation,
        packing=pick("train.packing", train.packing, lambda: auto_rules.packing(facts)),
        precision=pick("train.precision", train.precision, lambda: auto_rules.precision(facts)),
        max_length=facts.max_length,
        eval_every=_eval_every(pick, train, facts, steps, steps / per_epoch),
        save_every_steps=train.save_every if isinstance(train.save_every, int) else None,
        save_every_s=_save_every_s(ctx),
        seed=train.seed,
        lora=None if method == "full" else train.lora,
        on_cpu=facts.device.kind == "cpu",
        world_size=facts.device.world_size,
        args=dict(train.args),
    )


class _Resolver:
    """Takes the person's value, else what the job resolved before, else the rule's."""

    def __init__(self, ctx: PhaseContext) -> None:
        self._ctx = ctx
        self._known = read_resolved(ctx.paths)

    def __call__(
        self, field: str, given: Value | Auto, rule: Callable[[], Resolved[Value]]
    ) -> Value:
        if given != "auto":
            return given
        if field in self._known:
            known: Value = self._known[field]["value"]
            return known
        resolved = rule()
        if self._ctx.devices.rank == 0:  # every rank works out the same; one of them says so
            self._ctx.resolve(field, resolved.value, resolved.reason)
        return resolved.value


def _refuse_method(method: str, facts: RunFacts) -> None:
    if facts.task is Task.PREFERENCE:
        raise task_unsupported(facts.task)
    if method == "qlora" and (facts.device.kind != "cuda" or not auto_rules.has_bitsandbytes()):
        raise Refused(
            "train.method: qlora needs a CUDA GPU and the bitsandbytes package on the worker",
            code="method_not_supported",
            hint="set train.method to lora, or install bitsandbytes on the workers",
            field="train.method",
        )


def _accumulation(batch: int, micro: int, world: int) -> int:
    """Return the forward passes per step; raises UsageError when the numbers do not divide."""
    if batch % (micro * world):
        per_rank = max(1, batch // world)
        good = auto_rules.largest_divisor(per_rank, micro) if batch % world == 0 else 0
        fix = f"micro_batch {good}" if good else f"batch_size {math.ceil(batch / world) * world}"
        raise UsageError(
            f"train.batch_size {batch} is not {world} rank(s) times micro-batches of {micro}",
            code="batch_does_not_divide",
            hint=f"for example {fix}",
            field="train.batch_size",
        )
    return batch // (micro * world)


def _eval_every(
    pick: _Resolver, train: Train, facts: RunFacts, steps: int, passes: float
) -> int | None:
    if not facts.validation_rows:
        return None
    every: int = pick(
        "train.eval_every", train.eval_every, lambda: auto_rules.eval_every(facts, steps, passes)
    )
    return min(every, steps)


def _save_every_s(ctx: PhaseContext) -> float | None:
    """Return the seconds between checkpoints, None where steps count or nothing is known yet."""
    value = ctx.spec.train.save_every
    if isinstance(value, int):
        return None
    if value == "auto":
        known = read_resolved(ctx.paths).get("train.save_every")
        return float(known["value"].removesuffix("s")) if known else None
    return float(parse_duration(value))


def with_packing(
    settings: TrainSettings, rows: int, packed_rows: int, max_steps: int | None
) -> TrainSettings:
    """Return the settings for `rows` that were packed into `packed_rows` sequences.

    Packing changes how many examples one sequence holds (GSM8K: 178 examples a step instead of
    32); micro-batch and accumulation shrink so that a step still counts `batch_size` examples.
    """
    share = settings.batch_size * packed_rows / rows / settings.world_size
    per_rank = max(1, round(share))  # packed sequences per rank and step
    micro = auto_rules.largest_divisor(per_rank, settings.micro_batch)
    per_epoch = math.ceil(packed_rows / (per_rank * settings.world_size))
    return replace(
        settings,
        micro_batch=micro,
        accumulation=per_rank // micro,
        steps_per_epoch=per_epoch,
        steps=max_steps or math.ceil(settings.epochs * per_epoch),
    )
