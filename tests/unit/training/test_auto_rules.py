"""The auto rules: a table of facts and what must follow from them."""

import subprocess
import sys
from dataclasses import replace

import pytest
from tests.support.tiny_jobs import tiny_job
from transformers import TrainerControl, TrainerState

from ftq_shared.errors import Refused, UsageError
from ftq_shared.events import EventType
from ftq_shared.sources import Place
from ftq_shared.spec import Task
from ftq_worker.job import auto
from ftq_worker.job.reports import ModelFacts
from ftq_worker.training import auto_rules
from ftq_worker.training.attention import HostAttention, ModelAttention
from ftq_worker.training.clock import RunClock
from ftq_worker.training.facts import DeviceFacts, RunFacts
from ftq_worker.training.flow import FlowCallback
from ftq_worker.training.memory_need import Need
from ftq_worker.training.memory_plan import Count
from ftq_worker.training.resolve import resolve_settings
from ftq_worker.training.sampling import grouped_order

CPU = DeviceFacts("cpu", "CPU")
H100 = DeviceFacts("cuda", "H100", 80_000_000_000, (9, 0))
T4 = DeviceFacts("cuda", "T4", 15_000_000_000, (7, 5))


def facts(
    task=Task.SFT,
    kind="decoder",
    rows=10_000,
    validation=200,
    device=CPU,
    parameters=600_000_000,
    hidden=1024,
    max_length=512,
) -> RunFacts:
    model = ModelFacts(
        place=Place.HUB,
        name="a/b",
        architecture="X",
        model_type="x",
        kind=kind,
        parameters=parameters,
        hidden_size=hidden,
        layers=28,
        vocab_size=150_000,
    )
    return RunFacts(task, model, device, rows, validation, max_length)


@pytest.mark.parametrize(
    ("given", "method"),
    [
        (facts(), "lora"),
        (facts(Task.CLASSIFICATION, "encoder"), "full"),
        (facts(device=T4), "lora"),
    ],
)
def test_method(given, method):
    assert auto_rules.method(given).value == method


@pytest.mark.parametrize(
    ("task", "rows", "epochs"),
    [
        (Task.CLASSIFICATION, 15_000, 4),
        (Task.SFT, 4_999, 3),
        (Task.SFT, 5_000, 2),
        (Task.SFT, 49_999, 2),
        (Task.SFT, 50_000, 1),
        (Task.TEXT, 100, 1),
        (Task.PREFERENCE, 100, 1),
    ],
)
def test_epochs(task, rows, epochs):
    assert auto_rules.epochs(facts(task, rows=rows)).value == epochs


@pytest.mark.parametrize(
    ("given", "method", "rate"),
    [
        (facts(), "lora", 2e-4),
        (facts(), "full", 2e-5),
        (facts(parameters=7_000_000_000), "full", 1e-5),
        (facts(parameters=7_000_000_000), "lora", 2e-4),
        (facts(Task.TEXT), "lora", 1e-4),
        (facts(Task.TEXT), "full", 1e-5),
        (facts(Task.PREFERENCE), "lora", 5e-6),
        (facts(Task.PREFERENCE), "full", 5e-7),
        (facts(Task.CLASSIFICATION, "encoder", hidden=384), "full", 2e-4),
        (facts(Task.CLASSIFICATION, "encoder", hidden=768), "full", 5e-5),
        (facts(Task.CLASSIFICATION, "encoder", hidden=1024), "full", 2e-5),
    ],
)
def test_learning_rate(given, method, rate):
    assert auto_rules.learning_rate(given, method).value == rate


@pytest.mark.parametrize(
    ("tokens", "numbers", "passes", "rank"),
    [
        (0, 0, 3, 16),  # nobody has counted
        (50_000_000, 2_621_440, 1, 16),  # 8B: rank 16 holds 84 million bits
        (84_000_000, 2_621_440, 2, 64),
        (10_000_000_000, 2_621_440, 1, 256),  # more than a rank of 256 holds
    ],
)
def test_lora_rank_holds_what_is_to_be_learned(tokens, numbers, passes, rank):
    given = replace(facts(), trained_tokens=tokens, adapter_numbers=numbers)
    assert auto_rules.lora_rank(given, passes).value == rank


