"""Which attention is chosen, that it is tried first, and that documents stay apart in it."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from tests.support.tiny_jobs import tiny_job
from tests.support.zoo import DECODERS, make_model
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask
from transformers.modeling_utils import AttentionInterface

from ftq_shared.errors import Refused
from ftq_shared.events import EventType
from ftq_shared.spec import Task
from ftq_worker.job.reports import Trained
from ftq_worker.phases import train
from ftq_worker.training import attention, attention_proof, varlen
from ftq_worker.training.attention import HostAttention, ModelAttention, candidates, look_at_model
from ftq_worker.training.attention_proof import documents_mix, wrong_numbers
from ftq_worker.training.base_model import load_base
from ftq_worker.training.blueprint import blueprint

CPU = torch.device("cpu")
LLAMA = ModelAttention(flash=True, flex=True, head_dim=64)
HOPPER = HostAttention(cuda=True, capability=(9, 0), varlen=True)
T4 = replace(HOPPER, capability=(7, 5))
KERNEL = "kernels-community/flash-attn2@abc"
SINKS = replace(LLAMA, sdpa=False, only_flash=("kernels-community/vllm-flash-attn3",))


@pytest.mark.parametrize(
    ("model", "host", "precision", "packing", "names"),
    [
        (LLAMA, HostAttention(), "fp32", False, "sdpa eager"),
        (LLAMA, HostAttention(), "fp32", True, "varlen sdpa eager"),
        (LLAMA, HOPPER, "bf16", False, "sdpa eager"),
        (LLAMA, HOPPER, "bf16", True, "varlen flex_attention sdpa eager"),
        (
            LLAMA,
            replace(HOPPER, packages=(2, 4), hub_kernel=KERNEL),
            "bf16",
            True,
            f"flash_attention_4 flash_attention_2 {KERNEL} varlen flex_attention sdpa eager",
        ),
        # The kernels know half precision only, and no card before Ampere.
        (LLAMA, replace(HOPPER, packages=(2,)), "fp32", True, "flex_attention sdpa eager"),
        (LLAMA, replace(T4, packages=(2,)), "fp16", True, "flex_attention sdpa eager"),
        # The fourth wants Hopper; the third and fourth would leave dropout out.
        (
            LLAMA,
            replace(HOPPER, capability=(8, 0), packages=(3, 4)),
            "bf16",
            False,
            "flash_attention_3 sdpa eager",
        ),
        (
            replace(LLAMA, dropout=True),
            replace(HOPPER, packages=(2, 3)),
            "bf16",
            True,
            "flash_attention_2 sdpa eager",
        ),
        (replace(LLAMA, head_dim=512), replace(HOPPER, packages=(2,)), "bf16", False, "sdpa eager"),
        (replace(LLAMA, head_dim=0), HOPPER, "bf16", True, "flex_attention sdpa eager"),
        # Capped scores or sinks: neither SDPA nor torch's kernel has them.
        (SINKS, replace(HOPPER, packages=(2, 3)), "bf16", True, "flex_attention eager"),
        (SINKS, HostAttention(), "fp32", True, "eager"),
        (ModelAttention(sdpa=False), HostAttention(), "fp32", False, "eager"),
    ],
)
def test_the_fastest_that_fits_comes_first(model, host, precision, packing, names):
    found = candidates(model, host, precision, packing=packing)
    assert [one.name for one in found] == names.split()
    assert [one.known for one in found if one.name in ("sdpa", "eager")][-1]
    assert all(one.why for one in found)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", ["varlen", "sdpa", "eager"])
def test_what_is_right_passes_its_trial(name, precision):
    varlen.register()
    state = torch.get_rng_state()
    assert wrong_numbers(name, LLAMA, precision, CPU) == ""
    assert torch.get_rng_state().equal(state)


def _sees_neighbours(module, query, key, value, mask, **options):
    return sdpa_attention_forward(module, query, key, value, None, is_causal=True, scaling=None)


def _other_scale(module, query, key, value, mask, scaling=None, **options):
    return varlen.varlen_forward(module, query, key, value, mask, scaling=1.1 * scaling, **options)


def _no_window(module, query, key, value, mask, sliding_window=None, **options):
    return varlen.varlen_forward(module, query, key, value, mask, **options)


class _WrongBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        return 1.2 * grad


def _wrong_backward(module, query, key, value, mask, **options):
    return varlen.varlen_forward(module, _WrongBackward.apply(query), key, value, mask, **options)


def _nan(module, query, *rest, **options):
    out, _ = varlen.varlen_forward(module, query, *rest, **options)
    return out * float("nan"), None


def _crashes(*_, **__):
    raise RuntimeError("no kernel image is available for execution on the device")


FAKES = {
    "sees_neighbours": (_sees_neighbours, "logits of packed rows are off"),
    "other_scale": (_other_scale, "logits of packed rows are off"),
    "no_window": (_no_window, "logits of packed rows are off"),
    "wrong_backward": (_wrong_backward, "gradients are off"),
    "nan": (_nan, "off by nan"),
    "crashes": (_crashes, "no kernel image is available"),
}


@pytest.fixture
def fakes():
    for name, (function, _) in FAKES.items():
        AttentionInterface.register(name, function)
        AttentionMaskInterface.register(name, varlen.varlen_mask)
    yield
    for name in FAKES:
        AttentionInterface._global_mapping.pop(name)
        AttentionMaskInterface._global_mapping.pop(name)


@pytest.mark.usefixtures("fakes")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", FAKES)
def test_a_kernel_with_wrong_numbers_fails_its_trial(name, precision):
    assert FAKES[name][1] in wrong_numbers(name, LLAMA, precision, CPU)


@pytest.mark.usefixtures("fakes")
def test_it_is_refused_by_name_and_the_job_goes_on_with_sdpa(sft_job, monkeypatch):
    wrong = attention.Candidate("sees_neighbours", "a kernel of the Hub")
    known = attention.Candidate("sdpa", "SDPA", known=True)
    monkeypatch.setattr(attention_proof, "candidates", lambda *_, **__: [wrong, known])
    train.run(sft_job.ctx)
    (warning,) = sft_job.events.of(EventType.WARNING)
    assert "sees_neighbours (a kernel of the Hub) is not used" in warning["message"]
    told = {e["field"]: e["value"] for e in sft_job.events.of(EventType.RESOLVED)}
    assert told["train.attention"] == "sdpa"
    assert Trained.load(sft_job.ctx.paths.train_report).settings["attention"] == "sdpa"


def test_a_later_attempt_keeps_the_attention(sft_job, monkeypatch):
    two = [attention.Candidate(name, name, known=True) for name in ("eager", "sdpa")]
    monkeypatch.setattr(attention_proof, "candidates", lambda *_, **__: two)
    settings = SimpleNamespace(precision="fp32", packing=False)
    facts = SimpleNamespace(attention=LLAMA, host=HostAttention())
    monkeypatch.setattr(attention_proof, "replace", lambda settings, attention: attention)
    settle = attention_proof.settle_attention
    assert settle(sft_job.ctx, settings, facts) == "eager"
    two.reverse()
    again = sft_job.again()
    assert settle(again.ctx, settings, facts) == "eager"
    assert not again.events.of(EventType.RESOLVED)


def test_what_a_person_asked_for_is_used_or_refused(tmp_path, llama):
    job = tiny_job(tmp_path / "a", llama, "sft", train={"attention": "eager", "max_steps": 1})
    train.run(job.ctx)
    assert Trained.load(job.ctx.paths.train_report).settings["attention"] == "eager"
    job = tiny_job(tmp_path / "b", llama, "sft", train={"attention": "flash_attention_2"})
    with pytest.raises(Refused) as caught:
        train.run(job.ctx)
    assert caught.value.code == "attention_not_supported"
    assert "usable: sdpa, eager" in caught.value.hint


def test_dropout_in_the_attention_is_seen_whatever_its_name(llama, bert, tmp_path):
    assert look_at_model(blueprint(llama, Task.SFT, [])).dropout  # attention_dropout
    assert look_at_model(blueprint(bert, Task.CLASSIFICATION, ["a", "b"])).dropout
    assert look_at_model(blueprint(make_model(tmp_path / "a", "gpt2"), Task.SFT, [])).dropout
    assert not look_at_model(blueprint(make_model(tmp_path / "b", "qwen3"), Task.SFT, [])).dropout


def test_no_load_leaves_it_to_a_default(llama, tmp_path):
    assert load_base(llama, Task.SFT, []).config._attn_implementation == "sdpa"
    capped = make_model(tmp_path / "gemma2", "gemma2")
    assert load_base(capped, Task.SFT, []).config._attn_implementation == "eager"
    model = load_base(llama, Task.SFT, [], attention="varlen")
    model.save_pretrained(tmp_path / "saved")
    assert "attn" not in (tmp_path / "saved" / "config.json").read_text().replace("attn_bias", "")


# What looks back through attention alone, and calls what is registered for it.
PACKABLE = {
    "llama", "qwen2", "qwen3", "mistral", "gemma", "gemma2", "gemma3_text", "phi", "phi3", "gpt2",
    "gpt_neox", "opt", "olmo2", "cohere", "granite", "smollm3", "starcoder2", "glm4",
    "mixtral", "qwen2_moe", "qwen3_moe", "olmoe", "granitemoe", "gpt_oss", "deepseek_v3",
}  # fmt: skip
MASKS_MIX = {"opt", "gpt_oss"}  # they look at no positions for it: found out before training


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", DECODERS)
def test_documents_are_apart_in_every_model_that_is_packed(tmp_path, name):
    """Also with a window of 8, in a document of 9 tokens; and what mixes them is never packed."""
    folder = make_model(tmp_path / name, name)
    facts = look_at_model(blueprint(folder, Task.SFT, []))
    assert (name in PACKABLE) == (not facts.mixing)
    if facts.mixing:
        with pytest.raises(Refused, match=r"train\.packing: rows cannot be packed: .*document"):
            attention.refuse_packing(Task.SFT, facts)
        return
    for one in candidates(facts, HostAttention(), "fp32", packing=True):
        model = load_base(folder, Task.SFT, [], attention=one.name)
        mixes = one.masked and name in MASKS_MIX
        assert bool(documents_mix(model, "fp32")) == mixes, one.name


def test_a_model_whose_documents_mix_is_found_out(llama):
    AttentionInterface.register("mixes", _sees_neighbours)
    AttentionMaskInterface.register("mixes", sdpa_mask)
    model = load_base(llama, Task.SFT, [], attention="mixes")
    assert "of those it has alone" in documents_mix(model, "fp32")
