"""A training that is killed without a word (SIGKILL) goes on under a new claim as if nothing was.

One seed of each kind; `tests/chaos/test_exact_resume.py` has twenty.
"""

import random
from collections.abc import Iterator

import pytest
from tests.support.killing import Kill, attempt, zygote
from tests.support.tiny_jobs import tiny_job

from ftq_worker.agent.child import Spawn

SIZES = {"epochs": 2, "batch_size": 8, "micro_batch": 4, "eval_every": 4, "save_every": 2}


@pytest.fixture(scope="module")
def spawn(tmp_path_factory) -> Iterator[Spawn]:
    with zygote(tmp_path_factory.mktemp("zygote")) as start:
        yield start


@pytest.mark.parametrize(
    ("task", "method"),
    [("sft", "lora"), ("sft", "full"), ("classification", "full"), ("classification", "lora")],
)
def test_killed_and_resumed_is_bit_equal_to_unbroken(spawn, tmp_path, llama, bert, task, method):
    base = llama if task == "sft" else bert
    chance = random.Random(f"{task} {method}")
    trial = attempt(
        spawn,
        lambda name: tiny_job(tmp_path / name, base, task, train=SIZES | {"method": method}),
        lambda whole: [Kill(chance.randrange(3, len(whole.of("step"))), 0.0)],
        chance,
    )
    assert trial.kills == 1
    assert trial.lives[1].of("resumed")
    assert trial.differences() == []
