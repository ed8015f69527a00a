"""Rows left out by name: all others keep their step, and it is told wherever a job is told of."""

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from tests.support.tiny_jobs import TinyJob, make_rows, tiny_job
from tests.unit.training.test_divergence import large_numbers
from tests.unit.training.test_replay import replayed, result, rows_of_step, steps
from tests.unit.training.test_resume import assert_equal_weights, run_until
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from ftq_shared.errors import Refused, TrainingFailed
from ftq_shared.events import EventType
from ftq_shared.row_refs import RowRef, dump_refs, load_refs
from ftq_worker.agent.inputs import write_without_rows
from ftq_worker.job.reports import Trained
from ftq_worker.phases import train
from ftq_worker.training import checkpoints
from ftq_worker.training.left_out import without
from ftq_worker.training.trainers import FtqParts

SIZES = {"epochs": 2, "batch_size": 8, "micro_batch": 4, "eval_every": 100, "save_every": 3}


@pytest.fixture
def make(tmp_path, llama, bert) -> Callable[..., TinyJob]:
    def build(name: str = "job", task: str = "sft", **spec: Any) -> TinyJob:
        base = llama if task == "sft" else bert
        sizes = SIZES | {"method": "full"} | spec
        return tiny_job(tmp_path / name, base, task, train=sizes)

    return build


def ref(position: int) -> RowRef:
    """Return how a row of a tiny job is named."""
    return RowRef(f"part-{position % 2}.jsonl", 3 * position)


def leave_out(job: TinyJob, positions: list[int], *others: RowRef, asked: bool = True) -> None:
    """Do what an agent does for `ftq retry --without-rows`."""
    write_without_rows(job.ctx.paths, [*map(ref, positions), *others], asked=asked)


def warnings(job: TinyJob) -> list[str]:
    return [data["message"] for data in job.events.of(EventType.WARNING)]


def test_refs_are_written_once_for_each_file():
    refs = [RowRef("b.csv", 4), RowRef("a b.jsonl", 2), RowRef("b.csv", 1), RowRef("b.csv", 4)]
    text = dump_refs(refs)
    assert text == '{"a b.jsonl":[2],"b.csv":[1,4]}'
    assert load_refs(text) == tuple(sorted(set(refs)))
    for bad in ("[]", '{"a":1}', '{"a":[-1]}', '{"a":[true]}', '{"a":["1"]}'):
        with pytest.raises(ValueError, match=r"row|table|list"):
            load_refs(bad)


@pytest.mark.parametrize("task", ["sft", "classification"])
def test_other_rows_stay_in_place(task):
    rows = make_rows(task, 20, seed=4)
    less = without(rows, frozenset({3, 17}))
    assert less.column_names == rows.column_names
    assert list(less["length"]) == list(rows["length"])  # what the order is made of
    for at in range(20):
        if at not in (3, 17):
            assert less[at] == rows[at]
    field = "labels" if task == "sft" else "label"
    assert less[3] == rows[3] | {"input_ids": rows[3]["input_ids"][:1]} | {
        field: [-100] if task == "sft" else -100
    }


class ByHand:
    """A tiny job's model, trained without a trainer: AdamW on rows, one at a time."""

    def __init__(self, job: TinyJob, checkpoint: Path) -> None:
        self.rows = Dataset.load_from_disk(str(job.ctx.paths.prepared / "train"))
        kind = AutoModelForSequenceClassification if "label" in self.rows.features else None
        self.model = (kind or AutoModelForCausalLM).from_pretrained(checkpoint)
        self.model.train()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), weight_decay=0.0)
        # The trainer keeps weights in two groups: those that decay (here by 0) come first.
        named = dict(self.model.named_parameters())
        plain = [n for n in named if "bias" in n or "norm" in n.lower()]
        order = [n for n in named if n not in plain] + plain
        saved = torch.load(checkpoint / "optimizer.pt", weights_only=False)
        for number, state in saved["state"].items():
            self.optimizer.state[named[order[number]]] = state

    def step(self, rows: list[int], rate: float) -> float:
        """Train one step; return the mean of the loss, over tokens or rows."""
        self.optimizer.zero_grad()
        losses, counts = zip(*(self._row(self.rows[row]) for row in rows), strict=True)
        loss = sum(losses) / sum(counts)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        return float(loss.detach())

    def _row(self, row: dict[str, Any]) -> tuple[torch.Tensor, int]:
        logits = self.model(input_ids=torch.tensor([row["input_ids"]])).logits[0]
        if "label" in row:
            return cross_entropy(logits, torch.tensor(row["label"])), 1
        wanted = torch.tensor(row["labels"][1:])
        return cross_entropy(logits[:-1], wanted, reduction="sum"), int((wanted != -100).sum())


