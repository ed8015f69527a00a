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


def test_the_preflight_of_a_good_card_passes(card: Card) -> None:
    if not card.gpus:
        pytest.skip("a rehearsal on the CPU")
    done = subprocess.run(
        [sys.executable, "-m", "ftq_worker.child.preflight"], check=False, capture_output=True
    )
    assert done.returncode == 0, done.stderr
