"""What the train phase tells, guards and leaves behind."""

import json
import math
import shutil
from dataclasses import replace
from statistics import median

import pytest
import torch
from datasets import load_from_disk
from tests.support.tiny_jobs import EOS, LABELS, TinyJob, make_base, tiny_job
from transformers import AutoModelForCausalLM, AutoTokenizer

from ftq_shared.errors import Refused, TrainingFailed
from ftq_shared.events import EventType
from ftq_shared.sources import Place
from ftq_shared.spec import Task
from ftq_worker.job.context import Devices
from ftq_worker.job.reports import Prepared, Trained, Validated
from ftq_worker.phases import train, verify
from ftq_worker.training import base_model, session
from ftq_worker.training.clock import RunClock


@pytest.fixture(scope="module")
def sft_done(tmp_path_factory, llama) -> TinyJob:
    """A finished job, to look at only."""
    job = tiny_job(tmp_path_factory.mktemp("done"), llama, "sft")
    train.run(job.ctx)
    verify.run(job.ctx)
    return job


def test_every_step_is_one_event(sft_done):
    steps = sft_done.events.of(EventType.STEP)
    assert [s["step"] for s in steps] == list(range(1, 13))
    assert {s["steps"] for s in steps} == {12}
    assert all(math.isfinite(s["loss"]) and s["grad_norm"] > 0 for s in steps)
    assert steps[-1]["epoch"] == 2.0
    assert steps[-1]["eta_s"] == 0 < steps[0]["eta_s"]
    assert all(s["tokens_per_s"] > 0 and s["step_s"] > 0 for s in steps)
    assert steps[-1]["loss"] < steps[0]["loss"]


def test_golden_is_scored_before_and_after_and_validation_between(sft_done):
    told = [(e["set"], e["when"]) for e in sft_done.events.of(EventType.EVAL)]
    assert told == [
        ("golden", "before"),
        *[("validation", "during")] * 3,
        ("golden", "after"),
    ]
    for figures in sft_done.events.of(EventType.EVAL):
        assert figures["loss_low"] <= figures["loss"] <= figures["loss_high"]


def test_report_holds_what_was_used(sft_done):
    report = Trained.load(sft_done.ctx.paths.train_report)
    assert (report.method, report.steps, report.epochs) == ("lora", 12, 2.0)
    assert report.golden_after["loss"] < report.golden_before["loss"]
    assert report.settings["accumulation"] == 2
    assert report.versions["trl"]
    assert report.train_loss == pytest.approx(
        sft_done.events.of(EventType.STEP)[-1]["loss"], rel=1e-6
    )


def test_golden_loss_is_that_of_the_plain_model(sft_done, llama):
    """The fused head, the batching and the padding give what a row by row pass gives."""
    model = AutoModelForCausalLM.from_pretrained(llama).eval()
    total = count = right = 0.0
    for row in load_from_disk(str(sft_done.ctx.paths.prepared / "golden")):
        ids, labels = torch.tensor([row["input_ids"]]), torch.tensor(row["labels"])[1:]
        with torch.no_grad():
            logits = model(ids).logits[0, :-1]
        kept = labels != -100
        total += torch.nn.functional.cross_entropy(
            logits[kept], labels[kept], reduction="sum"
        ).item()
        right += (logits[kept].argmax(1) == labels[kept]).sum().item()
        count += int(kept.sum())
    before = sft_done.events.of(EventType.EVAL)[0]
    assert before["loss"] == pytest.approx(total / count, rel=1e-5)
    assert before["tokens_accuracy"] == pytest.approx(right / count, rel=1e-5)


