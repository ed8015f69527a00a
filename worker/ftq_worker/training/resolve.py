"""Every value that a run uses, worked out once, before anything is loaded onto a device."""

import math
from collections.abc import Callable
from dataclasses import replace

from ftq_shared.duration import parse_duration
from ftq_shared.errors import Refused, UsageError, task_unsupported
from ftq_shared.spec import Auto, Task, Train
from ftq_worker.job.auto import Resolved, Value, auto_rule
from ftq_worker.job.context import PhaseContext
from ftq_worker.job.reports import read_resolved
from ftq_worker.training import auto_rules
from ftq_worker.training.attention import Precision
from ftq_worker.training.auto_rules import Strategy
from ftq_worker.training.facts import RunFacts
from ftq_worker.training.memory_need import Checkpointing, Need, Setup, Uncountable
from ftq_worker.training.memory_plan import Count, Method, Plan, make_plan
from ftq_worker.training.settings import TrainSettings
from ftq_worker.training.sharded_need import on_each_card
from ftq_worker.training.trainer_args import check_trainer_args


def resolve_settings(
    ctx: PhaseContext, facts: RunFacts, count: Count | None = None
) -> TrainSettings:
    """Return the settings; every `auto` is resolved once per job and sent as an event.

    A later attempt uses what the first one resolved, so that it trains the same thing. `count` says
    what a step needs of the card, on a card. Raises UsageError for values that cannot work
    together, Refused for what this host lacks and for what fits its card in no way.
    """
    train = ctx.spec.train
    check_trainer_args(facts.task, train.args)
    pick = _Resolver(ctx)
    epochs = pick("train.epochs", train.epochs, lambda: auto_rules.epochs(facts))
    unit = facts.device.world_size * (1 if train.micro_batch == "auto" else train.micro_batch)
    batch = pick(
        "train.batch_size",
        train.batch_size,
        lambda: auto_rules.batch_size(facts, epochs, train.max_steps, unit),
    )
    precision: Precision = pick(
        "train.precision", train.precision, lambda: auto_rules.precision(facts)
    )
    adapts = auto_rules.methods(facts) if train.method == "auto" else [train.method]
    if "full" not in adapts:  # first: memory depends on the rank
        rank = pick("train.lora.r", train.lora.r, lambda: auto_rules.lora_rank(facts, epochs))
        lora = train.lora.model_copy(update={"r": rank})
        train = train.model_copy(update={"lora": lora})
    plan = _Planner(pick.pinned(train), facts, count, precision, batch)
    method = _method(pick, train, facts, plan)
    rate = pick(
        "train.learning_rate", train.learning_rate, lambda: auto_rules.learning_rate(facts, method)
    )
    checkpointing, micro = _passes(pick, train, facts, plan, batch)
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
        layerwise_lr_decay=train.layerwise_lr_decay,
        class_weights=train.class_weights,
        warmup_steps=auto_rules.warmup_steps(facts.task, steps),
        batch_size=batch,
        micro_batch=micro,
        accumulation=accumulation,
        gradient_checkpointing=checkpointing,
        packing=pick("train.packing", train.packing, lambda: auto_rules.packing(facts, precision)),
        precision=precision,
        max_length=facts.max_length,
        eval_every=_eval_every(pick, train, facts, method, steps, steps / per_epoch),
        save_every_steps=train.save_every if isinstance(train.save_every, int) else None,
        save_every_s=_save_every_s(ctx),
        on_divergence=pick("train.on_divergence", train.on_divergence),
        seed=train.seed,
        lora=None if method == "full" else train.lora,
        on_cpu=facts.device.kind == "cpu",
        world_size=facts.device.world_size,
        strategy=plan.strategy,
        args=dict(train.args),
        counted_bytes=plan.bytes_of(method, checkpointing, micro),
    )


class _Resolver:
    """Takes what the job resolved before, else the person's value, else the rule's.

    What a person has given is resolved only by a fault: see `recovery`.
    """

    def __init__(self, ctx: PhaseContext) -> None:
        self._ctx = ctx
        self._known = {
            name: it
            for name, it in read_resolved(ctx.paths).items()
            if it.get("token", math.inf) > ctx.fresh_after
        }

    def pinned(self, train: Train) -> Train:
        """Return the settings with what the job has resolved before in the place of `auto`."""
        names = ("method", "gradient_checkpointing", "micro_batch")
        known = {name: self._known.get(f"train.{name}") for name in names}
        resolved = {name: it["value"] for name, it in known.items() if it}
        return train.model_copy(
            update={name: v for name, v in resolved.items() if getattr(train, name) == "auto"}
        )

    def __call__(
        self, field: str, given: Value | Auto, rule: Callable[[], Resolved[Value]] | None = None
    ) -> Value:
        if field in self._known:
            known: Value = self._known[field]["value"]
            return known
        if given != "auto":
            return given
        assert rule, field  # it has no `auto`
        resolved = rule()
        if self._ctx.devices.rank == 0:  # every rank works out the same; one of them says so
            self._ctx.resolve(field, resolved.value, resolved.reason)
        return resolved.value