def without_dropout(base: Path, folder: Path) -> Path:
    """Copy a base model, so that a run by hand needs no random numbers."""
    shutil.copytree(base, folder)
    config = json.loads((folder / "config.json").read_text())
    still = {name: 0.0 for name in config if "dropout" in name}
    (folder / "config.json").write_text(json.dumps(config | still))
    return folder


@pytest.mark.parametrize("task", ["sft", "classification"])
def test_steps_without_rows_are_those_of_a_run_by_hand(tmp_path, llama, bert, task):
    """From the checkpoint, rows alone and one by one: each weighs what it should."""
    base = without_dropout(llama if task == "sft" else bert, tmp_path / "calm")
    one_rate = {"method": "full", "layerwise_lr_decay": 1}
    job = tiny_job(tmp_path, base, task, train=SIZES | one_rate)
    run_until(job, 5)
    # One pass of a step has lost all of its rows, another two of four.
    gone = [*rows_of_step(task, 7)[:4], *rows_of_step(task, 8)[2:4]]
    leave_out(job, gone)
    begun = next(c for c in checkpoints.candidates(job.ctx.paths) if c.step == 6)
    by_hand = ByHand(job, begun.path)
    last = job.again()
    train.run(last.ctx)
    for step, left in ((7, 4), (8, 6), (9, 8), (10, 8)):
        rows = [row for row in rows_of_step(task, step) if row not in gone]
        told = steps(last)[step]
        assert len(rows) == left
        assert told["loss"] == pytest.approx(by_hand.step(rows, told["lr"]), rel=1e-5), step


@pytest.mark.parametrize("task", [pytest.param("sft", marks=pytest.mark.chaos), "classification"])
def test_rows_that_are_not_met_change_nothing(make, task):
    """Left out are rows of the first pass that is done: the second pass meets them last."""
    gone = rows_of_step(task, 12)[:2]
    job, other = make("job", task), make("other", task)
    for it in (job, other):
        run_until(it, 7)
    leave_out(job, gone)
    last, plain = job.again(), other.again()
    train.run(last.ctx)
    train.run(plain.ctx)
    early = range(9, 12)
    assert [steps(last)[s]["loss"] for s in early] == [steps(plain)[s]["loss"] for s in early]
    assert steps(last)[12]["loss"] != steps(plain)[12]["loss"]
    assert Trained.load(last.ctx.paths.train_report).left_out == [
        {"file": r.file, "row": r.row, "from_step": 9} for r in sorted(map(ref, gone))
    ]


def test_left_out_in_any_attempt_is_exact(make):
    """Interrupted once more, it ends as one that was not; and each step can be replayed."""
    gone = [*rows_of_step("sft", 8)[:5], *rows_of_step("sft", 10)]
    ends = []
    for name, stops in (("one", []), ("other", [8])):
        job = make(name)
        run_until(job, 4)
        job.write_events()
        leave_out(job, gone)
        for stop in stops:
            job = job.again()
            run_until(job, stop)
            job.write_events()
        last = job.again()
        train.run(last.ctx)
        last.write_events()
        ends.append(last)
    assert_equal_weights(*ends)
    (said,) = [m for m in warnings(ends[0]) if "left out" in m]
    assert said.startswith("left out of training from step 6 on, as asked: 13 rows: part-0.jsonl")
    for step, rows in ((2, 8), (8, 3), (9, 8)):
        told = result(replayed(ends[1], step))
        assert (told["equal"], told["rows"]) == (True, rows)


@pytest.mark.parametrize("task", [pytest.param("sft", marks=pytest.mark.chaos), "classification"])
def test_a_step_without_any_row_changes_no_weight(make, task):
    job = make(task=task, save_every=1)
    run_until(job, 6)
    leave_out(job, rows_of_step(task, 9))
    last = job.again()
    run_until(last, 8)
    last.write_events()
    assert steps(last)[9] == steps(last)[9] | {"loss": None}
    assert "grad_norm" not in steps(last)[9]
    before, after = (
        torch.load(c.path / "optimizer.pt", weights_only=False)["state"]
        for c in sorted(checkpoints.candidates(job.ctx.paths), key=lambda c: c.step)[-2:]
    )
    assert all(after[n]["exp_avg"].equal(before[n]["exp_avg"]) for n in before)
    # The schedule goes on, and so does the training.
    done = last.again()
    train.run(done.ctx)
    assert [s for s in steps(done) if steps(done)[s]["loss"] is None] == []
    told = result(replayed(done, 9))
    assert (told["equal"], told["rows"], told["loss"]) == (True, 0, None)