@pytest.mark.parametrize(
    ("task", "rows", "passes", "batch"),
    [
        (Task.SFT, 10_000, 2, 16),
        (Task.CLASSIFICATION, 15_000, 4, 32),
        (Task.SFT, 400, 3, 8),  # 75 steps of 16, 150 of 8
        (Task.SFT, 50, 1, 4),
    ],
)
def test_batch_is_halved_until_there_are_steps(task, rows, passes, batch):
    assert auto_rules.batch_size(facts(task, rows=rows), passes, None).value == batch


def test_batch_is_a_multiple_of_the_ranks():
    assert auto_rules.batch_size(facts(), 2, None, unit=3).value == 18


def test_micro_batch():
    long = facts(max_length=512)
    assert auto_rules.micro_batch(long, 16).value == 8
    assert auto_rules.micro_batch(facts(max_length=33), 32).value == 32
    assert auto_rules.micro_batch(long, 10).value == 5


def test_the_words_of_micro_batch_are_what_the_rule_does():
    short = facts(max_length=12)
    most, device, few, tokens = 64, "90 %", 8, 2_048
    for batch in range(1, 200):
        value = auto_rules.micro_batch(short, batch).value
        assert value == max(d for d in range(1, most + 1) if batch % d == 0)
    assert auto_rules.micro_batch(facts(max_length=128), 64).value == tokens // 128
    assert auto_rules.micro_batch(facts(max_length=4_096), 64).value == few
    words = auto.WORDS["train.micro_batch"]
    assert "largest divisor" in words
    assert all(said in words for said in (f"up to {most}", device, f"{few} rows", f"{tokens:,}"))


def test_the_rules_need_no_torch():
    look = "import ftq_worker.training.auto_rules, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", look]).returncode == 0


@pytest.mark.parametrize(("device", "precision"), [(CPU, "fp32"), (H100, "bf16"), (T4, "fp16")])
def test_precision(device, precision):
    assert auto_rules.precision(facts(device=device)).value == precision


def test_no_packing_on_a_cpu_or_for_labels():
    fast = {"host": HostAttention(cuda=True, capability=(9, 0), varlen=True)}
    model = ModelAttention(flash=True, head_dim=64)
    assert auto_rules.packing(facts(), "fp32").value is False
    assert auto_rules.packing(facts(Task.CLASSIFICATION, device=H100), "bf16").value is False
    card = replace(facts(device=H100), attention=model, **fast)
    assert auto_rules.packing(card, "bf16").value is True
    assert auto_rules.packing(card, "fp32").value is False  # the kernels want half precision
    hybrid = replace(card, attention=replace(model, mixing="x has recurrent layers"))
    assert auto_rules.packing(hybrid, "bf16").value is False


def test_evaluations_cost_at_most_a_tenth():
    assert auto_rules.eval_every(facts(), "full", 1_000, 2).value == 100
    costly = auto_rules.eval_every(facts(rows=1_000, validation=3_000), "lora", 100, 1)
    assert costly.value == 100
    assert "tenth" in costly.reason
    assert auto_rules.eval_every(facts(), "lora", 3, 1).value == 1


def test_keeping_the_best_is_counted():
    """All weights on a card, where a save takes as long as some hundred rows; not an adapter."""
    few = replace(facts(rows=1_000, validation=30), mean_length=500)
    card = replace(few, device=H100)
    assert auto_rules.eval_every(few, "full", 100, 3).value == 10
    assert auto_rules.eval_every(card, "lora", 100, 3).value == 10
    assert auto_rules.eval_every(card, "full", 100, 3).value == 50
    assert "keeping the best" in auto_rules.eval_every(card, "full", 100, 3).reason


def test_save_interval_lies_between_two_and_thirty_minutes():
    assert auto_rules.save_every_s(0.1).value == 120
    assert auto_rules.save_every_s(10).value == 500
    assert auto_rules.save_every_s(1e6).value == 1_800


