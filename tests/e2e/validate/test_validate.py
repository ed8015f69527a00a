"""The validate phase against a real Hub server: what passes, and every way to be refused."""

import json
import os
from math import prod

import pytest
from tests.e2e.validate.conftest import (
    DECODER,
    ENCODER,
    ROWS,
    jsonl,
    model_files,
    refused,
    safetensors,
    shapes_of,
    write_files,
)

from ftq_shared.errors import HubUnreachable
from ftq_shared.events import EventType
from ftq_shared.paths import read_json
from ftq_shared.spec import Task
from ftq_shared.states import Phase

# --- what passes


def test_a_good_job_is_pinned_and_described(start, hub):
    run = start({"publish": {"repo": "qwen-rows"}}, token="hf_me")
    found = run.go()
    count = sum(map(prod, shapes_of(DECODER).values()))
    assert found.model.revision == hub.store.files("model", "org/base").commit("main").sha
    assert (found.model.kind, found.model.parameters) == ("decoder", count)
    assert found.model.license == "apache-2.0"
    assert found.dataset.revision == hub.store.files("dataset", "org/rows").commit("main").sha
    assert (found.task, found.shape) == (Task.SFT, "question/answer")
    assert (found.split, found.validation_split, found.test_split) == ("train", None, "test")
    assert found.columns.prompt == "question"
    assert run.failed == []
    assert set(run.checks) >= {"model", "weights", "columns", "target repo", "disk", "task fit"}
    assert read_json(run.ctx.paths.resolved)["task"]["value"] == "sft"
    (dataset,) = run.of(EventType.DATASET)
    assert dataset["columns"] == ["question", "answer"]


def test_a_named_revision_is_pinned_to_its_commit(start, hub):
    first = hub.store.files("model", "org/base").commit("main").sha
    hub.add("model", "org/base", {"note.txt": "newer"})
    assert start({"model": f"org/base@{first[:40]}"}).go().model.revision == first
    assert start().go().model.revision != first


def test_the_clients_own_files_and_the_workers(start, tmp_path):
    run = start({"model": "./base", "dataset": "./rows"})
    inputs = run.ctx.paths.inputs
    write_files(inputs / "model" / "base", model_files(ENCODER))
    rows = [{"text": "hi", "label": "a"}, {"text": "ho", "label": "b"}]
    write_files(inputs / "dataset", {"train.jsonl": jsonl(rows), "valid.jsonl": jsonl(rows)})
    found = run.go()
    assert found.model.name == str(inputs / "model" / "base")
    assert found.task is Task.CLASSIFICATION
    assert found.validation_split == "validation"
    assert found.dataset.files == [
        str(inputs / "dataset" / name) for name in ("train.jsonl", "valid.jsonl")
    ]
    folder = write_files(tmp_path / "there", {"a.csv": "prompt,completion\n1,2\n"})
    found = start({"dataset": f"worker:{folder}/*.csv"}).go()
    assert found.shape == "prompt/completion"
    assert found.dataset.private


# `datasets` leaves a file that was not read to its end to the garbage collector.


def test_an_encoder_classifies_and_a_bin_file_is_warned_about(start, hub):
    hub.add(
        "model",
        "org/bin",
        model_files(ENCODER, model__safetensors=None) | {"pytorch_model.bin": "x" * 5000},
    )
    hub.add("dataset", "org/labels", {"train.csv": "text,label\nhi,a\nho,b\n"})
    run = start({"model": "org/bin", "dataset": "org/labels"})
    assert run.go().model.kind == "encoder"
    assert any("pickle" in data["message"] for data in run.of(EventType.WARNING))


def test_sharded_weights_are_counted(start, hub):
    held = {1: shapes_of(DECODER), 2: {}}
    held[2]["lm_head.weight"] = held[1].pop("lm_head.weight")
    shards = {f"model-{n}-of-2.safetensors": safetensors(held[n]) for n in (1, 2)}
    places = {name: f"model-{n}-of-2.safetensors" for n in (1, 2) for name in held[n]}
    index = json.dumps({"weight_map": places})
    files = model_files(model__safetensors=None) | shards | {"model.safetensors.index.json": index}
    hub.add("model", "org/sharded", files)
    count = sum(prod(shape) for shapes in held.values() for shape in shapes.values())
    assert start({"model": "org/sharded"}).go().model.parameters == count
    del files["model-2-of-2.safetensors"]
    hub.add("model", "org/torn", files)
    assert refused(start({"model": "org/torn"})).code == "weights_incomplete"


def test_weights_that_are_cut_off_are_refused_though_the_hub_counts_them(start, hub):
    whole = model_files()["model.safetensors"]
    hub.add("model", "org/cut", model_files(model__safetensors=whole[:-4]))
    error = refused(start({"model": "org/cut"}))
    assert error.code == "broken_weights"
    assert "model.safetensors" in error.message


# --- unknown names


