"""Models that would break in train, or train something else: told by validate, or made to work."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.support.data_jobs import CHAT_TEMPLATE, make_context, make_spec, write_jsonl
from tests.support.tiny_jobs import WORDS, make_base, tiny_job
from tests.support.zoo import make_model
from transformers import (
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    LlamaForSequenceClassification,
    LlamaModel,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)

from ftq_shared.errors import Refused
from ftq_shared.events import EventType
from ftq_shared.spec import Task
from ftq_shared.states import Phase
from ftq_worker.host.data_roots import DataRoots
from ftq_worker.job.reports import Trained, Validated
from ftq_worker.phases import publish, train, validate
from ftq_worker.training.base_model import load_base, load_tokenizer

VOCAB = 4 + WORDS
QA = [{"question": f"w{i} w1", "answer": f"w{i}"} for i in range(30)]
RATED = [{"text": f"w{i} w2", "label": "up" if i % 2 else "down"} for i in range(30)]


def checked(folder: Path, base: Path, rows: list[dict[str, str]], **spec: Any) -> Validated:
    """Run validate on a model folder and rows; what it said stands in `checked.events`."""
    file = write_jsonl(folder / "rows.jsonl", rows)
    ctx = make_context(
        folder / "storage",
        make_spec(model=f"worker:{base}", dataset=f"worker:{file}", **spec),
        data_roots=DataRoots(open=("/",)),
    )
    checked.events = ctx.emit.events
    validate.run(ctx)
    return Validated.load(ctx.paths.validated)


def refusal(folder: Path, base: Path, rows: list[dict[str, str]] = QA, **spec: Any) -> Refused:
    with pytest.raises(Refused) as caught:
        checked(folder, base, rows, **spec)
    assert caught.value.hint
    return caught.value


def warnings() -> list[str]:
    return [data["message"] for type_, data in checked.events if type_ is EventType.WARNING]


def copy_of(base: Path, folder: Path) -> Path:
    return Path(shutil.copytree(base, folder / "base"))


def make_moe(folder: Path) -> Path:
    make_base(folder, "llama")
    config = Qwen3MoeConfig(
        vocab_size=VOCAB,
        hidden_size=32,
        intermediate_size=32,
        moe_intermediate_size=16,
        num_experts=4,
        num_experts_per_tok=2,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=64,
        bos_token_id=3,
        eos_token_id=1,
    )
    torch.manual_seed(1)
    Qwen3MoeForCausalLM(config).save_pretrained(folder)
    return folder


class TestMixtureOfExperts:
    def test_trains_verifies_and_says_that_dropout_is_none(self, tmp_path):
        base = make_moe(tmp_path / "base")
        assert checked(tmp_path, base, QA).model.model_type == "qwen3_moe"
        job = tiny_job(tmp_path, base, "sft", train={"max_steps": 2, "lora": {"dropout": 0.1}})
        train.run(job.ctx)
        said = {d["field"]: d for d in job.events.of(EventType.RESOLVED)}
        assert said["train.lora.dropout"]["value"] == 0.0
        assert "experts" in said["train.lora.dropout"]["reason"]
        assert Trained.load(job.ctx.paths.train_report).settings["lora"]["dropout"] == 0.0
        names = set(load_file(job.ctx.paths.model / "adapter_model.safetensors"))
        assert any(".experts." in name for name in names)
        assert not any(".gate." in name for name in names)
        job = job.again(phase=Phase.PUBLISH)
        publish.run(job.ctx)
        assert all(v["ok"] for v in job.events.of(EventType.VERIFICATION))

    def test_layers_of_the_attention_alone_keep_their_dropout(self, tmp_path):
        base = make_moe(tmp_path / "base")
        lora = {"target_modules": ["q_proj", "v_proj"], "dropout": 0.1}
        job = tiny_job(tmp_path, base, "sft", train={"max_steps": 1, "lora": lora})
        train.run(job.ctx)
        assert Trained.load(job.ctx.paths.train_report).settings["lora"]["dropout"] == 0.1

    @pytest.mark.parametrize(
        ("kind", "left"),
        [
            ("deepseek_v3", "model.layers.*.mlp.shared_experts.gate_proj.weight"),
            ("qwen2_moe", "model.layers.*.mlp.experts.gate_up_proj"),
            ("qwen3_moe", ""),
            ("falcon_h1", ""),
            ("llama", ""),
        ],
    )
    def test_what_lora_does_not_reach_is_told(self, tmp_path, kind, left):
        checked(tmp_path, make_model(tmp_path / "base", kind), QA)
        told = [text for text in warnings() if "stay as they are" in text]
        assert len(told) == bool(left)
        assert left in "".join(told)


def changed(base: Path, config: dict[str, Any], **tensors: Any) -> Path:
    """Change a model's config and tensors in place; names have __ for a dot, None drops one."""
    known = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(known | config))
    weights = load_file(base / "model.safetensors")
    weights |= {name.replace("__", "."): tensor for name, tensor in tensors.items()}
    weights = {name: tensor for name, tensor in weights.items() if tensor is not None}
    save_file(weights, base / "model.safetensors", {"format": "pt"})
    return base