def test_the_first_save_decides_when_the_next_ones_are_due(tmp_path, llama, monkeypatch):
    now = [0.0]
    job = tiny_job(tmp_path, llama, "sft")
    settings = resolve_settings(job.ctx, facts(rows=48))
    flow = FlowCallback(job.ctx, settings, RunClock(lambda: now[0]))
    monkeypatch.setattr(flow, "_seal", lambda state: None)
    state, control = TrainerState(global_step=1), TrainerControl()

    def is_due(after_s: float) -> bool:
        now[0] += after_s
        control.should_save = False
        flow.on_step_end(None, state, control)
        return control.should_save

    def save(seconds: float) -> None:
        flow._clock.step(1)
        now[0] += seconds
        flow.on_save(None, state, control)

    flow.on_train_begin(None, state, control)
    assert not is_due(119)
    assert is_due(1)  # nothing is known yet: after 2 minutes
    save(10)
    (told,) = [e for e in job.events.of(EventType.RESOLVED) if e["field"] == "train.save_every"]
    assert (told["value"], "50 times the 10.0 s" in told["reason"]) == ("500s", True)
    assert not is_due(499)
    assert is_due(1)
    save(1)  # the interval stays what was told
    assert not is_due(499)
    assert is_due(1)
    later = resolve_settings(job.again().ctx, facts(rows=48))
    assert later.save_every_s == 500  # also for the next attempt


TWO_H100 = replace(H100, world_size=2)


def needs(base_gb: float) -> Count:
    """Return a count of steps that hold so many GB of frozen weights, and little else."""
    return lambda setup: Need(int(base_gb * 1e9), 10**9, 2 * 10**9, 10**9, 10**9, 0)


class TestResolving:
    @pytest.fixture
    def job(self, tmp_path, llama):
        auto = dict.fromkeys(("epochs", "batch_size", "micro_batch", "learning_rate"), "auto")
        return tiny_job(tmp_path, llama, "sft", train=auto | {"eval_every": "auto"})

    @pytest.mark.parametrize(
        ("base_gb", "strategy", "total_gb"),
        # 72 of a card's 80 GB can be planned with. Sharded: half of 94 GB, 1 GB of activations,
        # and 1.3 GB that are gathered at a time.
        [(60, "ddp", 65.0), (90, "fsdp", 49.3)],
    )
    def test_what_does_not_fit_one_card_is_sharded(self, job, base_gb, strategy, total_gb):
        given = facts(rows=400, device=TWO_H100)
        settings = resolve_settings(job.ctx, given, needs(base_gb))
        told = {e["field"]: e for e in job.events.of(EventType.RESOLVED)}
        assert told["train.parallel.strategy"]["value"] == strategy
        assert (settings.strategy, settings.sharded) == (strategy, strategy == "fsdp")
        assert settings.counted_bytes / 1e9 == pytest.approx(total_gb, abs=0.2)
        again = job.again()
        assert resolve_settings(again.ctx, given, needs(base_gb)).strategy == strategy
        assert not again.events.of(EventType.RESOLVED)

    def test_what_does_not_fit_all_cards_is_refused(self, job):
        with pytest.raises(Refused) as caught:
            resolve_settings(job.ctx, facts(rows=400, device=TWO_H100), needs(200))
        assert caught.value.code == "does_not_fit"

    @pytest.mark.parametrize(
        ("device", "method", "words"),
        [(H100, "lora", "this is one"), (replace(H100, world_size=2), "qlora", "4-bit")],
    )
    def test_what_cannot_be_sharded_is_refused(
        self, tmp_path, llama, monkeypatch, device, method, words
    ):
        monkeypatch.setattr(auto_rules, "has_bitsandbytes", lambda: True)
        train = {"method": method, "parallel": {"strategy": "fsdp"}}
        job = tiny_job(tmp_path, llama, "sft", train=train)
        with pytest.raises(Refused, match=words) as caught:
            resolve_settings(job.ctx, facts(device=device))
        assert caught.value.code == "sharding_not_supported"

    def test_every_auto_is_told_with_its_reason(self, job):
        settings = resolve_settings(job.ctx, facts(rows=400))
        told = {e["field"]: (e["value"], e["reason"]) for e in job.events.of(EventType.RESOLVED)}
        assert set(told) == {
            f"train.{name}"
            for name in (
                "method",
                "lora.r",
                "gradient_checkpointing",
                "epochs",
                "batch_size",
                "micro_batch",
                "learning_rate",
                "packing",
                "precision",
                "eval_every",
            )
        }
        assert all(reason for _, reason in told.values())
        assert settings.batch_size == settings.micro_batch * settings.accumulation == 8
        assert (settings.steps, settings.steps_per_epoch) == (150, 50)

    def test_a_later_attempt_uses_what_the_first_resolved(self, job):
        first = resolve_settings(job.ctx, facts(rows=400))
        again = job.again()
        assert resolve_settings(again.ctx, facts(rows=90_000)).batch_size == first.batch_size
        assert not again.events.of(EventType.RESOLVED)

    def test_what_a_person_chose_wins_and_is_not_resolved(self, tmp_path, llama):
        job = tiny_job(tmp_path, llama, "sft", train={"method": "full", "learning_rate": 3e-6})
        settings = resolve_settings(job.ctx, facts())
        assert (settings.method, settings.learning_rate) == ("full", 3e-6)
        fields = {e["field"] for e in job.events.of(EventType.RESOLVED)}
        assert not fields & {"train.method", "train.learning_rate"}

    def test_on_a_card_the_plan_is_counted_and_kept(self, job):
        def count(setup):
            counted.append(setup)
            rows = setup.micro_batch * (1 if setup.checkpointing == "none" else 0.4)
            return Need(0, 0, 0, 0, int(12e9 * rows), 0)

        counted = []
        given = facts(device=DeviceFacts("cuda", "L4", 24_000_000_000, (8, 9)), max_length=2_048)
        settings = resolve_settings(job.ctx, given, count)
        told = {e["field"]: e for e in job.events.of(EventType.RESOLVED)}
        assert (settings.micro_batch, settings.gradient_checkpointing) == (2, 4)
        assert settings.counted_bytes == 9_600_000_000
        assert "every 4th layer is computed twice" in told["train.gradient_checkpointing"]["reason"]
        assert "10.8 GB of 24.0 GB" in told["train.micro_batch"]["reason"]
        before = len(counted)
        later = resolve_settings(job.again().ctx, given, count)
        assert (later.micro_batch, later.gradient_checkpointing) == (2, 4)
        assert len(counted) == before + 1  # nothing is chosen again

    def test_batches_that_do_not_divide(self, tmp_path, llama):
        job = tiny_job(tmp_path, llama, "sft", train={"batch_size": 10, "micro_batch": 4})
        with pytest.raises(UsageError) as caught:
            resolve_settings(job.ctx, facts())
        assert "micro_batch 2" in caught.value.hint

    def test_max_steps(self, tmp_path, llama):
        job = tiny_job(tmp_path, llama, "sft", train={"max_steps": 7})
        settings = resolve_settings(job.ctx, facts(rows=48))
        assert settings.steps == 7
        assert settings.epochs == pytest.approx(7 / 6)

    def test_qlora_without_its_package(self, tmp_path, llama):
        job = tiny_job(tmp_path, llama, "sft", train={"method": "qlora"})
        with pytest.raises(Refused) as caught:
            resolve_settings(job.ctx, facts())
        assert caught.value.code == "method_not_supported"


