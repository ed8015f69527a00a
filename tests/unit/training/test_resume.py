"""Exact resume: interrupted anywhere, the final weights are those of the unbroken run."""

import json
import random
import shutil
from dataclasses import replace

import pytest
from safetensors.torch import load_file
from tests.support.tiny_jobs import TinyJob, tiny_job

from ftq_shared.errors import JobCancelled, Stale
from ftq_shared.events import EventType
from ftq_worker.job.context import Interrupted, SoleOwner, StopReason
from ftq_worker.job.reports import GoldenScores, Prepared
from ftq_worker.phases import train
from ftq_worker.training import checkpoints, sampling
from ftq_worker.training.session import find_resume

KINDS = [
    ("sft", "lora"),
    pytest.param("sft", "full", marks=pytest.mark.chaos),
    ("classification", "full"),
    pytest.param("classification", "lora", marks=pytest.mark.chaos),
]


def weights(job: TinyJob):
    (path,) = job.ctx.paths.model.glob("*.safetensors")
    return load_file(path)


def stop_at(job: TinyJob, step: int, reason: StopReason = StopReason.DRAIN) -> None:
    """Ask for a stop when the event of `step` goes out: it takes effect one step later."""

    def hook(type_, data):
        if type_ is EventType.STEP and data["step"] == step:
            job.ctx.control.stop(reason)

    job.events.hook = hook


def run_until(job: TinyJob, step: int) -> None:
    stop_at(job, step)
    with pytest.raises(Interrupted):
        train.run(job.ctx)


def assert_equal_weights(one: TinyJob, other: TinyJob) -> None:
    first, second = weights(one), weights(other)
    assert first.keys() == second.keys()
    differing = [name for name in first if not first[name].equal(second[name])]
    assert not differing


def lines(job: TinyJob) -> dict[int, tuple]:
    return {
        d["step"]: (d["loss"], d["lr"], d["grad_norm"], d["epoch"])
        for d in job.events.of(EventType.STEP)
    }


@pytest.fixture
def make(tmp_path, llama, bert):
    def build(name: str, task: str, **spec) -> TinyJob:
        base = llama if task == "sft" else bert
        return tiny_job(tmp_path / name, base, task, **spec)

    return build


@pytest.mark.parametrize(("task", "method"), KINDS)
def test_resumed_twice_equals_unbroken(make, task, method):
    # 3 passes of 6 steps over 48 rows; dropout is on in the models and in LoRA.
    # Five evaluations: too few for early stopping.
    sizes = {"epochs": 3, "batch_size": 8, "micro_batch": 4, "eval_every": 4}
    spec = {"train": {"method": method, **sizes}}
    unbroken = make("unbroken", task, **spec)
    train.run(unbroken.ctx)
    pick = random.Random(f"{task}{method}")
    first = pick.randrange(1, 14)
    second = pick.randrange(first + 2, 17)
    broken = make("broken", task, **spec)
    run_until(broken, first)
    again = broken.again()
    run_until(again, second)
    last = again.again()
    train.run(last.ctx)

    assert_equal_weights(unbroken, last)
    together = lines(broken) | lines(again) | lines(last)
    assert together == lines(unbroken)
    assert [d["step"] for d in again.events.of(EventType.RESUMED)] == [first + 1]
    report, whole = (json.loads(j.ctx.paths.train_report.read_text()) for j in (last, unbroken))
    report["golden_before"].pop("seconds"), whole["golden_before"].pop("seconds")
    assert report["golden_before"] == whole["golden_before"]
    notes, wanted = (GoldenScores.load(j.ctx.paths.golden_scores) for j in (last, unbroken))
    assert (notes.rows, notes.before, notes.probe) == (wanted.rows, wanted.before, wanted.probe)
    assert report["best_step"] == whole["best_step"]
    assert [v["loss"] for v in report["validation"]] == [v["loss"] for v in whole["validation"]]


def test_stopped_at_an_epochs_end(make):
    spec = {"train": {"epochs": 2, "batch_size": 8, "micro_batch": 8}}
    unbroken, broken = make("a", "sft", **spec), make("b", "sft", **spec)
    train.run(unbroken.ctx)
    run_until(broken, 5)  # takes effect at step 6, the last of the first pass
    last = broken.again()
    train.run(last.ctx)
    assert_equal_weights(unbroken, last)


