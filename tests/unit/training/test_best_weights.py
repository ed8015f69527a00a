"""The best is kept as weights alone, complete or absent; a save is made where there is room."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.support.tiny_jobs import TinyJob, tiny_job
from tests.unit.training.test_outlived import guards, steps, weights

from ftq_shared.events import EventType
from ftq_worker.job.context import HostFault
from ftq_worker.phases import train
from ftq_worker.training import checkpoints
from ftq_worker.training.best_weights import BestWeights
from ftq_worker.training.checkpoints import BEST, STATE

# A rate at which it breaks what it has learned: the best is not the last.
SIZES = {"epochs": 4, "batch_size": 8, "micro_batch": 8, "eval_every": 2, "learning_rate": 7e-2}


class Killed(BaseException):
    """A process that ends without a word, as far as one process can show it."""


@pytest.fixture
def make(tmp_path, bert) -> Callable[..., TinyJob]:
    def build(name: str, **spec: Any) -> TinyJob:
        return tiny_job(tmp_path / name, bert, "classification", train=SIZES | spec)

    return build


def report(job: TinyJob) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(job.ctx.paths.train_report.read_text())
    return found


def test_weights_alone_that_the_training_does_not_wait_for(make):
    job = make("job")
    train.run(job.ctx)
    best = report(job)["best_step"]
    assert best < report(job)["steps"]
    (kept,) = checkpoints.candidates(job.ctx.paths, BEST)
    assert kept.step == best
    assert checkpoints.damage(kept) is None
    assert not {"optimizer.pt", STATE} & kept.files.keys()
    # A whole checkpoint at the end alone, and what no step needs any more is not in it.
    assert [c["step"] for c in job.events.of(EventType.CHECKPOINT)] == [report(job)["steps"]]
    (end,) = checkpoints.candidates(job.ctx.paths)
    assert STATE in end.files
    assert "optimizer.pt" not in end.files
    assert end.facts["best_step"] == best
    assert not list(checkpoints.part_folder(job.ctx.paths, job.ctx.claim).glob("*"))


def test_killed_before_its_seal_ends_as_unbroken(make, monkeypatch):
    unbroken = make("unbroken", save_every=3)
    train.run(unbroken.ctx)
    best = report(unbroken)["best_step"]
    broken = make("broken", save_every=3)

    def kill(type_: EventType, data: dict[str, Any]) -> None:
        if type_ is EventType.STEP and data["step"] == best + 1:
            raise Killed

    # As if the thread had no time between the evaluation and the end.
    whole = BestWeights.seal
    monkeypatch.setattr(BestWeights, "seal", lambda self, wait=True: whole(self) if wait else None)
    broken.events.hook = kill
    with pytest.raises(Killed):
        train.run(broken.ctx)
    monkeypatch.undo()
    last = broken.again()
    train.run(last.ctx)
    assert steps(broken) | steps(last) == steps(unbroken)
    assert report(last)["best_step"] == best
    assert all(a.equal(weights(unbroken)[name]) for name, a in weights(last).items())
    assert not last.events.of(EventType.WARNING)


def test_damaged_weights_are_not_taken(make, monkeypatch):
    job = make("job")
    monkeypatch.setattr(train, "keep_best", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        train.run(job.ctx)
    monkeypatch.undo()
    (kept,) = checkpoints.candidates(job.ctx.paths, BEST)
    (kept.path / "model.safetensors").write_bytes(b"")
    last = job.again()
    train.run(last.ctx)
    (said,) = last.events.of(EventType.WARNING)
    assert f"the best checkpoint (step {kept.step}) cannot be used" in said["message"]


def test_the_best_of_every_checkpoint_stays(tmp_path):
    """Also that of the one before: on a card a resumed run may come to another best."""
    paths = SimpleNamespace(root=tmp_path)

    def seal(token: int, kind: str, step: int, best: int | None) -> None:
        folder = tmp_path / f"attempts/{token}/checkpoints/.part/{kind}-{step}"
        folder.mkdir(parents=True)
        (folder / "model.safetensors").write_text("weights")
        facts: Any = {"best_step": best} if best else {}
        checkpoints.seal(folder, step=step, token=token, data="", facts=facts)

    for token, step in ((1, 2), (1, 4), (2, 6), (2, 8), (3, 8)):
        seal(token, BEST, step, None)
    seal(1, "checkpoint", 5, best=4)
    left = lambda: [(c.token, c.step) for c in checkpoints.candidates(paths, BEST)]  # noqa: E731
    checkpoints.prune_weights(paths, 8, {2})
    assert left() == [(3, 8), (2, 8), (1, 4), (1, 2)]
    checkpoints.prune_weights(paths, 8, range(3))
    assert left() == [(3, 8), (2, 8), (1, 4)]


def test_weights_of_steps_that_are_trained_again_are_gone(tmp_path):
    """Else a run that was rolled back could end with what it had left behind."""
    root = SimpleNamespace(root=tmp_path, checkpoint=tmp_path / "checkpoint.json")
    for kind, step in (("checkpoint", 100), (BEST, 90), (BEST, 120)):
        folder = tmp_path / f"attempts/1/checkpoints/.part/{kind}-{step}"
        folder.mkdir(parents=True)
        (folder / "model.safetensors").write_text("weights")
        checkpoints.seal(folder, step=step, token=1, data="", facts={})
    checkpoints.roll_back(root, data="", token=1, fresh_after=0, onset=126)
    assert [c.step for c in checkpoints.candidates(root, BEST)] == [90]


def test_of_a_step_that_was_trained_again_the_last_time_counts(tmp_path):
    root = SimpleNamespace(root=tmp_path)

    def seal(token: int, kind: str, step: int) -> None:
        folder = tmp_path / f"attempts/{token}/checkpoints/.part/{kind}-{step}"
        folder.mkdir(parents=True)
        (folder / "model.safetensors").write_text("weights")
        checkpoints.seal(folder, step=step, token=token, data="", facts={})

    def found(step: int) -> tuple[int, str]:
        kept = checkpoints.last_trained(root, "", 0, step)
        assert kept
        return kept.token, kept.path.name

    seal(1, BEST, 120)  # then memory ran out at 128, and 120 was the best and a save at once
    seal(1, "checkpoint", 120)
    assert found(120) == (1, "checkpoint-120")
    seal(2, BEST, 120)  # a later attempt
    assert found(120) == (2, "best-120")
    assert checkpoints.last_trained(root, "", 0, 100) is None


class TestRoom:
    def refuse(self, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
        """Be a disk that has no room once a save of this kind is to come."""
        usage = shutil.disk_usage

        def disk_usage(path: Path) -> Any:
            return SimpleNamespace(free=4 * 2**20) if full else usage(path)

        full: list[str] = []
        monkeypatch.setattr("ftq_worker.training.room.shutil.disk_usage", disk_usage)
        original = train.build_session

        def build(*args: Any) -> Any:
            session = original(*args)
            ask = session.trainer.before_save

            def before_save(what: str, size: int) -> None:
                full.extend([what] if what.startswith(kind) else [])
                ask(what, size)

            session.trainer.before_save = before_save
            return session

        monkeypatch.setattr(train, "build_session", build)

    @pytest.mark.parametrize(("kind", "at"), [("the checkpoint", 3), ("the best model", 2)])
    def test_it_is_asked_for_before_anything_is_written(self, make, monkeypatch, kind, at):
        job = make("job", save_every=3)
        self.refuse(monkeypatch, kind)
        with pytest.raises(HostFault) as caught:
            train.run(job.ctx)
        assert caught.value.code == "disk_full"
        assert caught.value.message.startswith(f"{kind} of step {at} needs 4 MB, and ")
        assert "ftq prune" in caught.value.hint
        assert guards(job) == ["disk_full"]
        assert not list(checkpoints.part_folder(job.ctx.paths, job.ctx.claim).glob(f"*-{at}"))
        monkeypatch.undo()
        last = job.again()
        train.run(last.ctx)
        assert report(last)["best_step"]

    def test_what_it_will_take_is_counted(self, make, monkeypatch):
        """Of the tensors, before the first save: within its files' headers of what is written."""
        asked: dict[str, int] = {}
        original = train.build_session

        def build(*args: Any) -> Any:
            session = original(*args)
            session.trainer.before_save = lambda what, size: asked.update({what: size})
            return session

        monkeypatch.setattr(train, "build_session", build)
        for method in ("full", "lora"):
            job = make(method, save_every=3, max_steps=4, method=method, eval_every=2)
            train.run(job.ctx)
            whole = next(c for c in checkpoints.candidates(job.ctx.paths) if c.step == 3)
            kinds = ("optimizer.pt", "model.safetensors", "adapter_model.safetensors")
            written = sum(whole.files[name]["bytes"] for name in kinds if name in whole.files)
            assert asked["the checkpoint of step 3"] == pytest.approx(written, abs=80_000, rel=0.02)
            assert asked["the checkpoint of step 3"] <= written
