"""Faults that a training outlives. The card's refusals are made here: this machine has none."""

import dataclasses
import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tests.support.tiny_jobs import TinyJob, tiny_job

from ftq_shared.errors import TrainingFailed
from ftq_shared.events import EventType
from ftq_worker.job.context import Devices, Interrupted, StopReason
from ftq_worker.job.reports import read_resolved
from ftq_worker.phases import train
from ftq_worker.training import recovery
from ftq_worker.training.sampling import grouped_order
from ftq_worker.training.trainers import FtqParts

SIZES = {"epochs": 2, "batch_size": 8, "micro_batch": 8, "eval_every": 4, "save_every": 3}


@pytest.fixture
def make(tmp_path, llama, bert) -> Callable[..., TinyJob]:
    def build(name: str, task: str = "sft", **spec: Any) -> TinyJob:
        base = llama if task == "sft" else bert
        return tiny_job(tmp_path / name, base, task, train=SIZES | spec)

    return build


def refuse(monkeypatch: pytest.MonkeyPatch, rows: int, step: int) -> None:
    """Be a card that has no memory for more than `rows` in a pass, from `step` on."""

    def training_step(self: Any, model: Any, inputs: Any, *args: Any, **options: Any) -> Any:
        if len(inputs["input_ids"]) > rows and self.state.global_step + 1 >= step:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return super(FtqParts, self).training_step(model, inputs, *args, **options)

    monkeypatch.setattr(FtqParts, "training_step", training_step, raising=False)


def steps(job: TinyJob) -> dict[int, tuple[Any, ...]]:
    """Return what each step ended up with."""
    told = job.events.of(EventType.STEP)
    return {d["step"]: (d["loss"], d["lr"], d["grad_norm"], d["epoch"]) for d in told}


def weights(job: TinyJob) -> dict[str, torch.Tensor]:
    (path,) = job.ctx.paths.model.glob("*.safetensors")
    return load_file(path)


def assert_same_end(one: TinyJob, other: TinyJob) -> None:
    assert steps(one) == steps(other)
    first, second = weights(one), weights(other)
    assert [name for name in first if not first[name].equal(second[name])] == []
    reports = [json.loads(job.ctx.paths.train_report.read_text()) for job in (one, other)]
    for report in reports:
        report.pop("seconds"), report["golden_before"].pop("seconds")
        for entry in report["validation"]:
            entry.pop("seconds", None)
    assert reports[0] == reports[1]


def guards(job: TinyJob) -> list[str]:
    return [g["name"] for g in job.events.of(EventType.GUARD)]


