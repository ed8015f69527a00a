"""Every method and number format trains on a card, and what it leaves passes verification."""

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from benchmarks.gpu import child
from benchmarks.gpu.card import Card

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(300)]

STEPS = 8
KERNELS = (
    "flash_attention_4",
    "flash_attention_3",
    "flash_attention_2",
    "varlen",
    "flex_attention",
)
ON_CPU = {("lora", "fp32"), ("full", "fp32")}


def spec(tiny: Path, **train: Any) -> dict[str, Any]:
    return {
        "model": f"worker:{tiny / 'model'}",
        "dataset": f"worker:{tiny / 'rows.jsonl'}",
        "data": {"golden": {"size": 30}},
        "train": {"max_steps": STEPS, "batch_size": 8, "learning_rate": 1e-3, **train},
    }


def losses(events: child.Events) -> list[float]:
    return [step["loss"] for step in child.of(events, "step")]


@pytest.mark.parametrize("precision", ["bf16", "fp16", "fp32"])
@pytest.mark.parametrize("method", ["lora", "full", "qlora"])
def test_it_trains_and_verifies(
    tiny: Path, tmp_path: Path, card: Card, method: str, precision: str
) -> None:
    if method == "qlora" and importlib.util.find_spec("bitsandbytes") is None:
        pytest.skip("bitsandbytes is not installed")
    if not card.gpus and (method, precision) not in ON_CPU:
        pytest.skip("a rehearsal on the CPU")
    wanted = spec(tiny, method=method, precision=precision)
    found = losses(child.run(wanted, tmp_path, card.gpus))
    assert len(found) == STEPS
    assert found[-1] < found[0]


def test_a_resumed_run_goes_on_as_an_unbroken_one(tiny: Path, tmp_path: Path, card: Card) -> None:
    wanted, broken = spec(tiny, method="full", save_every=2), tmp_path / "broken"
    whole = losses(child.run(wanted, tmp_path / "whole", card.gpus))
    child.run(wanted, broken, card.gpus, "validate", "prepare")
    seen = losses(child.run(wanted, broken, card.gpus, "train", kill_after=5))
    later = losses(child.run(wanted, broken, card.gpus, "train"))
    assert 0 < len(later) < STEPS
    assert seen == pytest.approx(whole[: len(seen)], rel=1e-3)
    assert later == pytest.approx(whole[-len(later) :], rel=1e-3)


def with_sdpa(card: Card, tiny: Path, folder: Path, packing: bool) -> list[float]:
    wanted = spec(tiny, method="full", packing=packing, attention="sdpa")
    return losses(child.run(wanted, folder, card.gpus))


@pytest.fixture(scope="module")
def alone(tiny: Path, tmp_path_factory: pytest.TempPathFactory, card: Card) -> list[float]:
    """Losses of one rank."""
    return with_sdpa(card, tiny, tmp_path_factory.mktemp("alone"), packing=False)


@pytest.fixture(scope="module")
def packed(tiny: Path, tmp_path_factory: pytest.TempPathFactory, card: Card) -> list[float]:
    """Losses of packed rows, kept apart by a mask."""
    return with_sdpa(card, tiny, tmp_path_factory.mktemp("packed"), packing=True)


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_kernel_trains_packed_rows_as_a_mask_does(
    tiny: Path, tmp_path: Path, card: Card, packed: list[float], kernel: str
) -> None:
    if not card.gpus and kernel != "varlen":
        pytest.skip("a rehearsal on the CPU")
    wanted = spec(tiny, method="full", packing=True, attention=kernel)
    try:
        found = losses(child.run(wanted, tmp_path, card.gpus))
    except child.Failed as error:
        if "attention_not_supported" in str(error):
            pytest.skip("not to be had here")
        raise
    # In half precision another order of summation shows.
    assert found == pytest.approx(packed, rel=0.02 if card.gpus else 1e-4)


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_ranks_train_what_one_does(
    tiny: Path, tmp_path: Path, card: Card, alone: list[float], strategy: str
) -> None:
    if card.gpus == 1:
        pytest.skip("one card")
    wanted = spec(
        tiny, method="full", packing=False, attention="sdpa", parallel={"strategy": strategy}
    )
    wanted["resources"] = {"gpus": 2}
    found = losses(child.run(wanted, tmp_path, card.gpus, ranks=2))
    assert found == pytest.approx(alone, rel=0.02 if card.gpus else 1e-4)


def test_the_preflight_of_a_good_card_passes(card: Card) -> None:
    if not card.gpus:
        pytest.skip("a rehearsal on the CPU")
    done = subprocess.run(
        [sys.executable, "-m", "ftq_worker.child.preflight"], check=False, capture_output=True
    )
    assert done.returncode == 0, done.stderr
