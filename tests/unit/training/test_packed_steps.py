"""Packed training: a step has exactly the examples it would have without packing."""

import json
import random
from dataclasses import replace
from itertools import chain, groupby

import pytest
import torch
from accelerate.data_loader import BatchSamplerShard
from datasets import load_from_disk
from safetensors.torch import load_file
from tests.support.data_jobs import make_context, make_spec, write_jsonl
from tests.support.tiny_jobs import tiny_job
from tests.support.zoo import make_model
from transformers import AutoModelForCausalLM

from ftq_shared.errors import Refused
from ftq_shared.events import EventType
from ftq_worker.host.data_roots import DataRoots
from ftq_worker.job.context import Interrupted, StopReason
from ftq_worker.job.reports import Trained
from ftq_worker.phases import train, validate
from ftq_worker.training.packed_steps import PackedOrder, packed_order, with_packing
from ftq_worker.training.trainer_args import EXAMPLE


def settings(batch=16, micro=16, world=1, longest=512, rows=500, epochs=2):
    per_epoch = -(-rows // batch)
    return replace(
        EXAMPLE,
        packing=True,
        batch_size=batch,
        micro_batch=micro,
        world_size=world,
        max_length=longest,
        steps=per_epoch * epochs,
        steps_per_epoch=per_epoch,
        seed=3,
    )


def some_lengths(rows=500, longest=512, seed=0):
    pick = random.Random(seed)
    return [longest] + [min(longest, 1 + int(pick.expovariate(1 / 90))) for _ in range(rows - 1)]


CASES = [
    pytest.param(16, 16, 1, 500, id="one_sequence_holds_a_step"),
    pytest.param(16, 1, 1, 500, id="a_row_of_full_length_at_a_time"),
    pytest.param(16, 2, 2, 500, id="two_ranks"),
    pytest.param(12, 1, 4, 499, id="four_ranks_and_a_short_end"),
    pytest.param(8, 2, 4, 3, id="fewer_rows_than_ranks"),
]


@pytest.mark.parametrize(("batch", "micro", "world", "rows"), CASES)
def test_every_step_has_batch_size_examples(batch, micro, world, rows):
    lengths = some_lengths(rows)
    made = with_packing(settings(batch, micro, world, rows=rows), lengths)
    assert made.accumulation <= batch // (micro * world) or made.accumulation == 1
    for epoch in range(2):
        steps = packed_order(lengths, made, epoch)
        assert len(steps) == made.steps_per_epoch
        seen = [row for step in steps for sequence in step for row in sequence]
        assert set(seen) == set(range(rows))  # every row, once but for what fills up the ranks
        assert len(seen) - rows < world
        for step in steps[:-1]:
            assert sum(map(len, step)) == batch
            assert len(step) == made.accumulation * world
        for step in steps:
            tokens = [sum(lengths[row] for row in sequence) for sequence in step]
            assert min(tokens) > 0
            assert max(tokens) <= made.sequence_tokens == micro * 512
        most = [sum(lengths[r] for s in step for r in s) for step in steps[:-1]]
        assert not most or most[0] == max(most)  # running out of memory shows there


def test_fewer_passes_would_not_hold_every_step():
    lengths = some_lengths()
    made = with_packing(settings(micro=4), lengths)
    assert 1 < made.accumulation <= 4
    fewer = replace(made, accumulation=made.accumulation - 1)
    assert any(
        sum(lengths[row] for row in sequence) > made.sequence_tokens
        for epoch in range(2)
        for step in packed_order(lengths, fewer, epoch)
        for sequence in step
    )


def test_which_rows_a_step_has_does_not_depend_on_its_sequences():
    """Where memory has run out, or on other ranks, a step's examples stand in more sequences."""
    lengths, few = some_lengths(400), settings(rows=400)

    def rows_of_steps(accumulation, epoch):
        made = replace(few, accumulation=accumulation)
        packed = packed_order(lengths, made, epoch)
        return [sorted(chain.from_iterable(step)) for step in packed]

    for epoch in range(9):
        assert rows_of_steps(2, epoch) == rows_of_steps(5, epoch)


def test_sequences_are_of_like_length_and_of_the_seed_and_epoch_alone():
    lengths = some_lengths()
    made = with_packing(settings(micro=4), lengths)
    steps = packed_order(lengths, made, 1)
    assert steps == packed_order(lengths, made, 1) != packed_order(lengths, made, 0)
    assert steps != packed_order(lengths, replace(made, seed=4), 1)
    uneven = [
        max(t) / min(t)
        for step in steps
        for t in [[sum(map(lengths.__getitem__, s)) for s in step]]
    ]
    assert sorted(uneven)[len(uneven) // 2] < 1.5


@pytest.mark.parametrize("rows", [500, 497, 3])
def test_ranks_share_each_step(rows):
    """accelerate gives the sequences out in turn; no rank gets one more."""
    lengths = some_lengths(rows)
    made = with_packing(settings(16, 2, 2, rows=rows), lengths)
    order = PackedOrder(lengths, made)
    shares = [list(BatchSamplerShard(order, 2, rank)) for rank in range(2)]
    assert len(order) == len(list(order)) == sum(map(len, shares))
    assert len(shares[0]) == len(shares[1]) == len(BatchSamplerShard(order, 2, 0))
    whole = rows // 16
    for step in range(whole):
        part = slice(step * made.accumulation, (step + 1) * made.accumulation)
        assert sum(len(s) for share in shares for s in share[part]) == 16


@pytest.fixture(scope="module")
def plain_llama(tmp_path_factory):
    """Without dropout, so that a step's loss can be worked out by hand."""
    return make_model(tmp_path_factory.mktemp("plain") / "llama", "llama")


def loss_by_rows(base, rows):
    model = AutoModelForCausalLM.from_pretrained(base).eval()
    total = count = 0.0
    for row in rows:
        ids, labels = torch.tensor([row["input_ids"]]), torch.tensor(row["labels"])[1:]
        with torch.no_grad():
            logits = model(ids).logits[0, :-1]
        kept = labels != -100
        total += torch.nn.functional.cross_entropy(logits[kept], labels[kept], reduction="sum")
        count += kept.sum()
    return float(total / count)


@pytest.mark.parametrize("attention", ["varlen", "sdpa", "eager"])
def test_a_packed_step_computes_what_its_rows_alone_do(tmp_path, plain_llama, attention):
    sizes = {"batch_size": 16, "micro_batch": 2, "epochs": 1, "method": "full"}
    job = tiny_job(
        tmp_path, plain_llama, "sft", train=sizes | {"packing": True, "attention": attention}
    )
    train.run(job.ctx)
    report = Trained.load(job.ctx.paths.train_report)
    told = report.settings
    rows = load_from_disk(str(job.ctx.paths.prepared / "train"))
    assert told["sequence_tokens"] == 2 * told["max_length"]
    assert (told["batch_size"], told["packing"], told["attention"]) == (16, True, attention)
    assert told["sequences_per_step"] == told["accumulation"] < 8
    assert "micro_batch" not in told
    assert report.steps == 3  # 48 rows: as without packing
    made = replace(EXAMPLE, batch_size=16, accumulation=told["accumulation"], seed=told["seed"])
    (first, *_) = packed_order(rows["length"], made, 0)
    wanted = loss_by_rows(plain_llama, [rows[row] for sequence in first for row in sequence])
    step = job.events.of(EventType.STEP)[0]
    assert step["loss"] == pytest.approx(wanted, rel=1e-5)


def test_an_interrupted_packed_run_ends_with_the_same_weights(tmp_path, llama):
    """Dropout is on in the model and in LoRA: the random numbers go on as well."""
    sizes = {"epochs": 2, "batch_size": 8, "micro_batch": 2, "packing": True}
    whole = tiny_job(tmp_path / "whole", llama, "sft", train=sizes)
    train.run(whole.ctx)
    broken = tiny_job(tmp_path / "broken", llama, "sft", train=sizes)

    def stop(type_, data):
        if type_ is EventType.STEP and data["step"] == 7:
            broken.ctx.control.stop(StopReason.DRAIN)

    broken.events.hook = stop
    with pytest.raises(Interrupted):
        train.run(broken.ctx)
    last = broken.again()
    train.run(last.ctx)
    one, other = (
        load_file(next(job.ctx.paths.model.glob("*.safetensors"))) for job in (whole, last)
    )
    assert all(one[name].equal(other[name]) for name in one)
    steps = broken.events.of(EventType.STEP) + last.events.of(EventType.STEP)
    assert [key for key, _ in groupby(s["step"] for s in steps)] == list(range(1, 13))


def test_a_model_that_mixes_documents_is_not_packed(tmp_path, monkeypatch):
    """OPT makes its masks without looking at positions."""
    base = make_model(tmp_path / "opt", "opt")
    asked = {"packing": True, "attention": "sdpa", "max_steps": 2}
    job = tiny_job(tmp_path / "asked", base, "sft", train=asked)
    with pytest.raises(Refused) as caught:
        train.run(job.ctx)
    assert caught.value.code == "packing_not_supported"
    assert "with sdpa, the logits of a packed row are off by" in caught.value.message
    assert caught.value.hint.startswith("--set train.packing=false")

    job = tiny_job(tmp_path / "auto", base, "sft", train=asked | {"packing": "auto"})
    monkeypatch.setattr("ftq_worker.training.auto_rules.packing", lambda *_: _packed())
    train.run(job.ctx)
    told = [e for e in job.events.of(EventType.RESOLVED) if e["field"] == "train.packing"]
    assert [e["value"] for e in told] == [True, False]
    assert json.loads(job.ctx.paths.train_report.read_text())["settings"]["packing"] is False


def _packed():
    from ftq_worker.job.auto import Resolved

    return Resolved(True, "for the test")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("name", "task", "why"),
    [
        ("lfm2", "sft", "lfm2 has layers of conv, which run on from document to document"),
        ("mamba", "sft", "mamba has "),
        ("llama", "classification", "a classifier gives one label for a sequence"),
    ],
)
def test_validate_refuses_what_cannot_be_packed(tmp_path, name, task, why):
    base = make_model(tmp_path / name, name)
    rows = [{"text": f"w{i}", "label": "ab"[i % 2]} for i in range(30)]
    if task == "sft":
        rows = [{"question": f"w{i} w1", "answer": f"w{i}"} for i in range(30)]
    spec = make_spec(
        model=f"worker:{base}",
        dataset=f"worker:{write_jsonl(tmp_path / 'rows.jsonl', rows)}",
        task=task,
        train={"packing": True},
    )
    ctx = make_context(tmp_path / "job", spec, data_roots=DataRoots(open=("/",)))
    with pytest.raises(Refused) as caught:
        validate.run(ctx)
    assert caught.value.code == "packing_not_supported"
    assert f"rows cannot be packed: {why}" in caught.value.message
