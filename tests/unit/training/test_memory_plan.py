"""How a run is made to fit its card: in which order, at which price, and when it is refused."""

import pytest

from ftq_shared.errors import Refused
from ftq_shared.spec import Lora, Task, Train
from ftq_worker.training.memory_need import CARDS, USABLE, Need, Setup, Uncountable, named_card
from ftq_worker.training.memory_plan import make_plan

START = Setup(Task.SFT, "full", "bf16", 1, 2_048, Lora())
GB = 10**9


def count(setup: Setup) -> Need:
    """A base of 16 GB, 4 in 4 bits; 8 GB of activations a row, which checkpointing lessens."""
    saved = {"none": 0.0, 4: 0.25, 2: 0.5, "all": 0.9}[setup.checkpointing]
    return Need(
        base=(4 if setup.method == "qlora" else 16) * GB,
        trained=0,
        optimizer=0,
        gradients=0,
        activations=int(8 * GB * setup.micro_batch * (1 - saved)),
        working=0,
        runtime=GB,
    )


def plan_for(card_gb: float, share: int = 8, methods=("lora", "qlora"), **train):
    return make_plan(count, START, Train(**train), list(methods), share, int(card_gb * GB / USABLE))


@pytest.mark.parametrize(
    ("card_gb", "method", "micro_batch", "checkpointing"),
    [
        (82, "lora", 8, "none"),  # plain, and the largest micro-batch
        (49.5, "lora", 4, "none"),
        (33.5, "lora", 2, "none"),  # 4,096 tokens still keep the card busy
        (29.5, "lora", 2, 4),
        (25.5, "lora", 2, 2),
        (19.5, "lora", 2, "all"),
        (18, "lora", 1, "all"),  # less only now
        (17.5, "qlora", 2, 4),
        (5.9, "qlora", 1, "all"),
    ],
)
def test_the_cheapest_that_fits_is_taken(card_gb, method, micro_batch, checkpointing):
    made = plan_for(card_gb).setup
    assert (made.method, made.micro_batch, made.checkpointing) == (
        method,
        micro_batch,
        checkpointing,
    )
    assert made.accumulates == (micro_batch < 8)


def test_what_it_costs_is_said():
    assert "nothing" in plan_for(82).price()
    assert "every 4th" in plan_for(29.5).price()
    assert "50%" in plan_for(19.5).price()
    assert "33%" in plan_for(19.5, methods=["full"]).price()
    assert "no layer checkpointed would need 33.0 GB" in plan_for(30.5).why


def test_nothing_fits_and_the_smallest_card_is_named():
    with pytest.raises(Refused) as caught:
        plan_for(16, methods=["lora"])
    error = caught.value
    assert error.code == "does_not_fit"
    assert "17.8 GB" in error.message
    assert "a card of 24 GB" in error.hint
    assert "resources.min_vram_gb=20" in error.hint


def test_what_a_person_gave_is_not_changed():
    made = plan_for(33.5, gradient_checkpointing="none", micro_batch=1).setup
    assert (made.micro_batch, made.checkpointing) == (1, "none")
    with pytest.raises(Refused):
        plan_for(20, gradient_checkpointing="none", micro_batch=2, methods=["lora"])


def test_what_cannot_be_counted_is_taken_as_small_as_it_can_be():
    def fails(setup: Setup) -> Need:
        raise Uncountable("it loops")

    made = make_plan(fails, START, Train(), ["lora"], 8, 80 * GB)
    assert (made.setup.micro_batch, made.setup.checkpointing, made.need) == (1, "all", None)
    assert "cannot be counted (it loops)" in made.why


def test_a_model_without_checkpointing_gets_smaller_passes():
    def plain(setup: Setup) -> Need:
        if setup.checkpointing != "none":
            raise Uncountable("it has none")
        return count(setup)

    made = make_plan(plain, START, Train(), ["lora"], 8, int(26 * GB / USABLE)).setup
    assert (made.micro_batch, made.checkpointing) == (1, "none")


def test_cards_are_told_from_small_to_large():
    assert [size for size, _ in CARDS] == sorted(size for size, _ in CARDS)


@pytest.mark.parametrize(
    ("kind", "size"),
    [
        ("l4", 24),
        ("a10", 24),
        ("rtx4090", 24),
        ("h100", 80),
        ("a100-80gb", 80),
        ("a100-40gb", 40),
        ("v100", 32),
        ("l40s", 48),
        ("x", None),
        (None, None),
    ],
)
def test_a_kind_that_was_asked_for_has_a_size(kind: str | None, size: int | None) -> None:
    assert named_card(kind) == size
