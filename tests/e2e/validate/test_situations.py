"""Datasets as people bring them, through validate and prepare: used, told, or refused in words."""

import json
import re
import shutil
from pathlib import Path

import pytest
from datasets import load_from_disk
from tests.e2e.validate.conftest import DECODER, ENCODER, Run, safetensors, shapes_of, write_files
from tests.e2e.validate.situations import EVERY
from tests.e2e.validate.situations.base import CHAT, ROWS, Situation, lines, numbered
from tests.e2e.validate.test_hostile_models import FOLDERS
from tests.support.data_jobs import make_tokenizer
from transformers import AutoTokenizer

from ftq_shared.errors import Refused
from ftq_shared.events import EventType
from ftq_shared.spec_input import apply_sets, merge, parse_spec
from ftq_worker.phases import prepare, validate


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders with a decoder and an encoder: a real tokenizer, weights that nobody loads."""
    root = tmp_path_factory.mktemp("models")
    for name, config in (("decoder", DECODER), ("encoder", ENCODER)):
        tokenizer = make_tokenizer(chat=CHAT)
        tokenizer.pad_token = "</s>"
        tokenizer.save_pretrained(root / name)
        size = len(tokenizer)
        whole = config | {"vocab_size": size, "max_position_embeddings": 512, "eos_token_id": 1}
        files = {
            "config.json": json.dumps(whole),
            "model.safetensors": safetensors(shapes_of(whole)),
        }
        write_files(root / name, files)
    return root


def through(run: Run) -> tuple[list[str], list[str]]:
    """Run validate and prepare; return the texts that the model sees, and those that it learns."""
    validate.run(run.ctx)
    prepare.run(run.ctx)
    tokenizer = AutoTokenizer.from_pretrained(run.ctx.spec.model.removeprefix("worker:"))
    seen, learned = [], []
    for name in ("train", "validation", "golden"):
        for row in load_from_disk(str(run.ctx.paths.prepared / name)):
            seen.append(tokenizer.decode(row["input_ids"]))
            labels = [token for token in row.get("labels", []) if token >= 0]
            learned.append(tokenizer.decode(labels))
    return seen, learned


def with_template(model: Path, folder: Path, template: str | dict[str, str]) -> Path:
    """Return a copy of a model with another chat template, or several by name."""
    shutil.copytree(model, folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("at", EVERY, ids=lambda at: at.name)
def test_it_is_used_or_told_or_refused(tmp_path: Path, models: Path, at: Situation) -> None:
    rows = at.rows if isinstance(at.rows, list) else [numbered(at.rows, n) for n in range(ROWS)]
    files = at.files or {"rows.jsonl": lines(*map(json.dumps, rows))}
    folder = write_files(tmp_path / "data", files)
    model = models / ("encoder" if at.encoder else "decoder")
    if at.chat:
        model = with_template(model, tmp_path / "model", at.chat)
    raw = merge({"model": f"worker:{model}", "dataset": f"worker:{folder}"}, at.spec)
    run = Run(tmp_path / "storage", None, raw, "")
    run.open_to(tmp_path.parent, tmp_path, models)
    if at.code:
        with pytest.raises(Refused) as caught:
            through(run)
        error = caught.value
        assert error.code == at.code, (error.message, error.hint)
        assert at.words in f"{error.message} {error.hint}"
        assert error.hint
        # What is to be typed is a spec.
        sets = re.findall(r"--set ([a-z_.]+=[\w.-]+)", error.hint)
        assert all(parse_spec(apply_sets(raw, [one])) for one in sets)
        return
    seen, learned = map("\n".join, through(run))
    assert all(text in seen for text in at.used), seen[:400]
    assert all(text in learned for text in at.trained), learned[:400]
    assert not any(text in seen for text in at.unseen)
    assert not any(text in learned for text in at.unlearned)
    told = [data for kind in (EventType.WARNING, EventType.CHECK, EventType.CLEANING)
            for data in run.of(kind)]  # fmt: skip
    assert at.told in str(told)


def test_there_are_enough_bad_ones() -> None:
    """What is promised for the table; one that goes is noticed."""
    assert len({at.name for at in EVERY}) == len(EVERY)
    assert len(EVERY) >= 167
    refused = [at.name for at in EVERY if at.code] + list(FOLDERS)
    assert len(refused) >= 60


def test_what_the_template_leaves_out_is_refused_before_the_queue(
    tmp_path: Path, models: Path
) -> None:
    (at,) = [at for at in EVERY if at.name == "calls that the template leaves out"]
    rows = lines(*(json.dumps(numbered(at.rows, n)) for n in range(ROWS)))
    folder = write_files(tmp_path / "data", {"rows.jsonl": rows})
    raw = merge({"model": f"worker:{models / 'decoder'}", "dataset": f"worker:{folder}"}, at.spec)
    run = Run(tmp_path / "storage", None, raw, "")
    run.open_to(tmp_path.parent, models)
    with pytest.raises(Refused, match="tool_calls"):
        validate.run(run.ctx)