class TestOrder:
    LENGTHS = tuple((i * 37) % 101 + 1 for i in range(1_003))

    def test_every_row_once(self):
        order = grouped_order(self.LENGTHS, 8, seed=1, epoch=0)
        assert sorted(order) == list(range(1_003))

    def test_same_seed_same_order_other_epoch_other_order(self):
        first = grouped_order(self.LENGTHS, 8, seed=1, epoch=0)
        assert grouped_order(self.LENGTHS, 8, seed=1, epoch=0) == first
        assert grouped_order(self.LENGTHS, 8, seed=1, epoch=1) != first
        assert grouped_order(self.LENGTHS, 8, seed=2, epoch=0) != first

    def test_batches_hold_rows_of_similar_length(self):
        def padding(order):
            batches = [order[i : i + 8] for i in range(0, len(order), 8)]
            padded = sum(max(self.LENGTHS[r] for r in b) * len(b) for b in batches)
            return padded / sum(self.LENGTHS)

        assert padding(grouped_order(self.LENGTHS, 8, seed=1, epoch=0)) < 1.1
        assert padding(list(range(1_003))) > 1.5

    def test_longest_rows_come_first_so_that_memory_runs_out_at_once(self):
        order = grouped_order(self.LENGTHS, 8, seed=1, epoch=0)
        assert max(self.LENGTHS[r] for r in order[:8]) == max(self.LENGTHS)

    def test_few_rows(self):
        assert sorted(grouped_order((3, 2, 1), 8, seed=1, epoch=0)) == [0, 1, 2]
