"""Labels with few rows count as much as the others, whatever the micro-batches are."""

import pytest
from tests.support.gangs import without_dropout
from tests.support.tiny_jobs import LABELS, make_base, tiny_job
from tests.unit.training.test_replay import replayed, trained

from ftq_shared.events import EventType
from ftq_worker.job.reports import Trained
from ftq_worker.training.classification import balanced_weights
from ftq_worker.training.end_of_turn import IGNORED

SIZES = {"max_steps": 3, "batch_size": 8, "class_weights": "balanced"}


def test_each_label_that_occurs_has_the_same_sum():
    ids = [0] * 6 + [1] * 3 + [3] + [IGNORED] * 5
    weights = balanced_weights(ids, 5).tolist()
    sums = [weights[label] * ids.count(label) for label in (0, 1, 3)]
    assert sums == pytest.approx([10 / 3] * 3)
    assert all(weight > 0 for weight in weights)


@pytest.mark.parametrize("method", ["full", "lora"])
def test_a_step_is_the_weighed_mean_of_its_rows(tmp_path, method):
    base = without_dropout(make_base(tmp_path / "bert", "bert"))
    how = {"method": method, "lora": {"dropout": 0.0}} | SIZES
    one = trained(tiny_job(tmp_path / "a", base, "classification", train={**how, "micro_batch": 8}))
    cut = trained(tiny_job(tmp_path / "b", base, "classification", train={**how, "micro_batch": 2}))
    losses = [[step["loss"] for step in job.events.of(EventType.STEP)] for job in (one, cut)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    assert Trained.load(one.ctx.paths.train_report).settings["class_weights"] == "balanced"

    from datasets import load_from_disk

    ids = load_from_disk(str(one.ctx.paths.prepared / "train"))["label"]
    weights = balanced_weights(ids, len(LABELS)).tolist()
    assert max(weights) > 1.2 * min(weights), "rows that are balanced would prove nothing"
    rows = replayed(cut, 3).events.of(EventType.REPLAY_ROW)
    mean = sum(weights[LABELS.index(row["label"])] * row["loss"] for row in rows) / len(rows)
    assert mean == pytest.approx(losses[1][2], rel=1e-4)
