"""What rows end with is what the saved model stops at, whatever the base's eos is."""

import json
import shutil

import pytest
import torch
from datasets import Dataset, load_from_disk
from tests.support.tiny_jobs import EOS, TinyJob, make_base, tiny_job
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from ftq_shared.errors import FtqError
from ftq_shared.events import EventType
from ftq_shared.states import Phase
from ftq_worker.phases import publish, train
from ftq_worker.training.end_of_turn import stop_at, trained_ends

TURN = 3  # <s>: a token that this base's configuration does not stop at
LEARNS = {"epochs": 12, "learning_rate": 1e-2}


def ending_with(job: TinyJob, token: int) -> TinyJob:
    """Let the rows of a job end with another token than the base's eos."""

    def changed(row):
        return {
            name: [token if value == EOS else value for value in row[name]]
            for name in ("input_ids", "labels")
        }

    for name in ("train", "validation", "golden"):
        folder = job.ctx.paths.prepared / name
        rows = load_from_disk(str(folder)).map(changed, keep_in_memory=True)
        shutil.rmtree(folder)
        rows.save_to_disk(str(folder))
    return job


def published(job: TinyJob, **options) -> TinyJob:
    """Run publish, which only verifies; return the job."""
    spec = job.ctx.spec
    options = {"publish": spec.publish.model_copy(update=options)}
    job = job.again(phase=Phase.PUBLISH, spec=spec.model_copy(update=options))
    publish.run(job.ctx)
    return job


def answers(job: TinyJob) -> dict:
    return {v["name"]: v for v in job.events.of(EventType.VERIFICATION)}["generates"]


@pytest.mark.parametrize("method", ["full", "lora"])
def test_the_model_stops_at_the_end_of_turn(tmp_path, llama, method):
    job = ending_with(tiny_job(tmp_path, llama, "sft", train=LEARNS | {"method": method}), TURN)
    train.run(job.ctx)
    saved = GenerationConfig.from_pretrained(job.ctx.paths.model)
    assert saved.eos_token_id == [TURN, EOS]
    assert AutoTokenizer.from_pretrained(job.ctx.paths.model).eos_token == "<s>"
    said = answers(published(job))
    assert said["ok"]
    assert "4 of 4 stop" in said["message"]
    if method == "lora":
        job.ctx.paths.verified.unlink()  # so that it is put together anew, in another format
        merged = published(job, format="merged")
        assert answers(merged)["ok"]
        folder = merged.ctx.paths.release
        assert GenerationConfig.from_pretrained(folder).eos_token_id == [TURN, EOS]
        assert json.loads((folder / "tokenizer_config.json").read_text())["eos_token"] == "<s>"


def test_a_folder_that_lost_its_stop_is_not_published(tmp_path, llama):
    job = ending_with(tiny_job(tmp_path, llama, "sft", train=LEARNS | {"method": "full"}), TURN)
    train.run(job.ctx)
    path = job.ctx.paths.model / "generation_config.json"
    path.write_text(json.dumps({"eos_token_id": EOS}))
    with pytest.raises(FtqError) as caught:
        published(job)
    assert caught.value.code == "verification_failed"
    assert "its rows end with '<s>'" in caught.value.message
    assert "stops at '</s>'" in caught.value.message


def test_a_model_that_has_not_learned_to_stop_is_told(tmp_path, llama):
    job = tiny_job(tmp_path, llama, "sft", train={"max_steps": 1, "learning_rate": 1e-6})
    train.run(job.ctx)
    job = published(job)
    assert answers(job)["ok"]
    (warning,) = job.events.of(EventType.WARNING)
    assert "it has not learned to end its answers yet" in warning["message"]


def test_ends_are_the_last_trained_tokens():
    rows = Dataset.from_dict(
        {
            "labels": [
                [-100, 5, 7, -100],
                [5, 8],
                [-100, -100],
                [],
                [9, -100, 7],
            ]
        }
    )
    assert trained_ends(rows) == [7, 8]
    assert trained_ends(rows.select([4, 0])) == [7]
    assert trained_ends(Dataset.from_dict({"label": [1]})) == []


@pytest.fixture
def model(llama):
    return AutoModelForCausalLM.from_pretrained(llama)


def test_the_base_s_own_stops_are_kept(model, llama):
    tokenizer = AutoTokenizer.from_pretrained(llama)
    model.generation_config.eos_token_id = [EOS, 5]
    stop_at([TURN], model, tokenizer)
    assert model.generation_config.eos_token_id == [TURN, EOS, 5]
    assert model.config.eos_token_id == tokenizer.eos_token_id == TURN


def test_a_template_that_writes_the_eos_keeps_it(model, llama):
    tokenizer = AutoTokenizer.from_pretrained(llama)
    tokenizer.chat_template = "{{ eos_token }}{{ messages[0].content }}<s>"
    stop_at([TURN], model, tokenizer)
    assert model.generation_config.eos_token_id == [TURN, EOS]
    assert tokenizer.eos_token == "</s>"


def test_settings_that_the_author_left_at_odds_stop_no_save(tmp_path, model, llama):
    model.generation_config = GenerationConfig.from_dict(
        {"do_sample": False, "temperature": 0.6, "eos_token_id": EOS}
    )
    stop_at([TURN], model, AutoTokenizer.from_pretrained(llama))
    model.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "generation_config.json").read_text())
    assert saved["eos_token_id"] == [TURN, EOS]


@pytest.mark.parametrize("method", ["full", "lora"])
def test_saved_in_the_precision_of_the_base(tmp_path, method):
    base = make_base(tmp_path / "base", "llama")
    AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16).save_pretrained(base)
    job = tiny_job(tmp_path, base, "sft", train={"method": method, "max_steps": 3})
    train.run(job.ctx)
    assert dtypes(job.ctx.paths.model) == {torch.bfloat16}
    merged = published(job, format="merged") if method == "lora" else published(job)
    folder = merged.ctx.paths.release
    assert dtypes(folder) == {torch.bfloat16}
    assert json.loads((folder / "config.json").read_text())["dtype"] == "bfloat16"


def dtypes(folder) -> set[torch.dtype]:
    from safetensors.torch import load_file

    (path,) = folder.glob("*.safetensors")
    return {tensor.dtype for tensor in load_file(path).values()}
