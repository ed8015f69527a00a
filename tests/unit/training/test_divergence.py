"""A loss that is no number, or leaps and stays: told from ordinary noise, rolled back once."""

import json
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.support.tiny_jobs import TinyJob, tiny_job
from tests.unit.training.test_outlived import assert_same_end, guards, steps, weights

from ftq_shared.errors import TrainingFailed
from ftq_shared.events import EventType
from ftq_worker.job.context import Interrupted, StopReason
from ftq_worker.job.reports import read_resolved
from ftq_worker.phases import train
from ftq_worker.training import checkpoints
from ftq_worker.training.divergence import FEWEST, STAYS, LossWatch
from ftq_worker.training.trainers import FtqParts

CURVES: dict[str, list[float]] = json.loads(  # losses of real trainings, step by step
    (Path(__file__).parent / "loss_curves.json").read_text()
)
RATE = 1e-3
SIZES = {"epochs": 7, "batch_size": 8, "micro_batch": 8, "eval_every": 100, "save_every": 5}


def first_alarm(losses: list[float]) -> int | None:
    """Return the step at which a run with these losses is said to have diverged."""
    watch = LossWatch()
    return next((n for n, loss in enumerate(losses, 1) if watch.leapt(loss)), None)


@pytest.mark.parametrize("name", CURVES)
def test_real_trainings_raise_no_alarm_until_they_break(name: str) -> None:
    losses = CURVES[name]
    assert first_alarm(losses) is None
    for calm in range(FEWEST, len(losses), 7):  # as if the weights broke here
        broken = 2 * max(losses[:calm]) + 1
        alarm = first_alarm([*losses[:calm], *[broken] * STAYS])
        assert alarm is not None
        assert calm < alarm <= calm + STAYS  # sooner where the last calm steps lay above already


class TestLossWatch:
    def test_a_leap_counts_when_it_stays(self) -> None:
        pick = random.Random(1)
        calm = [pick.gauss(2.0, 0.2) for _ in range(60)]
        assert first_alarm(calm) is None
        assert first_alarm([*calm, *[9.0] * (STAYS - 1), *calm]) is None
        assert first_alarm([*calm, *[9.0] * STAYS]) == len(calm) + STAYS

    def test_too_few_steps_tell_nothing(self) -> None:
        assert first_alarm([1.0] * (FEWEST - 1) + [9.0] * STAYS) is None

    def test_rows_known_by_heart_have_no_spread_and_a_hard_batch_is_no_leap(self) -> None:
        assert first_alarm([1e-4] * 100 + [0.15] * STAYS) is None
        assert first_alarm([1e-4] * 100 + [0.3] * STAYS) == 100 + STAYS

    def test_steps_that_lie_above_do_not_raise_the_bar(self) -> None:
        calm = [1.0 + 0.01 * (n % 7) for n in range(40)]
        slow = [1.1 + 0.2 * n for n in range(1, 12)]
        assert first_alarm([*calm, *slow]) is not None

    def test_noise_raises_no_alarm(self) -> None:
        """Heavy tails (t with 3 degrees of freedom) around a falling mean, 200 runs of 500."""
        pick = random.Random(7)

        def noisy(step: int) -> float:
            tail = pick.gauss(0, 1) / math.sqrt(pick.gammavariate(1.5, 2) / 3)
            return 2 * math.exp(-step / 200) + 0.3 * abs(tail)

        alarms = [first_alarm([noisy(n) for n in range(500)]) for _ in range(200)]
        assert [alarm for alarm in alarms if alarm] == []


@pytest.fixture
def make(tmp_path, llama, bert) -> Callable[..., TinyJob]:
    def build(name: str, task: str = "sft", **spec: Any) -> TinyJob:
        base = llama if task == "sft" else bert
        sizes = SIZES | {"method": "full", "learning_rate": RATE} | spec
        return tiny_job(tmp_path / name, base, task, train=sizes)

    return build


def break_at(
    monkeypatch: pytest.MonkeyPatch,
    step: int,
    how: Callable[[torch.Tensor], Any],
    above: float = 0.5 * RATE,
) -> None:
    """Break the weights before a step, as a rate that is too high does: not with a lower one."""

    def training_step(self: Any, model: Any, *args: Any, **options: Any) -> Any:
        if self.state.global_step + 1 == step and self.args.learning_rate > above:
            torch.manual_seed(step)
            for weight in model.parameters():
                how(weight.data)
        return super(FtqParts, self).training_step(model, *args, **options)

    monkeypatch.setattr(FtqParts, "training_step", training_step, raising=False)


def no_numbers(weight: torch.Tensor) -> None:
    weight.fill_(math.nan)


def large_numbers(weight: torch.Tensor) -> None:
    weight.add_(5 * torch.randn_like(weight))


def stop_at(job: TinyJob, step: int, rate: float) -> None:
    """Ask for a stop at a step that is trained with a peak rate of at most `rate`."""

    def hook(type_: EventType, data: dict[str, Any]) -> None:
        if type_ is EventType.STEP and data["step"] == step and data["lr"] <= rate:
            job.ctx.control.stop(StopReason.DRAIN)

    job.events.hook = hook


