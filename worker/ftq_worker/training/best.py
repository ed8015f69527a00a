"""Which evaluation is the best, and when a run has stopped getting better.

Both look at the validation loss, also for classification: accuracy moves by whole rows and stands
still while the model still learns, whereas the loss is a proper score (Gneiting, Raftery 2007,
"Strictly proper scoring rules, prediction, and estimation", JASA 102). All that is decided here
follows from the evaluations in the trainer's state, so that a resumed run decides as an unbroken
one does.
"""

import math
from collections.abc import Sequence

from transformers import TrainerState

from ftq_worker.training.intervals import gain_interval
from ftq_worker.training.settings import TrainSettings

PATIENCE = 3  # evaluations without a better one that end a run
FEWEST_EVALS = 5  # below that a run is too short to be ended early
# Nats per token or example: a thousandth of the perplexity. A run that has converged goes on
# falling by less, on all rows alike, for as long as it is let.
SMALLEST_GAIN = 1e-3
# Nats: a mean training loss at which 99.5 % is given to what is trained.
KNOWN_BY_HEART = 5e-3


def evaluations(state: TrainerState) -> list[dict[str, float]]:
    """Return the evaluations so far, oldest first; they are part of every checkpoint."""
    return [entry for entry in state.log_history if "eval_loss" in entry]


def gain_figures(
    best: Sequence[float], now: Sequence[float], counts: Sequence[int]
) -> dict[str, float]:
    """Return what an evaluation has gained over the best one before it, for its log.

    `best` and `now` are the summed losses of the same rows, `counts` what they were summed over;
    empty where there is nothing to compare with.
    """
    if len(best) != len(now):
        return {}
    gain, ends = gain_interval(best, now, counts)
    return {"eval_gain": gain} | ({"eval_gain_low": ends[0]} if ends else {})


def best_step(state: TrainerState) -> int | None:
    """Return the step of the best evaluation so far; None before the first.

    One is better than the best before it when its loss is lower by more than `SMALLEST_GAIN` and,
    where the paired differences of the rows give an interval, the gain lies outside of it.
    """
    best: dict[str, float] | None = None
    for entry in evaluations(state):
        if math.isfinite(entry["eval_loss"]) and (best is None or _is_better(entry, best)):
            best = entry
    return int(best["step"]) if best else None


def _is_better(entry: dict[str, float], best: dict[str, float]) -> bool:
    low = entry.get("eval_gain_low")
    clear = low is None or low > 0
    return clear and best["eval_loss"] - entry["eval_loss"] > SMALLEST_GAIN


def is_over(state: TrainerState, settings: TrainSettings) -> bool:
    """Return whether nothing is left to train: all steps are done, or no gain came or can come."""
    return state.global_step >= settings.steps or bool(why_early(state))


def why_early(state: TrainerState) -> str:
    """Return why a run ends before its last step, '' where it goes on."""
    done, best = evaluations(state), best_step(state)
    if best is None:
        return ""
    if len(done) > 1 and _has_converged(done, best):
        return f"next to nothing is left to gain: step {best} has the best loss"
    later = sum(int(entry["step"]) > best for entry in done)
    if later < PATIENCE or len(done) < FEWEST_EVALS:
        return ""
    return f"{PATIENCE} evaluations in a row were not clearly better than step {best}"


def _has_converged(done: list[dict[str, float]], best: int) -> bool:
    """Return whether next to nothing is left to gain.

    That is so where the best loss itself is less than the smallest gain, and where the training
    rows are known by heart and the last evaluation has gained no more than they could still give.
    """
    if any(int(e["step"]) == best and e["eval_loss"] <= SMALLEST_GAIN for e in done):
        return True
    known = done[-1].get("eval_train_loss", math.inf) <= KNOWN_BY_HEART
    return known and done[-1].get("eval_gain", 0.0) <= KNOWN_BY_HEART
