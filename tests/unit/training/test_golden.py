"""The golden rows: how many are scored, and what training notes of them for verification."""

import pytest
from tests.support.tiny_jobs import TinyJob, tiny_job

from ftq_shared.events import EventType
from ftq_worker.job.prepared_sets import load_sets
from ftq_worker.job.reports import GoldenScores, Prepared, Trained, Validated
from ftq_worker.phases import train, verify
from ftq_worker.training import golden
from ftq_worker.training.attention import HostAttention, ModelAttention
from ftq_worker.training.facts import DeviceFacts, run_facts
from ftq_worker.training.resolve import resolve_settings


@pytest.fixture
def few(monkeypatch):
    """Six rows are enough for a verdict here: training sets in tests are small."""
    monkeypatch.setattr(golden, "FEWEST", 6)


def scored(job: TinyJob, task, model) -> list[int]:
    prepared = Prepared.load(job.ctx.paths.prepared_report)
    facts = run_facts(
        task, model, prepared, DeviceFacts("cpu", "CPU"), ModelAttention(), HostAttention()
    )
    sets = load_sets(job.ctx.paths, prepared)
    settings = resolve_settings(job.ctx, facts)
    return golden.rows_to_score(job.ctx, sets.golden, sets.train, settings)


@pytest.mark.parametrize(
    ("spec", "rows"),
    [
        ({"train": {"epochs": 2}}, 6),  # 96 rows trained on: not worth more
        ({"train": {"epochs": 8}}, 19),  # a twentieth of 384
        ({"train": {"epochs": 40}}, 32),
        ({"train": {"epochs": 2}, "data": {"golden": {"size": 32}}}, 32),  # asked for
    ],
)
def test_scoring_is_in_proportion_to_training(few, tmp_path, bert, spec, rows):
    job = tiny_job(tmp_path, bert, "classification", **spec)
    validated = Validated.load(job.ctx.paths.validated)
    found = scored(job, validated.task, validated.model)
    assert len(found) == pytest.approx(rows, abs=2)
    assert found == sorted(set(found))
    assert bool(job.events.of(EventType.LOG)) is (rows < 32)


def test_the_same_rows_are_scored_before_and_after(few, tmp_path, llama):
    job = tiny_job(tmp_path, llama, "sft")
    train.run(job.ctx)
    verify.run(job.ctx)
    notes = GoldenScores.load(job.ctx.paths.golden_scores)
    assert 6 <= len(notes.rows) == len(notes.before) == len(notes.probe) < 32
    told = [e for e in job.events.of(EventType.EVAL) if e["set"] == "golden"]
    assert [e["rows"] for e in told] == [len(notes.rows)] * 2
    assert "golden rows are scored" in job.events.of(EventType.LOG)[0]["line"]
    found = job.events.of(EventType.VERIFICATION)[0]
    assert found["ok"]
    assert f"its loss on {len(notes.rows)} rows is what training measured" in found["message"]
    after = Trained.load(job.ctx.paths.train_report).golden_after
    assert found["after"] == pytest.approx(after["loss"], rel=1e-5)


def test_the_probe_is_part_of_what_is_scored(tmp_path, llama, monkeypatch):
    monkeypatch.setattr(golden, "PROBED", 9)
    job = tiny_job(tmp_path, llama, "sft")
    train.run(job.ctx)
    verify.run(job.ctx)
    assert len(GoldenScores.load(job.ctx.paths.golden_scores).probe) == 9
    found = job.events.of(EventType.VERIFICATION)[0]
    assert found["before"] == pytest.approx(found["after"], rel=1e-5)


def test_interrupted_in_verification_it_does_not_train_again(tmp_path, llama, monkeypatch):
    job = tiny_job(tmp_path, llama, "sft", train={"max_steps": 3})
    train.run(job.ctx)
    again = job.again()
    train.run(again.ctx)
    assert not again.events.of(EventType.STEP)
    assert not again.events.of(EventType.EVAL)
    verify.run(again.ctx)
    assert job.ctx.paths.verified.exists()


@pytest.mark.parametrize("why", ["afresh", "other data", "damaged"])
def test_a_training_that_does_not_count_is_done_again(tmp_path, llama, why):
    job = tiny_job(tmp_path, llama, "sft", train={"max_steps": 3})
    train.run(job.ctx)
    verify.run(job.ctx)
    again = job.again(fresh_after=job.ctx.token_number if why == "afresh" else 0)
    if why == "other data":
        report = Prepared.load(job.ctx.paths.prepared_report)
        report.model_copy(update={"golden_source": "another"}).save(job.ctx.paths.prepared_report)
    if why == "damaged":
        job.ctx.paths.golden_scores.write_text("{")
    train.run(again.ctx)
    steps = [step["step"] for step in again.events.of(EventType.STEP)]
    assert steps == ([] if why == "damaged" else [1, 2, 3])  # its checkpoint is whole
    assert not job.ctx.paths.verified.exists()
    verify.run(again.ctx)