UP = "model__layers__1__mlp__up_proj__weight"


class TestWeights:
    @pytest.mark.parametrize("dtype", [torch.int8, torch.float8_e4m3fn])
    def test_quantized_ones_that_config_json_is_silent_of(self, tmp_path, llama, dtype):
        base = copy_of(llama, tmp_path)
        held = load_file(base / "model.safetensors")[UP.replace("__", ".")]
        error = refusal(tmp_path, changed(base, {}, **{UP: held.to(dtype)}))
        assert error.code == "quantized"
        assert "up_proj" in error.message

    @pytest.mark.parametrize("kind", ["llama", "bert"])
    def test_of_other_shapes_than_the_config(self, tmp_path, kind):
        base = changed(make_base(tmp_path / "base", kind), {"intermediate_size": 48})
        error = refusal(tmp_path, base, RATED if kind == "bert" else QA)
        assert error.code == "broken_model"
        assert "48" in error.message
        task = Task.CLASSIFICATION if kind == "bert" else Task.SFT
        with pytest.raises(Refused):
            load_base(base, task, ["up", "down"])

    def test_that_are_not_in_the_files(self, tmp_path, llama):
        error = refusal(tmp_path, changed(copy_of(llama, tmp_path), {}, **{UP: None}))
        assert error.code == "broken_model"
        assert "layers.1.mlp.up_proj" in error.message

    def test_that_their_shard_does_not_hold(self, tmp_path, llama):
        base = copy_of(llama, tmp_path)
        weights = load_file(base / "model.safetensors")
        (base / "model.safetensors").rename(base / "a.safetensors")
        places = dict.fromkeys(weights, "a.safetensors")
        save_file({UP.replace("__", "."): torch.zeros(1)}, base / "b.safetensors")
        del weights[UP.replace("__", ".")]
        save_file(weights, base / "a.safetensors", {"format": "pt"})
        index = base / "model.safetensors.index.json"
        index.write_text(json.dumps({"weight_map": places}))
        assert refusal(tmp_path, base).code == "broken_model"

    def test_that_the_model_has_no_place_for(self, tmp_path, llama):
        extra = {"extra__weight": torch.zeros(2, 2), "mask": torch.zeros(1, 1, 4, 4)}
        checked(tmp_path, changed(copy_of(llama, tmp_path), {}, **extra), QA)
        assert any("extra.weight" in text for text in warnings())

    @pytest.mark.parametrize("number", [float("nan"), float("-inf")])
    @pytest.mark.parametrize("kind", ["llama", "bert"])
    def test_that_are_no_numbers_are_told_before_the_first_step(self, tmp_path, kind, number):
        base = make_base(tmp_path / "base", kind)
        name = next(name for name in load_file(base / "model.safetensors") if ".0." in name)
        held = load_file(base / "model.safetensors")[name]
        held.view(-1)[3] = number
        changed(base, {}, **{name: held})
        task = "classification" if kind == "bert" else "sft"
        job = tiny_job(tmp_path, base, task, train={"max_steps": 2})
        with pytest.raises(Refused, match=re.escape(name)):
            train.run(job.ctx)
        assert not job.events.of(EventType.STEP)