def test_of_a_divergence_it_goes_back_before(make, monkeypatch):
    """A row that breaks the weights: found by replaying, left out, trained to the end."""
    bad = rows_of_step("sft", 22)[3]
    poison = make_rows("sft", 48, seed=1)[bad]["input_ids"]

    def training_step(self: Any, model: Any, inputs: Any, *args: Any, **options: Any) -> Any:
        lines = inputs["input_ids"].tolist()
        met = any(line[: len(poison)] == poison for line in lines)
        if met and self.state.global_step >= 20:
            torch.manual_seed(5)
            for weight in model.parameters():
                large_numbers(weight.data)
        return super(FtqParts, self).training_step(model, inputs, *args, **options)

    monkeypatch.setattr(FtqParts, "training_step", training_step, raising=False)
    job = make(epochs=5, on_divergence="stop", save_every=4)
    with pytest.raises(TrainingFailed) as caught:
        train.run(job.ctx)
    assert caught.value.code == "diverged"
    onset = caught.value.where["step"] - 4
    assert f"`ftq replay JOB --step {onset}`" in caught.value.hint
    job.write_events()
    assert max(c.step for c in checkpoints.candidates(job.ctx.paths)) >= onset
    leave_out(job, [bad])
    last = job.again()
    train.run(last.ctx)
    (resumed,) = last.events.of(EventType.RESUMED)
    assert resumed["step"] < onset
    assert any("had diverged at step" in d["line"] for d in last.events.of(EventType.LOG))
    assert all(math.isfinite(d["loss"]) for d in last.events.of(EventType.STEP))
    assert max(steps(last)) == 30


def test_a_fresh_start_leaves_them_out_as_well(make):
    job = make()
    run_until(job, 5)
    leave_out(job, [1, 2])
    run_until(job.again(), 7)
    fresh = replace(job.again(), ctx=replace(job.again(token_number=4).ctx, fresh_after=3))
    train.run(fresh.ctx)
    left_out = Trained.load(job.ctx.paths.train_report).left_out
    assert [row["from_step"] for row in left_out] == [1, 1]


def test_what_is_in_no_training_set_is_told(make):
    job = make()
    leave_out(job, [4], RowRef("part-0.jsonl", 1), RowRef("other.jsonl", 12))
    run_until(job, 2)
    missing, said = warnings(job)
    assert missing == (
        "2 of the rows to be left out are in no training step: other.jsonl row 12,"
        " part-0.jsonl row 1"
    )
    assert "1 row:" in said


class TestRefused:
    def code(self, job: TinyJob) -> str:
        with pytest.raises(Refused) as caught:
            train.run(job.ctx)
        assert caught.value.hint
        return caught.value.code

    def test_all_rows(self, make):
        job = make()
        leave_out(job, list(range(48)))
        assert self.code(job) == "all_rows_left_out"

    def test_no_row_of_the_training_set(self, make):
        job = make()
        leave_out(job, [], RowRef("part-0.jsonl", 1))
        assert self.code(job) == "rows_not_trained"

    def test_rows_without_names(self, make):
        job = make()
        job.ctx.paths.row_sources.unlink()
        leave_out(job, [1])
        assert self.code(job) == "rows_unnamed"

    def test_no_step_is_left(self, make):
        job = make(epochs=1)
        train.run(job.ctx)
        leave_out(job, [1])
        assert self.code(job.again()) == "trained_already"
        job.ctx.paths.train_report.unlink()  # saved, and cut off before the model was
        assert self.code(job.again()) == "trained_already"

    def test_a_retry_that_names_none_goes_on(self, make):
        job = make(epochs=1)
        train.run(job.ctx)
        for gone in ([1], list(range(48))):
            leave_out(job, gone, asked=False)
            again = job.again()
            train.run(again.ctx)
            (told,) = warnings(again)
            assert told.startswith("an earlier retry named rows to be left out, which are not: ")