def test_eos_is_trained_without_a_pad_token(sft_job, llama):
    """This tokenizer has no pad token: padding must not swallow the eos that a row ends with."""
    job = tiny_job(
        sft_job.ctx.paths.storage,
        llama,
        "sft",
        train={"epochs": 4, "learning_rate": 5e-3, "method": "full"},
    )
    train.run(job.ctx)
    tokenizer = AutoTokenizer.from_pretrained(job.ctx.paths.model)
    assert tokenizer.pad_token_id is None  # and nothing was added to it
    model = AutoModelForCausalLM.from_pretrained(job.ctx.paths.model).eval()
    wins = 0
    rows = load_from_disk(str(job.ctx.paths.prepared / "train"))
    for row in rows:
        with torch.no_grad():
            scores = model(torch.tensor([row["input_ids"][:-1]])).logits[0, -1]
        wins += int(scores.argmax() == EOS)
    assert wins > len(rows) / 2


def test_classification_beats_chance_and_names_its_labels(tmp_path, bert):
    label_job = tiny_job(
        tmp_path, bert, "classification", train={"epochs": 6, "learning_rate": 5e-3}
    )
    train.run(label_job.ctx)
    verify.run(label_job.ctx)
    report = Trained.load(label_job.ctx.paths.train_report)
    assert report.method == "full"
    assert report.golden_after["accuracy"] > 0.9 > report.golden_before["accuracy"]
    after = label_job.events.of(EventType.EVAL)[-1]
    assert after["accuracy_low"] < after["accuracy"] <= after["accuracy_high"]
    config = json.loads((label_job.ctx.paths.model / "config.json").read_text())
    assert list(config["id2label"].values()) == LABELS
    assert any("random" in e["line"] for e in label_job.events.of(EventType.LOG))


def test_loss_of_a_step_does_not_grow_with_accumulation(tmp_path, bert):
    """Otherwise transformers adds up micro-batch means: loss and gradient four times too large."""
    seen = []
    for name, micro in (("one", 8), ("four", 2)):
        job = tiny_job(
            tmp_path / name, bert, "classification", train={"micro_batch": micro, "max_steps": 1}
        )
        train.run(job.ctx)
        seen.append(job.events.of(EventType.STEP)[0]["loss"])
    assert seen[0] == pytest.approx(math.log(3), rel=0.1)
    assert seen[1] == pytest.approx(seen[0], rel=0.1)


def test_decoder_classifies_without_a_pad_token(tmp_path, llama):
    job = tiny_job(tmp_path, llama, "classification", train={"method": "lora", "max_steps": 2})
    train.run(job.ctx)
    verify.run(job.ctx)
    assert Trained.load(job.ctx.paths.train_report).golden_after["accuracy"] >= 0


def test_tiny_sets_without_validation_or_golden(tmp_path, llama):
    job = tiny_job(tmp_path, llama, "sft", train={"max_steps": 2})
    for name in ("validation", "golden"):
        shutil.rmtree(job.ctx.paths.prepared / name)
    prepared = Prepared.load(job.ctx.paths.prepared_report)
    prepared.model_copy(update={"rows": {"train": 48}}).save(job.ctx.paths.prepared_report)
    train.run(job.ctx)
    verify.run(job.ctx)
    assert not job.events.of(EventType.EVAL)
    assert Trained.load(job.ctx.paths.train_report).golden_after == {}