class TestHeads:
    @pytest.mark.parametrize("problem", ["multi_label_classification", "regression"])
    def test_a_head_of_another_problem_is_replaced_aloud(self, tmp_path, problem):
        base = make_base(tmp_path / "base", "bert")
        config = BertConfig.from_pretrained(base, num_labels=3, problem_type=problem)
        torch.manual_seed(1)
        BertForSequenceClassification(config).save_pretrained(base)
        checked(tmp_path, base, RATED)
        assert any("own head gives" in text for text in warnings())
        job = tiny_job(tmp_path, base, "classification", train={"max_steps": 2})
        train.run(job.ctx)
        saved = json.loads((job.ctx.paths.model / "config.json").read_text())
        assert saved["problem_type"] == "single_label_classification"
        before = load_file(base / "model.safetensors")["classifier.weight"]
        after = load_file(job.ctx.paths.model / "model.safetensors")["classifier.weight"]
        assert (before - after).abs().max() > 0.01  # two steps of 1e-3 do not move it so far

    @pytest.mark.parametrize("kind", [LlamaForSequenceClassification, LlamaModel])
    def test_a_base_without_lm_head_writes_nothing(self, tmp_path, llama, kind):
        base = copy_of(llama, tmp_path)
        kind.from_pretrained(llama).save_pretrained(base)
        error = refusal(tmp_path, base)
        assert error.code == "no_lm_head"
        assert kind.__name__ in error.message
        assert "lm_head.weight" in error.message

    def test_tied_embeddings_need_none(self, tmp_path, llama):
        base = copy_of(llama, tmp_path)
        config = json.loads((base / "config.json").read_text())
        (base / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": True}))
        weights = load_file(base / "model.safetensors")
        del weights["lm_head.weight"]
        save_file(weights, base / "model.safetensors", {"format": "pt"})
        assert checked(tmp_path, base, QA).model.name == str(base)


class TestTokens:
    def test_a_token_beyond_the_embedding_is_told_with_its_text(self, tmp_path, llama):
        base = copy_of(llama, tmp_path)
        tokenizer = AutoTokenizer.from_pretrained(base)
        tokenizer.add_tokens(["extra"])
        tokenizer.save_pretrained(base)
        rows = [*QA, {"question": "w1 extra", "answer": "w2"}]
        error = refusal(tmp_path, base, list(reversed(rows)))
        assert error.code == "token_beyond_embedding"
        assert "'extra'" in error.message
        assert f"only {VOCAB} rows" in error.message
        # Gemma 3 has such a token: what no row holds does no harm.
        assert checked(tmp_path, base, QA).model.vocab_size == VOCAB


class TestAdapters:
    def test_beside_a_model(self, tmp_path, llama):
        base = copy_of(llama, tmp_path)
        (base / "adapter_config.json").write_text("{}")
        assert refusal(tmp_path, base).code == "adapter_beside_model"

    @pytest.mark.parametrize("with_config", [True, False])
    def test_alone(self, tmp_path, llama, with_config):
        base = copy_of(llama, tmp_path)
        (base / "model.safetensors").unlink()
        if not with_config:
            (base / "config.json").unlink()
        save_file({"w": torch.zeros(1)}, base / "adapter_model.safetensors")
        for name, shown in (("org/base", True), ("/home/she/base", False)):
            config = {"base_model_name_or_path": name}
            (base / "adapter_config.json").write_text(json.dumps(config))
            error = refusal(tmp_path, base)
            assert error.code == "adapter_only"
            assert (name in error.hint) is shown


class TestTemplates:
    @pytest.fixture
    def base(self, tmp_path, llama):
        base = copy_of(llama, tmp_path)
        tokenizer = AutoTokenizer.from_pretrained(base)
        template = CHAT_TEMPLATE.replace("<|im_end|>", " </s> ").replace("<|im_start|>", "<s> ")
        tokenizer.chat_template = {"tools": template, "short": template}
        tokenizer.save_pretrained(base)
        return base

    def test_several_without_a_default_are_named(self, tmp_path, base):
        error = refusal(tmp_path, base)
        assert error.code == "several_templates"
        assert "short, tools" in error.message
        assert error.hint == "--set data.chat_template=short"
        assert checked(tmp_path, base, QA, data={"chat_template": "short"})

    @pytest.mark.parametrize(
        ("given", "hint"),
        [
            ("chatml", "--set data.chat_template=short"),
            ("./x.jinja", '--set data.chat_template="$(cat ./x.jinja)"'),
        ],
    )
    def test_what_is_no_template(self, tmp_path, base, given, hint):
        error = refusal(tmp_path, base, data={"chat_template": given})
        assert error.code == "chat_template"
        assert repr(given) in error.message
        assert hint in error.hint

    def test_a_template_with_a_mistake(self, tmp_path, base):
        error = refusal(tmp_path, base, data={"chat_template": "{% for m in messages %}{{ m }}"})
        assert error.code == "chat_template"
        assert "line 1" in error.message

    def test_the_named_one_is_trained_and_saved(self, tmp_path, base):
        job = tiny_job(
            tmp_path, base, "sft", train={"max_steps": 1}, data={"chat_template": "tools"}
        )
        train.run(job.ctx)
        saved = AutoTokenizer.from_pretrained(job.ctx.paths.model).chat_template
        assert saved.startswith("{{ bos_token }}{% for m in messages %}")

    def test_one_in_chat_template_json_is_used(self, tmp_path, llama):
        base = copy_of(llama, tmp_path)
        (base / "chat_template.json").write_text(
            json.dumps({"chat_template": "{% for m in messages %}{{ m.content }}</s>{% endfor %}"})
        )
        assert checked(tmp_path, base, QA).model.has_chat_template
        assert any("in format chat" in d["message"] for _, d in checked.events if "message" in d)
        assert "m.content" in load_tokenizer(base).chat_template

    def test_additional_ones_alone_have_to_be_named(self, tmp_path, llama):
        base = copy_of(llama, tmp_path)
        (base / "additional_chat_templates").mkdir()
        template = "{% for m in messages %}{{ m.content }}</s>{% endfor %}"
        (base / "additional_chat_templates" / "short.jinja").write_text(template)
        error = refusal(tmp_path, base, data={"format": "chat"})
        assert error.code == "several_templates"
        assert error.hint == "--set data.chat_template=short"

    def test_no_end_of_turn(self, tmp_path, llama):
        template = "{% for m in messages %}{{ m.content }} {% endfor %}"
        error = refusal(tmp_path, llama, data={"chat_template": template})
        assert error.code == "no_eos"


def test_what_cannot_be_built_is_told_before_the_queue(tmp_path, llama):
    base = copy_of(llama, tmp_path)
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(config | {"num_attention_heads": 5}))
    assert refusal(tmp_path, base).code == "broken_model"


