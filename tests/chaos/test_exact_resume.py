"""Exact resume: killed at any moment, the final weights are bit for bit those of the unbroken run.

Real children, forked from a real zygote, train tiny models; each is killed without a word once or
twice, at a random step, in a save, or while the run ends, and goes on under a new claim.

    FTQ_CHAOS_SEED=7 python -m pytest -m chaos tests/chaos/test_exact_resume.py -s
"""

import itertools
import os
import random
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from ftq_worker.agent.child import Spawn
from tests.support.killing import Trial, attempt, random_kills, zygote
from tests.support.tiny_jobs import make_base, tiny_job

SEEDS = 20
SIZES = {"epochs": 3, "batch_size": 8, "micro_batch": 4}  # 18 steps
KINDS = [
    ("sft", "full"),
    ("sft", "lora"),
    ("classification", "full"),
    ("classification", "lora"),
]

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def spawn(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Spawn]:
    """Two interpreters in turn: nothing that differs between them may decide a result."""
    with (
        zygote(tmp_path_factory.mktemp("one")) as one,
        zygote(tmp_path_factory.mktemp("two")) as two,
    ):
        turns = itertools.cycle((one, two))
        yield lambda request, output: next(turns)(request, output)


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {
        task: make_base(tmp_path_factory.mktemp(kind), kind)
        for task, kind in (("sft", "llama"), ("classification", "bert"))
    }


@pytest.fixture(scope="module")
def seed_base() -> int:
    return int(os.environ.get("FTQ_CHAOS_SEED") or secrets.randbelow(10**6))


@pytest.mark.parametrize(("task", "method"), KINDS)
def test_killed_anywhere_ends_bit_equal(
    spawn: Spawn,
    bases: dict[str, Path],
    tmp_path: Path,
    seed_base: int,
    capsys: pytest.CaptureFixture[str],
    task: str,
    method: str,
) -> None:
    def trial(seed: int) -> Trial:
        chance = random.Random(f"{task} {method} {seed}")
        save_every = chance.choice([1, 2, 3, 5])
        train = {"method": method, "seed": seed, "save_every": save_every, **SIZES}
        train["eval_every"] = chance.choice([3, 4, 7])
        return attempt(
            spawn,
            lambda name: tiny_job(
                tmp_path / f"{name}-{seed}",
                bases[task],
                task,
                cpu_threads=1 + seed % 2,
                train=train,
            ),
            lambda whole: random_kills(whole, chance, save_every),
            chance,
        )

    trials = {seed: trial(seed) for seed in range(seed_base, seed_base + SEEDS)}
    wrong = {seed: bad for seed, trial in trials.items() if (bad := trial.differences())}
    with capsys.disabled():
        print(f"\n{summary(task, method, seed_base, trials, wrong)}")
    assert not wrong
    # One planned for the very end may come too late.
    assert sum(trial.kills for trial in trials.values()) >= SEEDS


def summary(
    task: str, method: str, base: int, trials: dict[int, Trial], wrong: dict[int, list[str]]
) -> str:
    """Return one line about one kind of training."""
    kills = sum(trial.kills for trial in trials.values())
    in_saves = sum(trial.in_saves for trial in trials.values())
    repeated = sum(trial.repeated for trial in trials.values())
    result = f"DIFFERENT: {wrong}" if wrong else "all bit-equal to the unbroken run"
    return (
        f"exact resume, {task} {method}: {len(trials)} seeds (FTQ_CHAOS_SEED={base}), {kills} "
        f"kills ({in_saves} in a save), {repeated} steps repeated; {result}"
    )