class _Planner:
    """Works out once how the run fits its card; None on a CPU, where memory is not short."""

    def __init__(
        self,
        train: Train,
        facts: RunFacts,
        count: Count | None,
        precision: Precision,
        batch: int,
    ) -> None:
        self._train, self._facts, self._count = train, facts, count
        self._share = max(1, batch // facts.device.world_size)
        self._start = Setup(
            task=facts.task,
            method="full",
            precision=precision,
            micro_batch=1,
            length=facts.max_length,
            lora=train.lora,
            ranks=facts.device.world_size,
            labels=max(facts.labels, 2),
        )
        self._plan: Plan | None = None
        self.strategy: Strategy = "ddp"

    def __call__(self) -> Plan | None:
        if self._count and self._plan is None:
            quantized = auto_rules.has_bitsandbytes() and self.strategy == "ddp"
            self._plan = self._made(quantized=quantized)
        return self._plan

    @auto_rule(
        "train.parallel.strategy",
        "ddp: each GPU has the whole model; fsdp where there are several and one holds it in no"
        " way without rounding it to 4 bits",
    )
    def share_out(self) -> Resolved[Strategy]:
        ranks = self._facts.device.world_size
        if self._count is None or self._train.method == "qlora":
            return Resolved("ddp", f"{ranks} ranks, each with the whole model")
        try:
            self._plan = self._made(quantized=False)
        except Refused as error:
            return Resolved("fsdp", f"sharded over {ranks} GPUs: on one, {error.message}")
        return Resolved("ddp", f"each GPU holds the whole model: {self._plan.why}")

    def _made(self, *, quantized: bool) -> Plan:
        """Return the plan for this strategy. Raises Refused where nothing fits."""
        auto = auto_rules.methods(self._facts, quantized)
        given = self._train.method
        methods = auto if given == "auto" else [given]
        card = self._facts.device.memory_bytes
        return make_plan(self._counted, self._start, self._train, methods, self._share, card)

    def _counted(self, setup: Setup) -> Need:
        assert self._count
        need = self._count(setup)
        return on_each_card(need, setup, self._facts) if self.strategy == "fsdp" else need

    def bytes_of(self, method: Method, checkpointing: Checkpointing, micro: int) -> int | None:
        """Return what a step's tensors are counted to hold on a card; None on a CPU, or unknown."""
        setup = replace(
            self._start,
            method=method,
            checkpointing=checkpointing,
            micro_batch=micro,
            accumulates=micro < self._share,
        )
        if self._plan and self._plan.setup == setup:
            return self._plan.need.tensors if self._plan.need else None
        try:  # all was given, or an earlier attempt has chosen
            return self._counted(setup).tensors if self._count else None
        except Uncountable:
            return None


def _method(pick: _Resolver, train: Train, facts: RunFacts, plan: _Planner) -> Method:
    """Return the method, once the plan has its strategy; raises Refused for what cannot be done."""
    if facts.device.world_size > 1 or train.parallel.strategy != "auto":  # else there is no choice
        plan.strategy = pick("train.parallel.strategy", train.parallel.strategy, plan.share_out)
    method: Method = pick("train.method", train.method, lambda: auto_rules.method(facts, plan()))
    _refuse_method(method, facts)
    _refuse_sharding(plan.strategy, method, facts)
    return method


def _passes(
    pick: _Resolver, train: Train, facts: RunFacts, plan: _Planner, batch: int
) -> tuple[Checkpointing, int]:
    """Return the checkpointing and the micro-batch of a forward pass."""
    checkpointing: Checkpointing = pick(
        "train.gradient_checkpointing",
        train.gradient_checkpointing,
        lambda: auto_rules.gradient_checkpointing(facts, plan()),
    )
    micro: int = pick(
        "train.micro_batch", train.micro_batch, lambda: auto_rules.micro_batch(facts, batch, plan())
    )
    return checkpointing, micro


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


def _refuse_sharding(strategy: Strategy, method: Method, facts: RunFacts) -> None:
    if strategy == "fsdp" and facts.device.world_size == 1:
        raise Refused(
            "train.parallel.strategy: fsdp shards the model over several GPUs, and this is one",
            code="sharding_not_supported",
            hint="set resources.gpus to 2 or more, or train.parallel.strategy to ddp",
            field="train.parallel.strategy",
        )
    if strategy == "fsdp" and method == "qlora":
        raise Refused(
            "train.parallel.strategy: fsdp does not shard the 4-bit weights of qlora",
            code="sharding_not_supported",
            hint="set train.method to lora, or train.parallel.strategy to ddp",
            field="train.parallel.strategy",
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
    pick: _Resolver, train: Train, facts: RunFacts, how: Method, steps: int, passes: float
) -> int | None:
    if not facts.validation_rows:
        return None
    every: int = pick(
        "train.eval_every",
        train.eval_every,
        lambda: auto_rules.eval_every(facts, how, steps, passes),
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
