"""Injected out of memory, NaN, spike and full disk: each comes to its right end, 20 seeds each.

    FTQ_CHAOS_SEED=7 python -m pytest -m chaos tests/chaos/test_outlived.py -s

The card's and the disk's refusals are made here. Hangs: tests/chaos/test_hangs.py.
"""

import math
import os
import random
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ftq_shared.events import EventType
from ftq_worker.job.context import HostFault
from ftq_worker.phases import train
from ftq_worker.training import room
from tests.support.tiny_jobs import TinyJob, make_base, tiny_job
from tests.unit.training.test_divergence import RATE, break_at, large_numbers, no_numbers
from tests.unit.training.test_outlived import assert_same_end, guards, refuse, steps, weights

SEEDS = 20
KINDS = [("sft", "full"), ("sft", "lora"), ("classification", "full"), ("classification", "lora")]

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(900)]

Make = Callable[..., TinyJob]
Patch = pytest.MonkeyPatch


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {
        task: make_base(tmp_path_factory.mktemp(kind), kind)
        for task, kind in (("sft", "llama"), ("classification", "bert"))
    }


def out_of_memory(make: Make, patch: Patch, chance: random.Random) -> str:
    """Before the first checkpoint: bit-equal to small passes from the start."""
    small = make("small", micro_batch=2, save_every=100)
    train.run(small.ctx)
    refuse(patch, rows=chance.choice([2, 3]), step=chance.randrange(1, 13))
    large = make("large", micro_batch=8, save_every=100)
    train.run(large.ctx)
    assert guards(large) == ["out_of_memory"] * 2
    assert_same_end(large, small)
    return "same losses and weights as with the small micro-batch from the start"


def broken_weights(how: Any) -> Callable[[Make, Patch, random.Random], str]:
    def inject(make: Make, patch: Patch, chance: random.Random) -> str:
        step = chance.randrange(22, 30)
        break_at(patch, step, how)
        job = make("job", epochs=6, save_every=chance.choice([2, 3, 5]), learning_rate=RATE)
        train.run(job.ctx)
        assert len(guards(job)) == 1
        (resumed,) = job.events.of(EventType.RESUMED)
        assert step - 6 <= resumed["step"] < step
        assert max(steps(job)) == 36
        assert all(math.isfinite(loss) for loss, *_ in steps(job).values())
        return "rolled back once to a checkpoint before it, finished with a quarter of the rate"

    return inject


def full_disk(make: Make, patch: Patch, chance: random.Random) -> str:
    """Met by any save, then room is made: the end is that of a run which never met it."""
    sizes = {"save_every": chance.choice([2, 3]), "eval_every": chance.choice([2, 5])}
    whole = make("whole", **sizes)
    train.run(whole.ctx)
    left = [chance.randrange(0, 4)]

    def free(path: Path) -> Any:
        left[0] -= 1
        return type("Usage", (), {"free": 0 if left[0] < 0 else 2**40})

    patch.setattr(room, "shutil", type("Disk", (), {"disk_usage": staticmethod(free)}))
    job = make("job", **sizes)
    with pytest.raises(HostFault):
        train.run(job.ctx)
    patch.undo()
    last = job.again()
    train.run(last.ctx)
    assert steps(job) | steps(last) == steps(whole)
    assert all(a.equal(weights(whole)[name]) for name, a in weights(last).items())
    return "told before it was full; resumed, bit-equal to a run that never met it"


@pytest.mark.parametrize(
    ("name", "inject"),
    [
        ("out of memory", out_of_memory),
        ("NaN", broken_weights(no_numbers)),
        ("spike", broken_weights(large_numbers)),
        ("full disk", full_disk),
    ],
)
def test_each_comes_to_its_right_end(
    bases: dict[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
    inject: Callable[[Make, Patch, random.Random], str],
) -> None:
    base = int(os.environ.get("FTQ_CHAOS_SEED") or secrets.randbelow(10**6))
    ends: dict[str, int] = {}
    for seed in range(base, base + SEEDS):
        chance = random.Random(f"{name} {seed}")
        task, method = KINDS[seed % len(KINDS)]
        if name in ("NaN", "spike"):
            method = "full"  # what breaks is the weights

        def make(folder: str, seed: int = seed, task: str = task, method: str = method, **s: Any):
            sizes = {"batch_size": 8, "micro_batch": 8, "eval_every": 4, "seed": seed}
            chosen = {**sizes, "method": method, **s}
            return tiny_job(tmp_path / f"{folder}-{seed}", bases[task], task, train=chosen)

        with pytest.MonkeyPatch.context() as patch:
            end = inject(make, patch, chance)
        ends[end] = ends.get(end, 0) + 1
    with capsys.disabled():
        print(f"\n{name}, {SEEDS} seeds (FTQ_CHAOS_SEED={base}): {ends}")
    assert sum(ends.values()) == SEEDS
