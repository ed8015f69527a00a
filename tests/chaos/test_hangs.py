"""A process that stands still in training: seen, shown, ended, and its training goes on, 20 seeds.

One rank, or one of two that wait for each other; full and LoRA. The agent's watch is real, with
seconds of patience in the place of minutes.

    FTQ_CHAOS_SEED=7 python -m pytest -m chaos tests/chaos/test_hangs.py -s
"""

import os
import random
import secrets
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from ftq_shared.events import EventType
from ftq_worker.agent import phase_watch
from ftq_worker.agent.child import Spawn
from ftq_worker.host.process_tree import runs
from tests.chaos.test_ranks import weights
from tests.support.gangs import GangJob
from tests.support.killing import zygote
from tests.support.tiny_jobs import make_base, tiny_job

SEEDS = 20
STEPS = 10
KINDS = [(1, "full"), (2, "full"), (1, "lora"), (2, "lora")]  # ranks, method

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def spawn(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Spawn]:
    with zygote(tmp_path_factory.mktemp("zygote")) as spawn:
        yield spawn


def test_a_hang_is_ended_and_the_training_goes_on_bit_equal(
    spawn: Spawn,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    seed = int(os.environ.get("FTQ_CHAOS_SEED") or secrets.randbelow(10**6))
    base = make_base(tmp_path / "base", "llama")
    monkeypatch.setattr(phase_watch, "STALL_S", 4.0)
    ends: Counter[int] = Counter()
    for number in range(seed, seed + SEEDS):
        chance = random.Random(number)
        ranks, method = KINDS[number % len(KINDS)]

        def make(name: str, number: int = number, method: str = method) -> GangJob:
            train = {"max_steps": STEPS, "batch_size": 8, "micro_batch": 2, "eval_every": 4}
            train |= {"method": method, "save_every": 2, "seed": number}
            return GangJob(tiny_job(tmp_path / f"{name}-{number}", base, "sft", train=train), spawn)

        whole, broken = make("whole"), make("broken")
        losses = whole.attempt(ranks).losses()
        frozen = (chance.randrange(ranks), chance.randrange(1, STEPS - 1))
        first = broken.attempt(
            ranks, kill=frozen, delay_s=chance.uniform(0, 0.05), by=signal.SIGSTOP
        )
        where = f"seed {number}: rank {frozen[0]} of {ranks} after step {frozen[1]}"
        (death,) = broken.store.broker.held.jobs[broken.job.ctx.job].deaths
        assert "no progress for" in death["reason"], where
        assert broken.store.get(broken.job.ctx.job).state == "queued", where
        assert any("no progress for" in w["message"] for w in first.of(EventType.WARNING)), where
        shown = [line["line"] for line in first.of(EventType.LOG)]
        assert any("stopped by a signal" in line for line in shown), where
        assert not any(runs(pid) for pid in first.pids), where
        second = broken.attempt(ranks)
        assert first.losses() | second.losses() == losses, where
        assert weights(broken) == weights(whole), where
        ends[ranks] += 1
    with capsys.disabled():
        print(
            f"\nhang, {SEEDS} seeds (FTQ_CHAOS_SEED={seed}), by ranks {dict(ends)}: told, shown "
            "with stacks, ended, resumed; losses and weights bit-equal to a run that never hung"
        )
    assert ends.total() == SEEDS