class TestModelFolder:
    def test_no_local_path_anywhere(self, sft_done, llama):
        for path in sft_done.ctx.paths.model.rglob("*"):
            data = path.read_bytes()
            for local in (str(llama), str(sft_done.ctx.paths.storage)):
                assert local.encode() not in data, path.name

    def test_adapter_names_its_base_by_hub_id(self, tmp_path, monkeypatch, llama):
        sft_job = tiny_job(tmp_path, llama, "sft", train={"max_steps": 1})
        found = Validated.load(sft_job.ctx.paths.validated)
        hub = found.model.model_copy(
            update={"place": Place.HUB, "name": "org/base", "revision": "c" * 40}
        )
        found.model_copy(update={"model": hub}).save(sft_job.ctx.paths.validated)
        monkeypatch.setattr(train, "fetch_config", lambda *_: llama)
        monkeypatch.setattr(train, "fetch_base", lambda *_: llama)
        train.run(sft_job.ctx)
        config = json.loads((sft_job.ctx.paths.model / "adapter_config.json").read_text())
        assert config["base_model_name_or_path"] == "org/base"
        assert config["revision"] == "c" * 40

    def test_only_what_belongs_to_a_model(self, sft_done):
        assert {p.name for p in sft_done.ctx.paths.model.iterdir()} == {
            "adapter_config.json",
            "adapter_model.safetensors",
            "generation_config.json",
            "tokenizer.json",
            "tokenizer_config.json",
        }
        leftovers = [p.name for p in sft_done.ctx.paths.root.iterdir() if p.name.startswith(".")]
        assert not leftovers

    def test_chat_template_of_the_spec_is_saved(self, tmp_path, llama):
        template = "{% for m in messages %}{{ m.content }}{% endfor %}"
        job = tiny_job(
            tmp_path, llama, "sft", data={"chat_template": template}, train={"max_steps": 1}
        )
        train.run(job.ctx)
        assert AutoTokenizer.from_pretrained(job.ctx.paths.model).chat_template == template


class TestGuards:
    @pytest.mark.parametrize("task", ["sft", "classification"])
    def test_nonfinite_loss_ends_the_run(self, tmp_path, llama, bert, task):
        base = llama if task == "sft" else bert
        train_ = {"learning_rate": 0.9, "method": "full", "on_divergence": "stop"}
        job = tiny_job(tmp_path, base, task, train=train_)

        def poison(type_, data):
            if type_ is EventType.STEP and data["step"] == 3:
                for weight in self.model.parameters():
                    weight.data.fill_(math.nan)

        original = session.build_session

        def remember(*args):
            built = original(*args)
            self.model = built.trainer.model
            return built

        job.events.hook = poison
        train.build_session, before = remember, train.build_session
        try:
            with pytest.raises(TrainingFailed) as caught:
                train.run(job.ctx)
        finally:
            train.build_session = before
        assert caught.value.code == "nonfinite_loss"
        assert "step 4" in caught.value.message
        assert "learning_rate" in caught.value.hint
        last = job.events.of(EventType.STEP)[-1]
        assert last["step"] == 4
        assert last["loss"] is None
        assert "loss" in last["nonfinite"]
        assert job.events.of(EventType.GUARD)[0]["name"] == "nonfinite_loss"
        saved = [c["step"] for c in job.events.of(EventType.CHECKPOINT)]
        assert 4 not in saved  # broken weights are not kept

    def test_early_stopping_keeps_the_best(self, tmp_path, bert):
        job = tiny_job(
            tmp_path,
            bert,
            "classification",
            # A rate at which it breaks what it has learned.
            train={"epochs": 10, "eval_every": 2, "learning_rate": 1e-1},
        )
        train.run(job.ctx)
        report = Trained.load(job.ctx.paths.train_report)
        assert report.steps < 60
        assert report.best_step is not None
        assert report.best_step < report.steps
        assert job.events.of(EventType.GUARD)[0]["name"] == "early_stopping"

    @pytest.mark.parametrize(("gpus", "refused"), [("auto", True), (0, False)])
    def test_a_long_run_on_the_cpu_has_to_be_asked_for(
        self, tmp_path, monkeypatch, llama, gpus, refused
    ):
        # As if a step took two hours, from the fifth measured step on: no real time passes.
        monkeypatch.setattr(RunClock, "step_s", lambda _: 7200.0)
        train_ = {"max_steps": 12 if refused else 6}
        job = tiny_job(tmp_path, llama, "sft", resources={"gpus": gpus}, train=train_)
        if not refused:
            train.run(job.ctx)
            assert not job.events.of(EventType.GUARD)
            return
        with pytest.raises(Refused) as caught:
            train.run(job.ctx)
        assert caught.value.code == "too_slow_on_cpu"
        assert "about 14.0 hours" in caught.value.message
        assert "--gpus 0" in caught.value.hint
        assert [s["step"] for s in job.events.of(EventType.STEP)] == [1, 2, 3, 4, 5]
        assert job.events.of(EventType.GUARD)[0]["name"] == "too_slow_on_cpu"

    def test_no_rows(self, sft_job):
        path = sft_job.ctx.paths.prepared_report
        report = Prepared.load(path)
        report.model_copy(update={"rows": report.rows | {"train": 0}}).save(path)
        with pytest.raises(TrainingFailed) as caught:
            train.run(sft_job.ctx)
        assert caught.value.code == "no_rows"

    def test_preference_is_refused_for_now(self, sft_job):
        found = Validated.load(sft_job.ctx.paths.validated)
        found.model_copy(update={"task": Task.PREFERENCE}).save(sft_job.ctx.paths.validated)
        with pytest.raises(Refused) as caught:
            train.run(sft_job.ctx)
        assert caught.value.code == "task_unsupported"

    def test_missing_base_folder(self, sft_job, tmp_path):
        found = Validated.load(sft_job.ctx.paths.validated)
        gone = found.model.model_copy(update={"name": str(tmp_path / "gone")})
        found.model_copy(update={"model": gone}).save(sft_job.ctx.paths.validated)
        with pytest.raises(Refused) as caught:
            train.run(sft_job.ctx)
        assert caught.value.code == "model_missing"