def test_every_pass_has_its_own_order_also_after_a_resume(make, monkeypatch):
    asked = []
    original = sampling.grouped_order

    def grouped_order(lengths, batch, seed, epoch):
        asked.append(epoch)
        return original(lengths, batch, seed, epoch)

    monkeypatch.setattr(sampling, "grouped_order", grouped_order)
    job = make("job", "sft", train={"epochs": 3, "batch_size": 16})
    run_until(job, 4)  # step 5 is in the second of three passes of 3 steps
    train.run(job.again().ctx)
    assert asked == [0, 1, 1, 2]


def test_killed_after_training_only_scores_again(make, monkeypatch):
    spec = {"train": {"max_steps": 5}}
    job = make("job", "sft", **spec)
    monkeypatch.setattr(train, "keep_best", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        train.run(job.ctx)
    monkeypatch.undo()
    last = job.again()
    train.run(last.ctx)
    assert not last.events.of(EventType.STEP)
    assert last.ctx.paths.train_report.exists()
    unbroken = make("unbroken", "sft", **spec)
    train.run(unbroken.ctx)
    assert_equal_weights(unbroken, last)


@pytest.mark.chaos
def test_evaluations_and_saves_do_not_change_what_is_trained(make):
    often = {"train": {"eval_every": 3, "save_every": 2}}
    never = {"train": {"eval_every": 12, "save_every": "1h"}}
    one, other = make("often", "sft", **often), make("never", "sft", **never)
    for job in (one, other):
        train.run(job.ctx)
    assert {k: v[0] for k, v in lines(one).items()} == {k: v[0] for k, v in lines(other).items()}


def test_cancel_is_told_apart(sft_job):
    stop_at(sft_job, 2, StopReason.CANCEL)
    with pytest.raises(JobCancelled):
        train.run(sft_job.ctx)
    assert json.loads(sft_job.ctx.paths.checkpoint.read_text())["step"] == 3


def test_deadline_is_told_apart(sft_job):
    stop_at(sft_job, 2, StopReason.DEADLINE)
    with pytest.raises(Interrupted) as caught:
        train.run(sft_job.ctx)
    assert caught.value.code == "timeout"


@pytest.fixture(scope="module")
def original(tmp_path_factory, llama) -> TinyJob:
    """A job that was stopped; to be copied."""
    folder = tmp_path_factory.mktemp("stopped")
    job = tiny_job(folder, llama, "sft", train={"save_every": 2, "eval_every": 100})
    run_until(job, 6)  # checkpoints of steps 6 and 7 are kept
    return job


class TestDamage:
    """A checkpoint that is not what its manifest says is never resumed from."""

    @pytest.fixture
    def stopped(self, original, tmp_path) -> TinyJob:
        shutil.copytree(original.ctx.paths.storage, tmp_path / "storage")
        return original.again(paths=replace(original.ctx.paths, storage=tmp_path / "storage"))

    @pytest.fixture
    def newest(self, stopped):
        return checkpoints.candidates(stopped.ctx.paths)[0].path

    def resumed_from(self, job: TinyJob) -> list[int]:
        find_resume(job.ctx)
        self.warnings = [w["message"] for w in job.events.of(EventType.WARNING)]
        return [d["step"] for d in job.events.of(EventType.RESUMED)]

    def test_whole(self, stopped):
        assert self.resumed_from(stopped) == [7]
        assert not self.warnings

    @pytest.mark.parametrize("name", ["optimizer.pt", "trainer_state.json", "rng_state.pth"])
    def test_flipped_byte(self, stopped, newest, name):
        data = bytearray((newest / name).read_bytes())
        data[len(data) // 2] ^= 0xFF
        (newest / name).write_bytes(data)
        assert self.resumed_from(stopped) == [6]
        assert name in self.warnings[0]

    def test_truncated_file(self, stopped, newest):
        path = newest / "adapter_model.safetensors"
        path.write_bytes(path.read_bytes()[:-9])
        assert self.resumed_from(stopped) == [6]

    def test_missing_file(self, stopped, newest):
        (newest / "scheduler.pt").unlink()
        assert self.resumed_from(stopped) == [6]

    def test_unfinished(self, stopped, newest):
        (newest / checkpoints.MANIFEST).unlink()
        assert self.resumed_from(stopped) == [6]
        assert not self.warnings  # cut off while writing is not damage

    @pytest.mark.parametrize("text", ["", "{", "[]", '{"step": "x"}'])
    def test_broken_manifest(self, stopped, newest, text):
        (newest / checkpoints.MANIFEST).write_text(text)
        assert self.resumed_from(stopped) == [6]
        assert self.warnings

    def test_broken_pointer_hides_nothing(self, stopped):
        stopped.ctx.paths.checkpoint.write_text('{"step": ')
        assert self.resumed_from(stopped) == [7]

    def test_damaged_newest_trains_on_from_the_older(self, stopped, newest):
        (newest / "optimizer.pt").write_bytes(b"")
        train.run(stopped.ctx)
        assert [d["step"] for d in stopped.events.of(EventType.STEP)] == list(range(7, 13))

    @pytest.mark.parametrize("text", ["[]", '{"step": 7}', '{"step": 7, "token": "x"}', "\xff"])
    def test_a_pointer_that_says_nothing_is_replaced(self, stopped, newest, text):
        stopped.ctx.paths.checkpoint.write_text(text, encoding="latin-1")
        checkpoints.switch(stopped.ctx.paths, checkpoints.read_manifest(newest), None)
        assert checkpoints.read_pointer(stopped.ctx.paths)["step"] == 7

    def test_all_damaged_starts_over_and_says_why(self, stopped):
        for found in checkpoints.candidates(stopped.ctx.paths):
            (found.path / "optimizer.pt").write_bytes(b"")
        assert self.resumed_from(stopped) == []
        (said,) = self.warnings
        assert said.startswith("training starts from the beginning: checkpoint-7: optimizer.pt has")
        assert "checkpoint-6: optimizer.pt has 0 bytes" in said

    def test_all_gone_starts_over_and_says_so(self, stopped):
        for found in checkpoints.candidates(stopped.ctx.paths):
            shutil.rmtree(found.path)
        assert self.resumed_from(stopped) == []
        assert self.warnings == ["training starts from the beginning: checkpoint-7 is gone"]

    def test_damaged_ones_do_not_push_good_ones_out(self, stopped):
        """Both known checkpoints are damaged: the two that are written next must stay."""
        for found in checkpoints.candidates(stopped.ctx.paths):
            (found.path / "optimizer.pt").write_bytes(b"")
        run_until(stopped, 4)
        assert [c.step for c in checkpoints.candidates(stopped.ctx.paths)] == [5, 4]
        assert self.resumed_from(stopped.again()) == [5]
        assert not self.warnings

    def test_prepared_anew_is_another_training(self, stopped):
        paths = stopped.ctx.paths
        report = Prepared.load(paths.prepared_report)
        report.model_copy(update={"golden_sha256": "f" * 64}).save(paths.prepared_report)
        assert self.resumed_from(stopped) == []
        (said,) = self.warnings
        assert "checkpoint-7 is of other data: the job was prepared anew since" in said
        run_until(stopped, 3)  # fewer steps than the old ones: these must not win
        assert [c.step for c in checkpoints.candidates(paths)] == [4, 2]
        again = stopped.again()
        assert self.resumed_from(again) == [4]

    def test_a_phase_that_is_asked_to_start_afresh_does(self, stopped):
        afresh = stopped.again(fresh_after=1)
        assert self.resumed_from(afresh) == []
        assert not self.warnings  # it was asked for
        run_until(afresh, 3)
        assert [c.step for c in checkpoints.candidates(stopped.ctx.paths)] == [4, 2]
        assert self.resumed_from(afresh.again()) == [4]


def test_a_stale_owner_names_no_checkpoint(make):
    class Lost(SoleOwner):
        def check_lease(self):
            raise Stale("somebody else owns this job now")

    job = make("job", "sft", train={"max_steps": 2})
    with pytest.raises(Stale):
        train.run(replace(job.ctx, owner=Lost()))
    assert not job.ctx.paths.checkpoint.exists()


def test_an_owner_goes_on_beside_a_claim_that_the_broker_has_forgotten(make):
    # After a rollback the numbers of forgotten claims are higher than the valid one's.
    job = make("job", "sft", train={"max_steps": 6})
    run_until(job.again(token_number=7), 1)
    valid = job.again(token_number=3)
    train.run(valid.ctx)
    assert [d["step"] for d in valid.events.of(EventType.RESUMED)] == [2]
    assert json.loads(valid.ctx.paths.checkpoint.read_text())["token"] == 3


def test_two_newest_and_the_best_are_kept(make):
    job = make("job", "classification", train={"save_every": 1, "epochs": 3})
    train.run(job.ctx)
    best = json.loads(job.ctx.paths.train_report.read_text())["best_step"]
    kept = {c.step for c in checkpoints.candidates(job.ctx.paths)}
    assert kept == {18, 17, best}
    pointer = json.loads(job.ctx.paths.checkpoint.read_text())
    assert pointer["step"] == 18
    assert pointer["best"] == {"step": best}
    assert (job.ctx.paths.root / pointer["path"]).is_dir()
