"""Layers that are computed twice: as many as were asked for, and nothing else is different."""

import pytest
import transformers.modeling_utils as loading
from tests.support.tiny_jobs import tiny_job

from ftq_shared.events import EventType
from ftq_worker.job.reports import Trained
from ftq_worker.phases import train


def steps(tmp_path, base, task, every, method="lora"):
    job = tiny_job(
        tmp_path / str(every),
        base,
        task,
        train={"gradient_checkpointing": every, "max_steps": 2, "method": method},
    )
    train.run(job.ctx)
    told = [(e["loss"], e["grad_norm"]) for e in job.events.of(EventType.STEP)]
    return told, Trained.load(job.ctx.paths.train_report).settings["gradient_checkpointing"]


@pytest.fixture
def twice(monkeypatch):
    """The layers that were checkpointed, one entry for each pass over each."""
    seen = []
    plain = loading.checkpoint

    def noted(function, *args, **options):
        seen.append(function)
        return plain(function, *args, **options)

    monkeypatch.setattr(loading, "checkpoint", noted)
    return seen


@pytest.mark.parametrize(("every", "layers"), [("none", 0), (2, 1), ("all", 2)])
@pytest.mark.parametrize("method", ["lora", "full"])
def test_it_changes_no_number(tmp_path, llama, twice, every, layers, method):
    plain, _ = steps(tmp_path / "plain", llama, "sft", "auto", method)
    assert not twice  # memory is not short on a CPU
    assert steps(tmp_path, llama, "sft", every, method) == (plain, every)
    assert len(twice) == layers * 2 * 2  # two steps of two passes


def test_a_classifier_is_checkpointed_as_well(tmp_path, bert, twice):
    plain, said = steps(tmp_path, bert, "classification", "auto", "full")
    assert said == "none"
    again, _ = steps(tmp_path, bert, "classification", "all", "full")
    assert again == plain
    assert twice