class TestTrainerArgs:
    def test_all_wrong_names_at_once(self, tmp_path, llama):
        job = tiny_job(
            tmp_path,
            llama,
            "sft",
            train={"args": {"weight_decai": 0.1, "save_steps": 5, "weight_decay": 0.1}},
        )
        with pytest.raises(Refused) as caught:
            train.run(job.ctx)
        assert "weight_decai" in caught.value.message
        assert "nearest: weight_decay" in caught.value.message
        assert "save_steps: ftq sets it; here it is train.save_every" in caught.value.message

    def test_own_field_is_passed_on(self, tmp_path, llama):
        args = {"lr_scheduler_type": "constant"}
        job = tiny_job(tmp_path, llama, "sft", train={"args": args, "max_steps": 3})
        train.run(job.ctx)
        assert {s["lr"] for s in job.events.of(EventType.STEP)[1:]} == {1e-3}


def test_second_rank_says_nothing(sft_job):
    ctx = session.one_voice(replace(sft_job.ctx, devices=Devices(gpus=("a", "b"), rank=1)))
    ctx.emit(EventType.LOG, line="x")
    assert not sft_job.events.seen


def test_clock_counts_evaluations_saves_and_pauses_apart():
    now = [0.0]
    clock = RunClock(lambda: now[0])

    def later(seconds: float) -> None:
        now[0] += seconds

    clock.start()
    for _ in range(5):
        later(2.0)
        clock.step(100)
    later(30.0)
    assert clock.evaluated() == 30.0
    later(7.0)
    assert clock.saved() == 7.0
    later(60.0)
    clock.skip(60.0)  # paused
    later(2.0)
    assert clock.step(100) == 2.0
    assert clock.step_s() == median([2.0] * 6)
    assert clock.tokens_per_s() == 50.0
    assert clock.eta_s(steps_left=10, evals_left=2, saves_left=1) == 20 + 60 + 7


def test_random_head_is_the_same_every_time(tmp_path):
    base = make_base(tmp_path, "bert")
    one, two = (base_model.load_base(base, Task.CLASSIFICATION, LABELS) for _ in range(2))
    assert one.classifier.weight.equal(two.classifier.weight)


def test_same_events_whatever_they_are_sent_with(sft_done: TinyJob):
    """Recorder runs make_body, so every field above is documented; this holds the types."""
    assert {t for t, _ in sft_done.events.seen} == {
        EventType.RESOLVED,
        EventType.PROGRESS,
        EventType.EVAL,
        EventType.STEP,
        EventType.CHECKPOINT,
        EventType.VERIFICATION,
    }