@pytest.mark.parametrize(
    ("raw", "code", "near"),
    [
        ({"model": "org/bse"}, "no_such_model", "org/base"),
        ({"model": "base"}, "no_such_model", "org/base"),
        ({"dataset": "orgg/rows"}, "no_such_dataset", "org/rows"),
        ({"model": "org/base@v9"}, "no_such_revision", "main"),
    ],
)
def test_a_wrong_name_is_answered_with_the_nearest(start, raw, code, near):
    error = refused(start(raw))
    assert error.code == code
    assert near in error.where["nearest"]
    assert near in error.hint


def test_all_failures_are_known_at_once(start):
    run = start({"model": "org/nowhere", "dataset": "org/nothing", "publish": {"repo": "org/x"}})
    error = refused(run)
    assert run.failed == ["model", "dataset", "target repo"]
    assert "2 more" in error.message
    assert error.code == "no_such_model"


# --- access


def test_gated_and_private_say_where_to_ask_and_how_to_give_a_token(start, hub):
    hub.add("model", "org/gated", model_files(), gated="manual")
    error = refused(start({"model": "org/gated"}))
    assert error.code == "gated"
    assert f"{hub.url}/org/gated" in error.hint
    assert "HF_TOKEN" in error.hint
    error = refused(start({"model": "org/gated"}, token="hf_other"))
    assert "was not let in" in error.message
    hub.store.grant_access("org/gated", "other")
    assert start({"model": "org/gated"}, token="hf_other").go().model.gated

    hub.add("dataset", "me/secret", {"train.jsonl": jsonl(ROWS)}, private=True)
    error = refused(start({"dataset": "me/secret"}))
    assert error.code == "no_such_dataset"
    assert "private" in error.hint
    assert "--token-stdin" in error.hint
    assert start({"dataset": "me/secret"}, token="hf_me").go().dataset.private


def test_a_token_that_the_hub_does_not_know(start):
    error = refused(start({"publish": {"repo": "me/x"}}, token="hf_unknown"))
    assert error.code in ("bad_token", "access")


# --- the target


@pytest.mark.parametrize(
    ("repo", "token", "code", "words"),
    [
        ("me/new", "", "no_token", "needs one that may write"),
        ("me/new", "hf_reader", "no_write_access", "role read"),
        ("org/new", "hf_me", "no_write_access", "no member of org"),
    ],
)
def test_a_target_that_cannot_be_written(start, repo, token, code, words):
    error = refused(start({"publish": {"repo": repo}}, token=token))
    assert error.code == code
    assert words in error.message


def test_a_target_that_holds_something_else(start, hub):
    hub.add("model", "me/taken", {"weights.bin": "mine"}, title="my own work")
    run = start({"publish": {"repo": "me/taken"}}, token="hf_me")
    error = refused(run)
    assert error.code == "target_taken"
    assert "publish.overwrite=true" in error.hint
    assert run.failed == ["target repo"]
    start({"publish": {"repo": "me/taken", "overwrite": True}}, token="hf_me").go()


def test_targets_that_are_free(start, hub):
    hub.add("model", "me/ours", {"weights.bin": "x"}, title="ftq ft-bbbbbbbb")
    hub.add("model", "me/ours", {"README.md": "better"}, title="Update README.md")
    hub.store.create_repo("model", "team/empty")
    for repo in ("me/ours", "team/empty", "team/new", "new"):
        run = start({"publish": {"repo": repo}}, token="hf_me")
        run.go()
        assert run.checks["target repo"]["ok"]


# --- models that cannot be used


@pytest.mark.parametrize(
    ("files", "code", "words"),
    [
        (model_files(config__json=None), "no_config", "config.json"),
        (
            {"adapter_config.json": '{"base_model_name_or_path": "org/base"}'},
            "adapter_only",
            "org/base",
        ),
        ({"model.Q4.gguf": "x"}, "gguf_only", "original model"),
        (model_files(config__json="{"), "broken_file", "not valid JSON"),
        (
            model_files(DECODER | {"model_type": "x", "auto_map": {"A": "b"}}),
            "remote_code",
            "never",
        ),
        (model_files(DECODER | {"model_type": "x"}), "unknown_architecture", "transformers"),
        (
            model_files(DECODER | {"quantization_config": {"quant_method": "gptq"}}),
            "quantized",
            "gptq",
        ),
        (model_files(DECODER | {"vision_config": {}}), "not_text", "vision_config"),
        (
            model_files(DECODER | {"model_type": "t5", "is_encoder_decoder": True}),
            "seq2seq",
            "encoder-decoder",
        ),
        (model_files(DECODER | {"hidden_size": None}), "broken_config", "hidden_size"),
        (model_files(model__safetensors=None), "no_weights", "safetensors"),
        (
            model_files(model__safetensors="version https://git-lfs 1"),
            "lfs_pointer",
            "git lfs pull",
        ),
        (model_files(model__safetensors=b"\xff" * 64), "broken_weights", "cut off"),
        (model_files(tokenizer__json=None), "no_tokenizer", "tokenizer"),
    ],
)
def test_models_that_cannot_be_trained(start, tmp_path, files, code, words):
    folder = write_files(tmp_path / "model", {"x.txt": "x"} | files)
    run = start({"model": f"worker:{folder}"})
    error = refused(run)
    assert error.code == code
    assert words in error.message + error.hint
    assert run.checks["columns"]["ok"]  # the dataset is checked all the same


