"""A step is trained again as it was: the same numbers, from whatever is kept, and nothing else."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.support.tiny_jobs import TinyJob, make_rows, tiny_job
from tests.unit.training.test_divergence import break_at, large_numbers
from tests.unit.training.test_resume import run_until

from ftq_shared.errors import FtqError, JobCancelled, Refused, UsageError
from ftq_shared.events import EventType
from ftq_shared.job_record import Replay
from ftq_shared.paths import JobPaths
from ftq_worker.job.context import StopReason
from ftq_worker.phases import replay, train
from ftq_worker.training import checkpoints
from ftq_worker.training.sampling import grouped_order
from ftq_worker.training.trainers import FtqParts

SIZES = {"epochs": 3, "batch_size": 8, "micro_batch": 4, "eval_every": 4, "save_every": 5}


@pytest.fixture
def make(tmp_path, llama, bert) -> Callable[..., TinyJob]:
    def build(task: str = "sft", **spec: Any) -> TinyJob:
        base = llama if task == "sft" else bert
        return tiny_job(tmp_path, base, task, train=SIZES | spec)

    return build


def trained(job: TinyJob) -> TinyJob:
    train.run(job.ctx)
    job.write_events()
    return job


def stopped(job: TinyJob, step: int) -> TinyJob:
    run_until(job, step)
    job.write_events()
    return job


def replayed(job: TinyJob, step: int, **changes: Any) -> TinyJob:
    """Replay a step, as a job of its own."""
    paths = JobPaths(job.ctx.paths.storage, "ft-rrrrrrrr")
    wanted = Replay(job.ctx.job, step)
    again = job.again(job="ft-rrrrrrrr", paths=paths, replay=wanted, token_number=1, **changes)
    replay.run(again.ctx)
    return again


def rows_of_step(task: str, step: int) -> list[int]:
    """Return the positions of a step's rows, as the order of a tiny job has them."""
    epoch, number = divmod(step - 1, 6)
    order = grouped_order(make_rows(task, 48, seed=1)["length"], 8, 42, epoch)
    return order[8 * number : 8 * number + 8]


def result(job: TinyJob) -> dict[str, Any]:
    (data,) = job.events.of(EventType.REPLAYED)
    return data


def steps(*jobs: TinyJob) -> dict[int, dict[str, Any]]:
    return {d["step"]: d for job in jobs for d in job.events.of(EventType.STEP)}


