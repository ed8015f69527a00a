"""Several ranks on one host: real processes that meet over gloo, driven by an agent's own run."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tests.support.gangs import Attempt, GangJob, without_dropout
from tests.support.killing import zygote
from tests.support.tiny_jobs import make_base, tiny_job
from tests.unit.training.test_left_out import leave_out
from tests.unit.training.test_replay import rows_of_step
from torch.distributed.checkpoint import FileSystemReader

from ftq_shared.events import EventType
from ftq_worker.agent.child import Spawn
from ftq_worker.host.messages import ChildRequest

SIZES = {"max_steps": 4, "batch_size": 8, "micro_batch": 2, "eval_every": 2, "save_every": 1}
DROPOUT = {"dropout": 0.1}
KINDS = [(strategy, method) for strategy in ("ddp", "fsdp") for method in ("full", "lora")]
Make = Callable[..., GangJob]


@pytest.fixture(scope="module")
def spawn(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Spawn]:
    with zygote(tmp_path_factory.mktemp("zygote")) as spawn:
        yield spawn


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory, spawn: Spawn) -> Make:
    """Makes jobs; ranks draw other dropout than one process does, so there is none by default."""
    folder = tmp_path_factory.mktemp("jobs")
    bases = {
        "sft": without_dropout(make_base(folder / "llama", "llama")),
        "classification": without_dropout(make_base(folder / "bert", "bert")),
        "dropout": make_base(folder / "dropout", "llama"),
    }
    numbers = iter(range(1000))

    def build(
        strategy: str, method: str, lora: dict | None = None, task: str = "sft", **train
    ) -> GangJob:
        train = SIZES | {"method": method, "parallel": {"strategy": strategy}} | train
        train["lora"] = lora or {"dropout": 0.0}
        name = folder / str(next(numbers))
        base = bases["dropout" if lora else task]
        return GangJob(tiny_job(name, base, task, train=train), spawn)

    return build


@pytest.fixture(scope="module")
def alone(make: Make) -> dict[str, tuple[GangJob, Attempt]]:
    """What one process trains, by method."""
    jobs = {method: make("ddp", method) for method in ("full", "lora")}
    return {method: (job, job.attempt(1)) for method, job in jobs.items()}


def weights(job: GangJob) -> dict[str, torch.Tensor]:
    (path,) = job.job.ctx.paths.model.glob("*.safetensors")
    return load_file(path)


def assert_same(one: GangJob, other: GangJob) -> None:
    first, second = weights(one), weights(other)
    assert first.keys() == second.keys()
    assert [name for name in first if not first[name].equal(second[name])] == []


def pieces(checkpoint: Path) -> set[int]:
    """Return into how many parts the weights of a checkpoint are cut; empty: they are whole."""
    folder = checkpoint / "pytorch_model_fsdp_0"
    if not folder.exists():
        return set()
    stored = FileSystemReader(folder).read_metadata().state_dict_metadata
    return {len(entry.chunks) for entry in stored.values()}


def golden(attempt: Attempt) -> list[float]:
    return [data["loss"] for data in attempt.of(EventType.EVAL)]


@pytest.mark.parametrize(("strategy", "method"), KINDS)
def test_two_ranks_train_what_one_trains(make, alone, strategy, method):
    one, single = alone[method]
    two = make(strategy, method)
    together = two.attempt(2)
    assert len(together.losses()) == SIZES["max_steps"], together.output
    assert together.losses() == pytest.approx(single.losses(), rel=1e-5)
    assert golden(together) == pytest.approx(golden(single), rel=1e-5)
    saved = weights(two)
    assert saved.keys() == weights(one).keys()
    for name, weight in weights(one).items():
        assert torch.allclose(weight, saved[name], atol=1e-5), name
    (checkpoint,) = two.job.ctx.paths.root.glob("attempts/*/checkpoints/checkpoint-4")
    assert pieces(checkpoint) == ({2} if strategy == "fsdp" else set())


@pytest.mark.chaos
def test_a_sharded_encoder_trains_what_a_whole_one_does(make):
    one = make("ddp", "full", task="classification").attempt(1)
    two = make("fsdp", "full", task="classification").attempt(2)
    assert two.losses() == pytest.approx(one.losses(), rel=1e-5), two.events
    assert golden(two) == pytest.approx(golden(one), rel=1e-5)


@pytest.mark.parametrize(
    ("strategy", "method", "ranks", "rank"),
    [("ddp", "lora", 2, 0), ("fsdp", "full", 4, 3)],  # the rest: tests/chaos/test_ranks.py
)
def test_of_a_killed_rank_the_resumed_run_is_bit_equal(make, strategy, method, ranks, rank):
    whole, broken = (make(strategy, method, DROPOUT, micro_batch=1) for _ in range(2))
    assert whole.attempt(ranks).losses().keys() == {1, 2, 3, 4}
    first = broken.attempt(ranks, kill=(rank, 2))
    (warning,) = first.of(EventType.WARNING)
    assert warning["code"] == "killed"
    assert warning["message"].startswith(f"rank {rank} of {ranks}: ")
    assert broken.store.get(broken.job.ctx.job).state == "queued"
    second = broken.attempt(ranks)
    assert second.of(EventType.RESUMED)[0]["step"] in (1, 2, 3)
    assert_same(whole, broken)


@pytest.mark.chaos
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_another_number_of_ranks_goes_on_with_the_same_training(make, alone, strategy):
    one, _ = alone["lora"]
    job = make(strategy, "lora", micro_batch=1)
    job.attempt(2, kill=(1, 2))
    second = job.attempt(4)
    assert second.of(EventType.RESUMED), second.output
    for name, weight in weights(one).items():
        assert torch.allclose(weight, weights(job)[name], atol=1e-5), name


def test_ranks_that_would_not_train_the_same_are_told_before_the_first_step(make):
    def other_rate(request: ChildRequest) -> ChildRequest:
        spec = json.loads(request.spec)
        spec["train"]["learning_rate"] = 0.5
        return replace(request, spec=json.dumps(spec)) if request.rank == 1 else request

    job = make("ddp", "lora")
    attempt = job.attempt(2, request=other_rate)
    error = job.store.get(job.job.ctx.job).error
    assert error
    assert error.code == "ranks_disagree"
    assert "rank 1 has train.learning_rate 0.5 and rank 0 has 0.001" in error.message
    assert not attempt.steps()


def test_what_a_sharded_training_saves_is_verified(make):
    job = make("fsdp", "lora")
    attempt = job.attempt(2, verify=True)
    assert job.store.get(job.job.ctx.job).error is None, attempt.output
    assert job.job.ctx.paths.verified.exists()


def test_rows_that_come_twice_are_told(make):
    job = make("ddp", "lora", batch_size=10, micro_batch=5)  # ranks with five batches of five
    told = [data["line"] for data in job.attempt(2).of(EventType.LOG)]
    assert "2 of the 48 rows come twice in a pass, so that all ranks get as many" in told


@pytest.mark.chaos
def test_adapters_in_float32_on_a_sharded_base_in_half_precision(make):
    """Layers are computed twice as well, as they are where memory is short."""
    train = {"precision": "bf16", "gradient_checkpointing": "all"}
    whole, sharded = (make(strategy, "lora", **train) for strategy in ("ddp", "fsdp"))
    one, two = whole.attempt(2), sharded.attempt(2)
    assert len(one.losses()) == SIZES["max_steps"], one.events
    assert two.losses() == pytest.approx(one.losses(), rel=0.01), two.events


@pytest.mark.parametrize(
    ("strategy", "task"),
    [("ddp", "classification"), pytest.param("fsdp", "sft", marks=pytest.mark.chaos)],
)
def test_a_step_of_two_ranks_is_replayed_and_rows_are_left_out(make, strategy, task):
    job = make(strategy, "full", task=task, max_steps=6)
    trained = job.attempt(2, kill=(1, 3))
    told = job.replay(2, 3)
    (found,) = told.of(EventType.REPLAYED)
    assert (found["equal"], found["loss"]) == (True, trained.losses()[3]), told.events
    assert len(told.of(EventType.REPLAY_ROW)) == SIZES["batch_size"]

    gone = rows_of_step(task, 6)[:5]
    leave_out(job.job, gone)
    less = job.attempt(2)
    assert max(less.losses()) == 6, less.output
    told = job.replay(2, 6)
    (found,) = told.of(EventType.REPLAYED)
    assert (found["equal"], found["loss"]) == (True, less.losses()[6]), told.events
    rows = told.of(EventType.REPLAY_ROW)
    assert len(rows) == 3
    # There is no dropout: the step's loss is the mean over tokens, or over rows.
    counts = [row.get("trained", 1) for row in rows]
    mean = sum(r["loss"] * n for r, n in zip(rows, counts, strict=True)) / sum(counts)
    assert found["loss"] == pytest.approx(mean, rel=1e-5)
