"""Several ranks: one of them killed at any step, the final weights are those of the unbroken run.

Real processes over gloo, as an agent runs them; 2 and 4 ranks, full and LoRA, DDP and FSDP2.

    FTQ_CHAOS_SEED=7 python -m pytest -m chaos tests/chaos/test_ranks.py -s
"""

import os
import random
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest
from safetensors.torch import load_file

from ftq_shared.events import EventType
from ftq_worker.agent.child import Spawn
from tests.support.gangs import GangJob, without_dropout
from tests.support.killing import zygote
from tests.support.tiny_jobs import make_base, tiny_job

KILLS = 10
STEPS = 12
SIZES = {"max_steps": STEPS, "batch_size": 8, "micro_batch": 1, "eval_every": 5}
KINDS = [
    (ranks, strategy, method)
    for ranks in (2, 4)
    for strategy in ("ddp", "fsdp")
    for method in ("full", "lora")
]

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def spawn(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Spawn]:
    with zygote(tmp_path_factory.mktemp("zygote")) as spawn:
        yield spawn


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Path]:
    """The base with dropout, whose generators a resume has to restore, and without."""
    folder = tmp_path_factory.mktemp("bases")
    still = without_dropout(make_base(folder / "still", "llama"))
    return {True: make_base(folder / "dropout", "llama"), False: still}


@pytest.fixture(scope="module")
def seed() -> int:
    return int(os.environ.get("FTQ_CHAOS_SEED") or secrets.randbelow(10**6))


@pytest.mark.parametrize(("ranks", "strategy", "method"), KINDS)
def test_killed_at_any_step_ends_bit_equal(
    spawn: Spawn,
    bases: dict[bool, Path],
    tmp_path: Path,
    seed: int,
    capsys: pytest.CaptureFixture[str],
    ranks: int,
    strategy: str,
    method: str,
) -> None:
    chance = random.Random(f"{ranks} {strategy} {method} {seed}")

    def make(name: str, strategy: str, *, dropout: bool = True) -> GangJob:
        train = SIZES | {"method": method, "parallel": {"strategy": strategy}, "save_every": 2}
        train["lora"] = {"dropout": 0.1 if dropout else 0.0}
        return GangJob(tiny_job(tmp_path / name, bases[dropout], "sft", train=train), spawn)

    one = make("one", "ddp", dropout=False).attempt(1).losses()
    several = make("several", strategy, dropout=False).attempt(ranks).losses()
    assert several.keys() == one.keys() == set(range(1, STEPS + 1))
    apart = max(abs(several[step] - loss) / loss for step, loss in one.items())

    whole = make("whole", strategy)
    losses = whole.attempt(ranks).losses()
    wrong, killed, repeated = [], 0, 0
    for number in range(KILLS):
        rank, step = chance.randrange(ranks), chance.randrange(1, STEPS)
        broken = make(f"broken-{number}", strategy)
        first = broken.attempt(ranks, kill=(rank, step), delay_s=chance.uniform(0, 0.2))
        if warnings := first.of(EventType.WARNING):  # else it was at its end already
            killed += 1
            assert [w["code"] for w in warnings] == ["killed"], warnings
            assert warnings[0]["message"].startswith(f"rank {rank} of {ranks}: "), warnings
            second = broken.attempt(ranks)
            repeated += len(first.losses()) + len(second.losses()) - STEPS
            if first.losses() | second.losses() != losses:
                wrong.append(f"losses, rank {rank} killed after step {step}")
        if weights(broken) != weights(whole):
            wrong.append(f"weights, rank {rank} killed after step {step}")
    with capsys.disabled():
        print(
            f"\n{ranks} ranks, {strategy}, {method} (FTQ_CHAOS_SEED={seed}): {killed} of {KILLS} "
            f"killed in training, {repeated} steps repeated; {wrong or 'all bit-equal'}; losses "
            f"at most {apart:.1e} (relative) from one rank's"
        )
    assert not wrong
    assert killed >= KILLS / 2
    assert apart < 1e-5


def weights(job: GangJob) -> dict[str, bytes]:
    (path,) = job.job.ctx.paths.model.glob("*.safetensors")
    return {name: tensor.numpy().tobytes() for name, tensor in load_file(path).items()}