def files_of(job: TinyJob) -> dict[str, str]:
    root = job.ctx.paths.root
    files = (path for path in root.rglob("*") if path.is_file())
    return {str(p): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@pytest.mark.parametrize(
    ("task", "how"),
    [
        ("sft", {"method": "lora"}),
        ("sft", {"method": "full", "packing": True, "micro_batch": 2}),
        ("classification", {"method": "full"}),
    ],
)
def test_every_step_has_the_numbers_it_had(make, task, how):
    job = trained(make(task, **how))
    before = files_of(job)
    kept = sorted(c.step for c in checkpoints.candidates(job.ctx.paths))
    for step in (1, kept[0] + 1, 18):
        again = replayed(job, step)
        told, was = result(again), steps(job)[step]
        assert told["equal"] is True, (step, told)
        assert (told["loss"], told["grad_norm"]) == (was["loss"], was["grad_norm"])
        assert told["lr"] == was["lr"]
        assert told["after_step"] == max((k for k in kept if k < step), default=0)
        assert told["repeated"] == step - 1 - told["after_step"]
        assert not again.events.of(EventType.WARNING)
        assert not again.events.of(EventType.STEP)
        assert len(again.events.of(EventType.REPLAY_ROW)) == 8
    assert files_of(job) == before
    assert not list(again.ctx.paths.root.rglob("checkpoint-*"))


def test_the_rows_of_a_step_are_named_and_weighed(make):
    job = trained(make(method="full"))
    again = replayed(job, 7)
    rows = again.events.of(EventType.REPLAY_ROW)
    assert len(rows) == result(again)["rows"] == 8
    assert [row["loss"] for row in rows] == sorted((r["loss"] for r in rows), reverse=True)
    assert all(row["grad_norm"] > 0 and row["row"] % 3 == 0 for row in rows)
    assert all(row["line"] == row["row"] + 1 and row["file"].startswith("part-") for row in rows)
    assert all(2 * (row["trained"] - 1) + 1 == row["tokens"] for row in rows)
    assert [row["row"] // 3 for row in by_place(rows)] == sorted(rows_of_step("sft", 7))
    others = replayed(job, 8).events.of(EventType.REPLAY_ROW)
    assert [row["row"] // 3 for row in by_place(others)] == sorted(rows_of_step("sft", 8))


def by_place(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(rows, key=lambda row: row["row"])


def test_rows_of_a_classification_have_labels(make):
    again = replayed(trained(make("classification", epochs=1)), 3)
    rows = again.events.of(EventType.REPLAY_ROW)
    assert {row["label"] for row in rows} <= {"even", "odd"}
    assert all("trained" not in row and row["loss"] > 0 and row["grad_norm"] > 0 for row in rows)
    # Without dropout, and as one: near to the loss of the step.
    mean = sum(row["loss"] for row in rows) / len(rows)
    assert mean == pytest.approx(result(again)["loss"], rel=0.3)


@pytest.mark.chaos
def test_an_interruption_on_the_way_is_none(make):
    job = make(save_every=100)
    first = stopped(job, 4)
    second = stopped(first.again(), 9)
    last = trained(second.again())
    told = result(replayed(job, 13))
    assert (told["after_step"], told["equal"]) == (10, True)
    for kept in checkpoints.candidates(job.ctx.paths):
        checkpoints.remove(kept.path)
    told = result(replayed(job, 13))  # over three runs, as one
    assert (told["after_step"], told["repeated"], told["equal"]) == (0, 12, True)
    assert told["loss"] == steps(last)[13]["loss"]


@pytest.mark.chaos
def test_a_lowered_rate_and_halved_passes_are_on_the_way(make, monkeypatch):
    """From the base model: 20 steps as they were, then with a quarter of the rate."""
    rate = {"learning_rate": 1e-3, "method": "full", "epochs": 5, "eval_every": 100}
    job = make(**rate)
    broken = iter([True])

    def training_step(self: Any, *args: Any, **options: Any) -> Any:
        if self.state.global_step == 12 and next(broken, False):
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried")
        return original(self, *args, **options)

    break_at(monkeypatch, 22, large_numbers)
    original = FtqParts.training_step
    monkeypatch.setattr(FtqParts, "training_step", training_step)
    trained(job)
    monkeypatch.undo()
    names = [g["name"] for g in job.events.of(EventType.GUARD)]
    assert names == ["out_of_memory", "diverged"]
    recorded = [d for d in job.events.of(EventType.STEP) if d["step"] == 21]
    assert [d["lr"] for d in recorded] == pytest.approx([recorded[0]["lr"], recorded[0]["lr"] / 4])
    for kept in checkpoints.candidates(job.ctx.paths):
        checkpoints.remove(kept.path)
    again = replayed(job, 23)
    told = result(again)
    assert (told["after_step"], told["equal"]) == (0, True)
    assert told["lr"] == steps(job)[23]["lr"]
    assert told["trained"] == 2
    assert not again.events.of(EventType.WARNING)
    (line,) = [d["line"] for d in again.events.of(EventType.LOG) if "base model" in d["line"]]
    assert "steps 1 to 22 are repeated on the way to step 23, with the settings of 3 runs" in line


def test_a_damaged_checkpoint_is_passed_over(make):
    job = trained(make())
    newest = next(c for c in checkpoints.candidates(job.ctx.paths) if c.step < 18)
    (newest.path / "optimizer.pt").write_bytes(b"")
    told = result(replayed(job, 18))
    assert told["after_step"] < newest.step
    assert told["equal"] is True


def test_other_files_give_other_numbers_and_that_is_told(make, tmp_path, llama):
    job = trained(make(method="full", epochs=1))
    text = job.ctx.paths.events("1").read_text()
    loss = steps(job)[3]["loss"]
    job.ctx.paths.events("1").write_text(text.replace(f'"loss":{loss}', '"loss":1.25'))
    again = replayed(job, 3)
    assert (result(again)["equal"], result(again)["recorded_loss"]) == (False, 1.25)
    (warning,) = again.events.of(EventType.WARNING)
    assert f"loss {loss} instead of 1.25" in warning["message"]
    (warning,) = replayed(job, 4).events.of(EventType.WARNING)
    assert "step 3, on the way" in warning["message"]


def test_a_stop_ends_it_at_the_next_step(make):
    job = trained(make(save_every=100))
    again = job.again(
        job="ft-rrrrrrrr",
        paths=JobPaths(job.ctx.paths.storage, "ft-rrrrrrrr"),
        replay=Replay(job.ctx.job, 18),
        token_number=1,
    )

    def hook(type_: EventType, data: dict[str, Any]) -> None:
        if type_ is EventType.PROGRESS and data["task"].startswith("repeat") and data["done"]:
            again.ctx.control.stop(StopReason.CANCEL)

    again.events.hook = hook
    with pytest.raises(JobCancelled):
        replay.run(again.ctx)
    assert not again.events.of(EventType.REPLAYED)


class TestRefused:
    @pytest.fixture
    def job(self, make) -> TinyJob:
        return stopped(make(epochs=1), 3)

    def code(self, job: TinyJob, step: int = 2, **changes: Any) -> tuple[str, str]:
        with pytest.raises(FtqError) as caught:
            replayed(job, step, **changes)
        usage = caught.value.code == "no_such_step"
        assert isinstance(caught.value, UsageError if usage else Refused)
        assert caught.value.hint
        return caught.value.code, caught.value.message

    def test_no_such_step(self, job):
        code, words = self.code(job, 5)
        assert (code, words) == (
            "no_such_step",
            "ft-aaaaaaaa has recorded no step 5: it has trained steps 1 to 4",
        )

    def test_the_storage_was_pruned(self, job):
        paths: JobPaths = job.ctx.paths
        paths.prepared.rename(paths.root / "aside")
        assert self.code(job)[0] == "pruned"
        (paths.root / "aside").rename(paths.prepared)
        paths.marker.unlink()
        assert self.code(job)[0] == "pruned"

    def test_an_older_version_trained_it(self, job):
        job.ctx.paths.runs("1").unlink()
        assert self.code(job)[0] == "not_recorded"

    def test_prepared_anew_since(self, job):
        report: Path = job.ctx.paths.prepared_report
        report.write_text(report.read_text() + " ")
        assert self.code(job)[0] == "other_data"

    def test_given_up_by_a_training_that_started_afresh(self, job):
        assert self.code(job, fresh_after=1)[0] == "not_recorded"

    def test_as_many_devices_as_the_training_had(self, job):
        path: Path = job.ctx.paths.runs("1")
        text = path.read_text()
        path.write_text(text.replace('"on_cpu":true', '"on_cpu":false'))
        assert self.code(job)[0] == "other_device"
        path.write_text(text.replace('"world_size":1', '"world_size":2'))
        assert "on 2 devices together, and 1 were given" in self.code(job)[1]

    def test_a_line_that_was_cut_off_is_passed_over(self, job):
        path: Path = job.ctx.paths.runs("1")
        path.write_text(path.read_text() + '{"begun": "2')
        assert result(replayed(job, 2))["equal"] is True
