"""The golden set in training: which of its rows are scored, and what verification compares with."""

from collections.abc import Sequence

import numpy as np
from datasets import Dataset

from ftq_shared.events import EventType
from ftq_worker.job.context import PhaseContext
from ftq_worker.job.prepared_sets import PreparedSets
from ftq_worker.job.reports import GoldenScores, RowFigures
from ftq_worker.training.checkpoints import RunFigures, data_id
from ftq_worker.training.scoring import RowScore, rounded, scoring_progress
from ftq_worker.training.session import Session
from ftq_worker.training.settings import TrainSettings

# Tokens that training sees for each golden token that is scored. Scoring is the forward pass alone,
# done before and after: at most a twentieth of the training's time, about a tenth where a run ends
# at a third of its steps because it got no better.
TRAINED_PER_SCORED = 20
FEWEST = 50  # of these it may be more: a verdict needs 30 at least
PROBED = 32  # rows that are scored in memory as well, for the saved model to be compared with


def rows_to_score(
    ctx: PhaseContext, golden: Dataset, train: Dataset, settings: TrainSettings
) -> list[int]:
    """Return the golden rows that are scored before and after: all that the training is worth.

    Never fewer than `FEWEST`, and all where `data.golden.size` asks for a number.
    """
    every = len(golden)
    trained = sum(train["length"]) * settings.steps / settings.steps_per_epoch  # tokens
    worth = int(trained / TRAINED_PER_SCORED / (sum(golden["length"]) / every))
    rows = max(FEWEST, worth)
    if rows >= every or ctx.spec.data.golden.size != "auto":
        return list(range(every))
    ctx.emit(
        EventType.LOG,
        line=f"{rows} of the {every} golden rows are scored: more would take longer than a tenth of"
        f" the training; with data.golden.size {every} all are",
    )
    chosen = np.random.default_rng(settings.seed).choice(every, rows, replace=False)
    return sorted(chosen.tolist())


def score_before(ctx: PhaseContext, session: Session, sets: PreparedSets) -> None:
    """Score the base model on the golden rows, emit the figures and note them in the session."""
    figures: dict[str, float] = {}
    scores: list[RowScore] = []
    known = session.known
    known["golden_rows"] = []
    if sets.golden is not None:
        known["golden_rows"] = rows_to_score(ctx, sets.golden, sets.train, session.settings)
        rows = sets.golden.select(known["golden_rows"])
        on_rows = scoring_progress(
            ctx.emit, ctx.control, "score the golden rows before training", len(rows)
        )
        figures = rounded(session.trainer.score(rows, on_rows, scores.extend))
        ctx.emit(EventType.EVAL, set="golden", when="before", step=0, **figures)
    known["golden_before"], known["golden_scores"] = figures, figures_of(scores)


def golden_of(known: RunFigures) -> RunFigures:
    """Return what was scored before training, without what training has measured since."""
    return {
        "golden_before": known["golden_before"],
        "golden_rows": known["golden_rows"],
        "golden_scores": known["golden_scores"],
    }


def note_scores(ctx: PhaseContext, session: Session, golden: Dataset | None) -> GoldenScores:
    """Return what verification needs: the base model's scores, and some of the trained one's."""
    rows = session.known["golden_rows"]
    scores: list[RowScore] = []
    if golden is not None:
        probe = golden.select(rows[:PROBED])
        session.trainer.score(probe, lambda count: None, scores.extend)
    return GoldenScores(
        token_number=ctx.token_number,
        data=data_id(ctx.paths),
        rows=rows,
        before=session.known["golden_scores"],
        probe=figures_of(scores),
    )


def figures_of(scores: Sequence[RowScore]) -> list[RowFigures]:
    """Return scores as they are stored; eight digits are more than a float32 has."""
    return [(float(f"{one.loss:.8g}"), one.count, one.right) for one in scores]
