"""Which evaluation is the best, and when a run has stopped getting better."""

import dataclasses
import random
from collections.abc import Sequence
from typing import Any

import pytest
from tests.support.tiny_jobs import TinyJob, tiny_job
from transformers import TrainerState

from ftq_shared.events import EventType
from ftq_worker.job.context import Interrupted, StopReason
from ftq_worker.job.reports import Trained
from ftq_worker.phases import train
from ftq_worker.training.best import best_step, evaluations, gain_figures, is_over, why_early
from ftq_worker.training.trainer_args import EXAMPLE

NAN = float("nan")
SETTINGS = dataclasses.replace(EXAMPLE, steps=1000)


def state_of(evaluations: list[dict[str, float]]) -> TrainerState:
    history: list[Any] = [{**e, "step": 10 * n} for n, e in enumerate(evaluations, 1)]
    return TrainerState(log_history=history, global_step=10 * len(history))


def of_losses(*losses: float) -> TrainerState:
    return state_of([{"eval_loss": loss} for loss in losses])


def of_rows(runs: Sequence[Sequence[float]]) -> TrainerState:
    """Return the state after evaluations whose rows have these losses, as the trainer logs it."""
    state, best = state_of([]), list[float]()
    for n, rows in enumerate(runs, 1):
        loss = sum(rows) / len(rows)
        gain = gain_figures(best, rows, [1] * len(rows))
        state.log_history.append({"eval_loss": loss, **gain, "step": 10 * n})
        state.global_step = 10 * n
        if best_step(state) == 10 * n:
            best = list(rows)
    return state


@pytest.mark.parametrize(
    ("losses", "best"),
    [
        ([], None),
        ([0.61, 0.08, 0.004], 30),
        ([0.5, 0.1], 20),
        ([0.5, 0.5], 10),
        ([0.5, NAN], 10),
        ([NAN, 0.5], 20),
        ([0.5, 0.6, 0.4, 0.7], 30),
        ([0.0003, 0.0002, 0.00001], 10),  # converged: nothing is left to gain
        ([0.5, 0.4996, 0.4992, 0.4988, 0.4984], 40),  # small steps add up
    ],
)
def test_the_best_of_several(losses: list[float], best: int | None) -> None:
    assert best_step(of_losses(*losses)) == best


def test_accuracy_does_not_decide_but_the_loss_behind_it() -> None:
    falling = [{"eval_accuracy": 0.9, "eval_loss": 0.5}, {"eval_accuracy": 0.85, "eval_loss": 0.2}]
    assert best_step(state_of(falling)) == 20


def test_a_gain_within_its_interval_is_none() -> None:
    pick = random.Random(3)
    rows = [pick.uniform(0.2, 2.0) for _ in range(50)]
    noisy = [loss + pick.gauss(-0.01, 0.4) for loss in rows]
    clear = [loss - 0.01 + pick.gauss(0, 0.004) for loss in rows]
    assert sum(noisy) < sum(rows) - 0.05  # lower by more than the smallest gain
    assert best_step(of_rows([rows, noisy])) == 10
    assert best_step(of_rows([rows, clear])) == 20
    assert best_step(of_rows([rows, noisy, clear])) == 30


def test_a_run_whose_loss_still_falls_goes_on() -> None:
    falling = [0.5**n for n in range(8)]
    assert not is_over(of_losses(*falling), SETTINGS)
    assert is_over(of_losses(*falling[:4], 0.9, 0.9, 0.9, 0.9), SETTINGS)


def test_a_run_that_has_converged_ends() -> None:
    """Easy rows: on each of them the loss goes on falling, by next to nothing."""
    runs = [[0.6, 0.7, 0.5] * 10, [0.02, 0.03, 0.01] * 10]
    runs += [[0.0006 / n, 0.0002 / n, 0.0001 / n] * 10 for n in range(1, 8)]
    state = of_rows(runs)
    assert best_step(state) == 30
    assert is_over(of_rows(runs[:3]), SETTINGS)  # what is left is less than the smallest gain
    assert not is_over(of_rows(runs[:2]), SETTINGS)


@pytest.mark.parametrize(
    ("trained", "validated", "over"),
    [
        ([0.3, 0.0004], [0.5, 0.12, 0.12], True),  # the rows are known by heart
        ([0.3, 0.004], [0.5, 0.12, 0.117], True),  # clearly better, by what they still give
        ([0.3, 0.0004], [0.5, 0.3, 0.12], False),  # and what they teach still comes through
        ([0.3, 0.02], [0.5, 0.12, 0.12], False),
        ([0.0004, 0.3], [0.5, 0.12, 0.12], False),  # another pass, harder rows
    ],
)
def test_rows_known_by_heart_teach_no_more(trained, validated, over) -> None:
    """`trained` are the training losses before the second and before the third evaluation."""
    entries = [
        {"eval_train_loss": before, "eval_loss": loss, "eval_gain": last - loss}
        for before, loss, last in zip([2.0, *trained], validated, [9.0, *validated], strict=False)
    ]
    state = state_of(entries)
    assert is_over(state, SETTINGS) is over
    assert ("next to nothing is left to gain" in why_early(state)) is over


def test_too_few_evaluations_end_nothing() -> None:
    assert not is_over(of_losses(0.1, 0.2, 0.3, 0.4), SETTINGS)
    assert is_over(of_losses(0.1, 0.2, 0.3, 0.4, 0.5), SETTINGS)
    words = "3 evaluations in a row were not clearly better than step 10"
    assert why_early(of_losses(0.1, 0.2, 0.3, 0.4, 0.5)) == words


def test_a_checkpoint_of_before_has_no_gains_and_goes_on() -> None:
    assert gain_figures([], [0.5], [1]) == {}
    assert gain_figures([0.5, 0.5], [0.5], [1]) == {}
    assert len(evaluations(of_losses(0.5, 0.4))) == 2


@pytest.mark.parametrize("stop", [3, *(pytest.param(n, marks=pytest.mark.chaos) for n in (6, 9))])
def test_a_resumed_run_compares_with_the_same_rows(tmp_path, llama, stop) -> None:
    """The losses of the best evaluation's rows are in the checkpoint: nothing is decided anew."""
    sizes = {"epochs": 3, "batch_size": 8, "micro_batch": 4, "eval_every": 2}

    def run(name: str) -> TinyJob:
        return tiny_job(tmp_path / name, llama, "sft", train=sizes)

    unbroken, broken = run("unbroken"), run("broken")
    train.run(unbroken.ctx)

    def hook(type_: EventType, data: dict[str, Any]) -> None:
        if type_ is EventType.STEP and data["step"] == stop:
            broken.ctx.control.stop(StopReason.DRAIN)

    broken.events.hook = hook
    with pytest.raises(Interrupted):
        train.run(broken.ctx)
    last = broken.again()
    train.run(last.ctx)

    def told(job: TinyJob) -> list[dict[str, Any]]:
        during = [e for e in job.events.of(EventType.EVAL) if e["when"] == "during"]
        return [{k: v for k, v in e.items() if k != "seconds"} for e in during]

    whole = told(unbroken)
    assert told(broken) + told(last) == whole
    assert sum("gain_low" in e for e in whole) == len(whole) - 1
    reports = [Trained.load(job.ctx.paths.train_report) for job in (unbroken, last)]
    assert reports[0].best_step == reports[1].best_step
    assert reports[0].steps == reports[1].steps
