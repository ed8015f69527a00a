"""How a run fits its card: method, checkpointing and micro-batch, the cheapest that do first.

Imports no torch: what a step needs comes from a function, which counts it.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

from ftq_shared.errors import Refused
from ftq_shared.spec import Train
from ftq_worker.training.memory_need import (
    USABLE,
    Checkpointing,
    Need,
    Setup,
    Uncountable,
    gb,
    smallest_card,
)

Method = Literal["full", "lora", "qlora"]
Count = Callable[[Setup], Need]

MOST_ROWS = 64  # of a pass; beyond this a card is full of work anyway
# Tokens of a pass that keep a card busy: down to here a smaller micro-batch costs nothing, and is
# taken before anything is computed twice.
BUSY_TOKENS = 4_096
LADDER: tuple[Checkpointing, ...] = ("none", 4, 2, "all")


@dataclass(frozen=True)
class Plan:
    """What is chosen, and why."""

    setup: Setup
    need: Need | None  # None: it could not be counted
    why: str

    def price(self) -> str:
        """Return what the checkpointing costs in speed."""
        every, full = self.setup.checkpointing, self.setup.method == "full"
        if every == "none":
            return "nothing is computed twice"
        # Backward costs two forward passes; with frozen weights one, as they get no gradient.
        share = (1 / 3 if full else 1 / 2) / (1 if every == "all" else every)
        which = "all layers are" if every == "all" else f"{_which(every)} is"
        return f"{which} computed twice: a step takes up to {share:.0%} longer"


def make_plan(
    count: Count, start: Setup, train: Train, methods: list[Method], share: int, card_bytes: int
) -> Plan:
    """Return the first plan that fits a card of so many bytes.

    `start` says what no choice changes, `share` is a rank's rows of an optimizer step. What the
    person gave is not changed. Raises Refused where nothing fits.
    """
    tried: list[tuple[Setup, Need]] = []
    too_large: set[Method] = set()
    ladder = list(_ladder(start, train, methods, share))
    for setup, after in zip(ladder, [*ladder[1:], None], strict=True):
        if setup.method in too_large and after and after.method == setup.method:
            continue  # no smaller pass helps; the smallest is counted, to say what would
        try:
            need = count(setup)
        except Uncountable as error:
            if setup.checkpointing != "none" and tried:
                continue  # a model that cannot checkpoint: what is left is a smaller micro-batch
            return _uncounted(start, train, methods, share, str(error))
        if need.fits(card_bytes):
            return Plan(setup, need, _why(need, tried, card_bytes))
        tried.append((setup, need))
        if not need.weights_fit(card_bytes):
            too_large.add(setup.method)
    setup, least = min(tried, key=lambda one: one[1].total)
    raise Refused(
        f"training needs {gb(least.total)} of a card at least ({_words(setup)}: {least.words()});"
        f" {gb(USABLE * card_bytes)} of this one's {gb(card_bytes)} can be planned with",
        code="does_not_fit",
        hint=f"{smallest_card(least)} would do: --set resources.min_vram_gb="
        f"{least.total / USABLE / 1e9:.0f}; or lower train.max_length"
        + (", or --set train.method=lora" if setup.method == "full" else ""),
        field="resources.min_vram_gb",
    )


def _ladder(start: Setup, train: Train, methods: list[Method], share: int) -> Iterator[Setup]:
    """Yield what is tried, in this order."""
    for method in methods:
        rows = micro_batches(train, share)
        checkpointing = (
            LADDER if train.gradient_checkpointing == "auto" else (train.gradient_checkpointing,)
        )
        # The fewest rows that keep the card busy; more are taken where plain training holds them.
        busy = min((n for n in rows if n * start.length >= BUSY_TOKENS), default=max(rows))
        order = [(n, every) for n in rows if n > busy for every in checkpointing[:1]]
        order += [(busy, every) for every in checkpointing]
        order += [(n, every) for n in rows if n < busy for every in checkpointing]
        for size, every in order:
            yield replace(
                start,
                method=method,
                micro_batch=size,
                checkpointing=every,
                accumulates=size < share,
            )


def micro_batches(train: Train, share: int) -> list[int]:
    """Return the micro-batches that may be taken, the largest first."""
    if train.micro_batch != "auto":
        return [train.micro_batch]
    return [n for n in range(min(share, MOST_ROWS), 0, -1) if share % n == 0]


def _why(need: Need, tried: list[tuple[Setup, Need]], card_bytes: int) -> str:
    text = f"{gb(need.total)} of {gb(card_bytes)}: {need.words()}"
    if tried:
        first, more = tried[-1]  # the next better plan
        text += f"; {_words(first)} would need {gb(more.total)}"
    return text


def _uncounted(start: Setup, train: Train, methods: list[Method], share: int, why: str) -> Plan:
    """Return the plan that needs least, where nothing can be counted: no guess says it fits."""
    every = train.gradient_checkpointing
    setup = replace(
        start,
        method=methods[0],
        micro_batch=micro_batches(train, share)[-1],
        checkpointing="all" if every == "auto" else every,
    )
    return Plan(setup, None, f"its memory cannot be counted ({why}): the least that can be taken")


def _words(setup: Setup) -> str:
    every = setup.checkpointing
    layers = {"none": "no layer", "all": "all layers"}.get(str(every)) or _which(every)
    return (
        f"{setup.method} with {setup.micro_batch} x {setup.length:,} tokens and {layers}"
        " checkpointed"
    )


def _which(every: Checkpointing) -> str:
    return {1: "each layer", 2: "every second layer"}.get(int(every), f"every {every}th layer")
