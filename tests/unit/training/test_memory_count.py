"""What is counted of a step without weights is what a real step holds."""

from dataclasses import replace

import pytest
import torch
from tests.support.memory_trials import (
    Trial,
    make_model,
    small_tiles,
    train_and_count,
)
from torch import nn

from ftq_shared.spec import Lora, Task
from ftq_worker.training import memory_count
from ftq_worker.training.live_bytes import LiveBytes
from ftq_worker.training.memory_count import count
from ftq_worker.training.memory_need import Setup, Uncountable

PLAIN = Setup(Task.SFT, "lora", "bf16", 2, 96, Lora(r=8), device="cpu")
TRIALS = [
    Trial("llama", replace(PLAIN, checkpointing=2, accumulates=True)),
    Trial("gpt2", replace(PLAIN, method="full", precision="fp32")),
    Trial("gemma3_text", replace(PLAIN, method="full", checkpointing="all", micro_batch=1)),
    Trial("qwen3_moe", replace(PLAIN, precision="fp32", accumulates=True)),
    Trial("bert", replace(PLAIN, task=Task.CLASSIFICATION, method="full", labels=3)),
]


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    made = {}

    def get(kind: str):
        if kind not in made:
            made[kind] = make_model(tmp_path_factory.mktemp("counted") / kind, kind)
        return made[kind]

    return get


@pytest.mark.filterwarnings("ignore")  # what libraries say of models so small
@pytest.mark.parametrize("trial", TRIALS, ids=str)
def test_the_count_is_what_a_real_step_holds(tmp_path, models, trial):
    base = models(trial.kind)
    with small_tiles():
        counted = count(base, trial.setup).tensors
        real = train_and_count(trial, base, tmp_path / "run")
    assert counted == pytest.approx(real, rel=0.01)


def test_two_cuts_of_a_deep_model_count_what_the_whole_does(models, monkeypatch):
    base = models("llama")
    cut = count(base, PLAIN)
    monkeypatch.setattr(memory_count, "_depths", lambda *_: [])
    assert count(base, PLAIN) == cut


def test_a_pattern_of_layers_is_cut_at_its_own_places():
    def depths(pattern: str, **changes):
        return memory_count._depths(list(pattern), replace(PLAIN, **changes))

    assert depths("a" * 32) == [2, 3]
    assert depths("a" * 32, checkpointing=4) == [8, 12]
    assert depths("lllf" * 12) == [8, 12]
    assert depths("d" + "m" * 26) == [3, 4]
    assert depths("lllf" * 2) == []
    assert depths("abcdefgh") == []


@pytest.mark.chaos
def test_memory_grows_with_what_it_is_made_of(models):
    def total(**changes):
        return count(models("gpt2"), replace(PLAIN, **changes)).total

    assert total(method="qlora") < total() < total(micro_batch=4)
    assert total() < total(ranks=2)


def test_dropout_keeps_a_byte_on_cuda_and_a_copy_on_the_cpu(models):
    def activations(device: str, dropout: float) -> int:
        setup = replace(PLAIN, device=device, lora=Lora(r=8, dropout=dropout))
        return count(models("gpt2"), setup).activations

    cpu = activations("cpu", 0.1) - activations("cpu", 0.0)
    assert 0 < activations("cuda", 0.1) - activations("cuda", 0.0) < cpu


def test_what_cannot_be_counted_says_why(models, monkeypatch):
    monkeypatch.setattr(memory_count, "MOST_OPERATIONS", 10)
    with pytest.raises(Uncountable, match="loop over the tokens"):
        count(models("llama"), PLAIN)


def test_live_bytes_counts_a_view_once_and_lets_go_what_is_freed():
    live = LiveBytes()
    with live:
        one = torch.ones(1_000)
        view = one.view(10, 100)
        assert live.now == 4_000
        del one
        assert live.now == 4_000  # the view has it
        del view
        assert live.now == 0
        layer = nn.Linear(10, 10)
        rows = torch.ones(50, 10)
        before = live.now
        kept = layer(rows).relu()
        assert live.now - before == 2_000  # what relu keeps is its own output
        del kept
    assert live.peak >= 4_000