class TestRollback:
    @pytest.mark.parametrize(
        ("how", "step", "told", "name", "epochs"),
        [(no_numbers, 7, 7, "nonfinite_loss", 2), (large_numbers, 22, 26, "diverged", 5)],
    )
    def test_from_the_last_good_checkpoint_with_a_lower_rate_once(
        self, make, monkeypatch, how, step, told, name, epochs
    ):
        break_at(monkeypatch, step, how)
        job = make("job", epochs=epochs)
        train.run(job.ctx)
        assert guards(job) == [name]
        said = job.events.of(EventType.GUARD)[0]
        assert said["message"].startswith(f"step {told}: ")
        assert "learning rate of 0.00025 instead of 0.001" in said["action"]
        good = (step - 1) // 5 * 5
        (resumed,) = job.events.of(EventType.RESUMED)
        assert (resumed["step"], resumed["reason"]) == (good, "the training had diverged")
        assert max(steps(job)) == 6 * epochs
        known = read_resolved(job.ctx.paths)
        assert known["train.learning_rate"]["value"] == RATE / 4
        assert known["train.on_divergence"]["value"] == "stop"
        assert all(math.isfinite(loss) for loss, *_ in steps(job).values())
        monkeypatch.undo()

        # As a run that was stopped there and told of the lower rate.
        twin = make("twin", epochs=epochs)
        stop_at(twin, good - 1, RATE)
        with pytest.raises(Interrupted):
            train.run(twin.ctx)
        spec = twin.ctx.spec
        rate = spec.train.model_copy(update={"learning_rate": RATE / 4})
        last = twin.again(spec=spec.model_copy(update={"train": rate}))
        train.run(last.ctx)
        ends = {n: v for n, v in steps(job).items() if n > good}
        assert ends == steps(last)
        pairs = zip(weights(job).values(), weights(last).values(), strict=True)
        assert all(a.equal(b) for a, b in pairs)

    def test_without_a_checkpoint_from_the_beginning(self, make, monkeypatch):
        break_at(monkeypatch, 4, no_numbers)
        job = make("job", epochs=2, save_every=100)
        train.run(job.ctx)
        monkeypatch.undo()
        low = make("low", epochs=2, save_every=100, learning_rate=RATE / 4)
        train.run(low.ctx)
        assert {n: v[:3] for n, v in steps(job).items()} == {
            n: v[:3] for n, v in steps(low).items()
        }
        assert not job.events.of(EventType.RESUMED)
        assert not job.events.of(EventType.WARNING)
        # What was learned in a training is of no use to one that is started afresh.
        afresh = job.again(fresh_after=job.ctx.token_number)
        train.run(afresh.ctx)
        assert max(step["lr"] for step in afresh.events.of(EventType.STEP)) == RATE

    def test_interrupted_within_the_leap_the_end_is_the_same(self, make, monkeypatch):
        """What is looked at is saved."""
        break_at(monkeypatch, 22, large_numbers)
        unbroken = make("unbroken", epochs=5, save_every=3)
        train.run(unbroken.ctx)
        assert guards(unbroken) == ["diverged"]
        broken = make("broken", epochs=5, save_every=3)
        stop_at(broken, 23, RATE)
        with pytest.raises(Interrupted):
            train.run(broken.ctx)
        last = broken.again()
        train.run(last.ctx)
        assert guards(broken) + guards(last) == ["diverged"]
        merged = steps(broken) | steps(last)
        last.events.seen[:] = [
            *broken.events.seen,
            *(e for e in last.events.seen if e[0] is not EventType.GUARD),
        ]
        assert steps(last) == merged
        assert_same_end(last, unbroken)

    def test_a_second_time_it_stops(self, make, monkeypatch):
        break_at(monkeypatch, 12, no_numbers, above=0.0)
        job = make("job", epochs=3)
        with pytest.raises(TrainingFailed) as caught:
            train.run(job.ctx)
        assert caught.value.code == "nonfinite_loss"
        assert "it is 0.00025" in caught.value.hint
        told = job.events.of(EventType.GUARD)
        assert [g["action"].split(",")[0] for g in told] == [
            "training goes on from its last checkpoint before step 12",
            "training was stopped",
        ]
        kept = [c.step for c in checkpoints.candidates(job.ctx.paths)]
        assert kept == [10, 5]

    def test_stop_is_a_choice(self, make, monkeypatch):
        break_at(monkeypatch, 30, large_numbers)
        job = make("job", on_divergence="stop")
        with pytest.raises(TrainingFailed) as caught:
            train.run(job.ctx)
        assert caught.value.code == "diverged"
        assert caught.value.where["step"] == 34
        assert job.events.of(EventType.GUARD)[0]["action"] == "training was stopped"
        assert "train.learning_rate" not in read_resolved(job.ctx.paths)
        monkeypatch.undo()
        again = job.again()  # the weights of the leap, in later checkpoints, are of no use
        train.run(again.ctx)
        assert again.events.of(EventType.RESUMED)[0]["step"] == 25
        assert min(steps(again)) == 26
