"""Which evaluation is the best, and when a run has stopped getting better."""

import dataclasses
from typing import Any

import pytest
from transformers import TrainerState

from ftq_shared.spec import Task
from ftq_worker.training.events import best_step
from ftq_worker.training.flow import is_over
from ftq_worker.training.trainer_args import EXAMPLE

NAN = float("nan")


def state_of(evaluations: list[dict[str, float]]) -> TrainerState:
    history: list[Any] = [{**e, "step": 10 * n} for n, e in enumerate(evaluations, 1)]
    return TrainerState(log_history=history, global_step=10 * len(history))


def figures(accuracy: float, loss: float) -> dict[str, float]:
    return {"eval_accuracy": accuracy, "eval_loss": loss}


@pytest.mark.parametrize(
    ("task", "evaluations", "best"),
    [
        (Task.CLASSIFICATION, [], None),
        # Easy rows: all right at once, and the loss falls a hundredfold after that.
        (Task.CLASSIFICATION, [figures(1.0, 0.61), figures(1.0, 0.08), figures(1.0, 0.004)], 30),
        (Task.CLASSIFICATION, [figures(0.9, 0.5), figures(0.8, 0.1)], 10),
        (Task.CLASSIFICATION, [figures(0.9, 0.5), figures(0.9, 0.5)], 10),
        (Task.CLASSIFICATION, [figures(0.9, 0.5), figures(0.9, NAN)], 10),
        (Task.SFT, [figures(0.1, 0.5), figures(0.9, 0.6), figures(0.1, NAN)], 10),
    ],
)
def test_the_best_of_several(
    task: Task, evaluations: list[dict[str, float]], best: int | None
) -> None:
    settings = dataclasses.replace(EXAMPLE, task=task)
    assert best_step(state_of(evaluations), settings) == best


def test_a_run_whose_loss_still_falls_goes_on() -> None:
    settings = dataclasses.replace(EXAMPLE, task=Task.CLASSIFICATION, steps=1000)
    falling = [figures(1.0, 0.5**n) for n in range(8)]
    assert not is_over(state_of(falling), settings)
    assert is_over(state_of([*falling[:4], *[figures(1.0, 0.9)] * 4]), settings)