def test_layers_that_the_model_does_not_have(tmp_path, llama):
    error = refusal(tmp_path, llama, train={"lora": {"target_modules": ["query"]}})
    assert error.code == "lora_mismatch"
    assert "query" in error.message


def test_weights_that_are_not_in_the_files_are_never_drawn_at_random(tmp_path: Path) -> None:
    make_base(tmp_path / "llama", "llama")
    whole = load_file(tmp_path / "llama" / "model.safetensors")
    lost = next(name for name in whole if "layers." in name and "mlp" in name)
    kept = {name: tensor for name, tensor in whole.items() if name != lost}
    save_file(kept, tmp_path / "llama" / "model.safetensors", {"format": "pt"})
    with pytest.raises(Refused, match=lost) as caught:
        load_base(tmp_path / "llama", Task.SFT, [])
    assert caught.value.code == "broken_model"
    with pytest.raises(Refused, match=r"mlp"):
        load_base(tmp_path / "llama", Task.CLASSIFICATION, ["a", "b"])


def test_a_padding_token_beyond_the_embedding_is_not_saved(tmp_path: Path) -> None:
    base = make_base(tmp_path / "llama", "llama")
    job = tiny_job(tmp_path / "storage", base, "sft", train={"method": "full", "max_steps": 2})
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    tokenizer.save_pretrained(base)
    train.run(job.ctx)
    saved = json.loads((job.ctx.paths.model / "config.json").read_text())
    assert saved["pad_token_id"] is None or saved["pad_token_id"] < saved["vocab_size"]