class TestOutOfMemory:
    @pytest.mark.parametrize(
        ("task", "method"),
        [pytest.param("sft", "lora", marks=pytest.mark.chaos), ("classification", "full")],
    )
    def test_the_end_is_that_of_small_passes_from_the_start(self, make, monkeypatch, task, method):
        small = make("small", task, micro_batch=2, method=method)
        train.run(small.ctx)
        refuse(monkeypatch, rows=3, step=2)
        large = make("large", task, micro_batch=8, method=method)
        train.run(large.ctx)
        assert_same_end(large, small)
        assert guards(large) == ["out_of_memory", "out_of_memory"]  # 8 to 4, 4 to 2
        said = large.events.of(EventType.GUARD)[0]
        assert said["message"].startswith("step 2: the GPU ran out of memory with micro_batch 8")
        assert "micro_batch 4" in said["action"]
        assert read_resolved(large.ctx.paths)["train.micro_batch"]["value"] == 2
        scored = [e for e in large.events.of(EventType.EVAL) if e["when"] == "before"]
        assert len(scored) == 1

    def test_it_goes_on_from_the_checkpoint_with_the_same_rows(self, make, monkeypatch):
        """As a run that was stopped there and told to use less: resume is exact on both ways."""
        refuse(monkeypatch, rows=4, step=6)
        job = make("job", eval_every=12)
        train.run(job.ctx)
        assert [r["step"] for r in job.events.of(EventType.RESUMED)] == [3]
        assert job.events.of(EventType.RESUMED)[0]["reason"] == "memory ran out"
        monkeypatch.undo()

        twin = make("twin", eval_every=12)

        def stop(type_: EventType, data: dict[str, Any]) -> None:
            if type_ is EventType.STEP and data["step"] == 2:
                twin.ctx.control.stop(StopReason.DRAIN)

        twin.events.hook = stop
        with pytest.raises(Interrupted):
            train.run(twin.ctx)
        spec = twin.ctx.spec
        told = spec.model_copy(update={"train": spec.train.model_copy(update={"micro_batch": 4})})
        last = twin.again(spec=told)
        train.run(last.ctx)
        before = {n: v for n, v in steps(twin).items() if n <= 3}
        assert steps(job) == before | steps(last)
        assert all(
            a.equal(b) for a, b in zip(weights(job).values(), weights(last).values(), strict=True)
        )

    def test_a_later_attempt_begins_with_the_smaller_passes(self, make, monkeypatch):
        refuse(monkeypatch, rows=4, step=1)
        job = make("job")
        job.events.hook = lambda type_, data: (
            job.ctx.control.stop(StopReason.DRAIN) if type_ is EventType.STEP else None
        )
        with pytest.raises(Interrupted):
            train.run(job.ctx)
        again = job.again()
        train.run(again.ctx)
        assert not guards(again)
        report = json.loads(again.ctx.paths.train_report.read_text())
        assert (report["settings"]["micro_batch"], report["settings"]["batch_size"]) == (4, 8)

    def test_one_row_that_does_not_fit_ends_the_job_with_what_helps(self, make, monkeypatch):
        refuse(monkeypatch, rows=0, step=3)
        job = make("job", micro_batch=2)
        with pytest.raises(TrainingFailed) as caught:
            train.run(job.ctx)
        assert caught.value.code == "out_of_memory"
        assert "with micro_batch 1 and rows of up to 20 tokens" in caught.value.message
        assert caught.value.hint == "lower train.max_length, or use train.method lora or qlora"
        assert guards(job) == ["out_of_memory"]

    def test_in_scoring_it_changes_no_pass_of_training(self, make, monkeypatch):
        """Scoring has passes of its own: smaller ones of training would only cost time."""
        evaluate = FtqParts.evaluate

        def evaluate_without_memory(self: Any, *args: Any, **options: Any) -> Any:
            def refuse(*_: Any, **__: Any) -> None:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

            self.scorer = refuse
            return evaluate(self, *args, **options)

        monkeypatch.setattr(FtqParts, "evaluate", evaluate_without_memory)
        job = make("job", micro_batch=4)
        with pytest.raises(TrainingFailed) as caught:
            train.run(job.ctx)
        assert caught.value.code == "out_of_memory"
        assert guards(job) == []
        assert "train.micro_batch" not in read_resolved(job.ctx.paths)

    def test_packed_passes_are_halved_until_they_are_smaller(self, make, monkeypatch):
        """Half the tokens that a sequence may have is no change where it has fewer anyway."""
        job = make("job")
        packed = dataclasses.replace(
            self.settings_of(job, monkeypatch),
            packing=True,
            batch_size=8,
            micro_batch=8,
            accumulation=1,
            max_length=100,
        )
        state = type("S", (), {"global_step": 0})
        rows = {"length": [40] * 80}  # a step has 320 tokens
        session: Any = type("Session", (), {"settings": packed})
        session.trainer = type(
            "T", (), {"state": state, "is_scoring": False, "train_dataset": rows}
        )
        error = recovery.OutOfMemory("the GPU ran out of memory")
        found = recovery._with_smaller_passes(job.ctx, packed, session, error)
        assert (found.micro_batch, found.accumulation) == (2, 4)  # 4 rows may have 400

    def test_with_several_ranks_all_begin_again(self, make, monkeypatch):
        job = make("job")
        settings = self.settings_of(job, monkeypatch)
        many = dataclasses.replace(settings, world_size=2, micro_batch=4, accumulation=1)
        session: Any = type("Session", (), {"settings": many})
        state = type("S", (), {"global_step": 0})
        session.trainer = type("T", (), {"state": state, "is_scoring": False})
        with pytest.raises(Interrupted) as caught:
            recovery._with_smaller_passes(
                dataclasses.replace(job.ctx, devices=Devices(("a", "b"))),
                many,
                session,
                recovery.OutOfMemory("the GPU ran out of memory"),
            )
        assert caught.value.code == "out_of_memory"
        assert read_resolved(job.ctx.paths)["train.micro_batch"]["value"] == 2

    def settings_of(self, job: TinyJob, monkeypatch: pytest.MonkeyPatch) -> Any:
        seen: list[Any] = []
        with monkeypatch.context() as patch:
            patch.setattr(train, "train_to_the_end", lambda ctx, s, begin: seen.append(s) or 1 / 0)
            with pytest.raises(ZeroDivisionError):
                train.run(job.ctx)
        return seen[0]

    def test_rows_of_a_step_are_those_of_any_smaller_pass(self):
        """Each step's rows fall in length: cut into any micro-batches, there is little padding."""
        lengths = [7 * n % 83 + 1 for n in range(256)]
        order = grouped_order(lengths, 16, seed=1, epoch=0)
        for micro in (1, 2, 4, 8, 16):
            passes = [order[i : i + micro] for i in range(0, len(order), micro)]
            padded = sum(max(lengths[r] for r in rows) * len(rows) for rows in passes)
            assert padded <= 1.1 * sum(lengths)