def test_a_hub_model_of_another_kind(start, hub):
    hub.add("model", "org/code", model_files(DECODER | {"model_type": "x", "auto_map": {"A": "b"}}))
    assert refused(start({"model": "org/code"})).code == "remote_code"


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        ({"model": "org/bert"}, "task_mismatch"),
        ({"train": {"class_weights": "balanced"}}, "task_mismatch"),
        ({"train": {"max_length": 4096}}, "max_length"),
        ({"data": {"format": "chat"}}, "no_chat_template"),
    ],
)
def test_what_does_not_go_together(start, raw, code):
    assert refused(start(raw)).code == code


def test_fields_that_the_trainer_does_not_have_are_told_together(start):
    args = {"weight_decy": 0.1, "max_grad_nrm": 1.0, "optim": "sgd"}
    run = start({"train": {"args": args}})
    error = refused(run)
    assert error.code == "bad_trainer_args"
    assert "train.args.weight_decy: the trainer has no such field; nearest: weight_decay" in (
        error.message
    )
    assert "train.args.max_grad_nrm: the trainer has no such field" in error.message
    assert "optim" not in error.message
    assert run.checks["trainer args"]["ok"] is False


def test_a_field_of_the_trainer_may_be_set(start):
    run = start({"train": {"args": {"weight_decay": 0.1}}})
    run.go()
    assert run.checks["trainer args"]["ok"]


def test_a_chat_template_is_found(start, hub):
    end = "{% if m.role == 'assistant' %}</s>{% endif %}"
    template = "{% for m in messages %}{{ m.content }}" + end + "{% endfor %}"
    config = json.loads(model_files()["tokenizer_config.json"]) | {"chat_template": template}
    hub.add("model", "org/chat", model_files(tokenizer_config__json=json.dumps(config)))
    hub.add("model", "org/chat2", model_files(chat_template__jinja=template))
    for repo in ("org/chat", "org/chat2"):
        assert start({"model": repo, "data": {"format": "chat"}}).go().model.has_chat_template


# --- datasets that cannot be used


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/etc/passwd")])
@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json"])
def test_a_model_folder_with_what_is_no_file(start, tmp_path, make, name):
    folder = tmp_path / "m"
    write_files(folder, model_files())
    (folder / name).unlink(missing_ok=True)
    make(folder / name)
    error = refused(start({"model": f"worker:{folder}"}))
    assert error.code == "strange_file"
    assert name in error.message


def test_the_clients_own_folder_leads_nowhere_else(start):
    """A client that shares the storage writes links there with its own hands."""
    run = start({"dataset": "./rows", "model": "./m"})
    inputs = run.ctx.paths.inputs
    write_files(inputs / "model", model_files())
    (inputs / "dataset").mkdir(parents=True)
    (inputs / "dataset" / "x.json").symlink_to("/etc/hostname")
    (inputs / "model" / "x.json").symlink_to("/etc/hostname")
    refused(run)
    assert run.failed == ["model", "dataset"]


# --- disk, the Hub's bad days, being stopped


def test_a_full_disk_is_said_before_anything_is_downloaded(start, monkeypatch):
    import shutil

    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=100))
    run = start()
    assert refused(run).code == "disk_full"
    assert run.failed == ["disk"]


def test_a_slow_hub_is_tried_again_and_shown(start, hub):
    hub.fault(path="/api/models/org/base", status=429, retry_after_s=1)
    hub.fault(path="/api/datasets/org/rows", status=503)
    run = start()
    run.go()
    warnings = [data["message"] for data in run.of(EventType.WARNING)]
    assert any("asks to slow down (429)" in text for text in warnings)
    assert any("is in trouble (503)" in text for text in warnings)


def test_a_hub_that_is_away_ends_with_exit_code_7(start, monkeypatch):
    from ftq_shared.hub import Retry
    from ftq_worker.job import hub as phase_hub

    monkeypatch.setattr(phase_hub, "Retry", lambda **_: Retry(total_s=1.2, first_wait_s=0.2))
    run = start()
    object.__setattr__(run.ctx, "endpoint", "http://127.0.0.1:9")
    with pytest.raises(HubUnreachable) as caught:
        run.go()
    assert caught.value.exit_code == 7
    assert "cannot be reached" in caught.value.message
    assert run.of(EventType.WARNING)


def test_a_cancelled_phase_stops(start):
    from ftq_shared.errors import JobCancelled
    from ftq_worker.job.context import StopReason

    run = start()
    run.ctx.control.stop(StopReason.CANCEL)
    with pytest.raises(JobCancelled):
        run.go()
    assert run.ctx.phase is Phase.VALIDATE
