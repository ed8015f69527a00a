"""Datasets and tokenizers from a Hub, by endpoint and token alone (nothing in the environment)."""

import gzip
import json
import lzma
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from datasets import ClassLabel, Dataset, Features, Value
from tests.support.data_jobs import Job, make_context, make_spec, make_tokenizer, qa

from ftq_hub import HubApp, HubStore, running
from ftq_shared.errors import Refused
from ftq_shared.events import EventType
from ftq_shared.sources import Place
from ftq_shared.spec import Columns
from ftq_worker.job.reports import DatasetFacts, ModelFacts, Validated

BARS = """---
configs:
- config_name: bars
  data_files: table.csv
  sep: "|"
---
"""
CARD = """---
configs:
- config_name: plain
  data_files: plain/*.jsonl
- config_name: labelled
  data_files:
  - split: train
    path: labelled/train.parquet
  - split: test
    path: labelled/test.parquet
- config_name: numbered
  data_files: numbered.jsonl
dataset_info:
- config_name: numbered
  features:
  - name: text
    dtype: string
  - name: label
    dtype:
      class_label:
        names:
          '0': zebra
          '1': ape
---
"""


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, HubStore]]:
    store = HubStore(tmp_path_factory.mktemp("hub"))
    store.add_token("hf_me", "me", "write", ())
    folder = tmp_path_factory.mktemp("files")
    make_tokenizer().save_pretrained(folder / "model")
    (folder / "model" / "config.json").write_text('{"model_type": "llama"}')
    store.create_repo("model", "me/base")
    store.commit_folder("model", "me/base", folder / "model")
    _write_dataset(folder / "data")
    store.create_repo("dataset", "me/rows", private=True)
    store.commit_folder("dataset", "me/rows", folder / "data")
    (folder / "bars").mkdir()
    (folder / "bars" / "README.md").write_text(BARS)
    rows = "".join(f"{row['question']}|{row['answer']}\n" for row in qa(40))
    (folder / "bars" / "table.csv").write_text("question|answer\n" + rows)
    store.create_repo("dataset", "me/bars")
    store.commit_folder("dataset", "me/bars", folder / "bars")
    _write_packed(folder / "packed")
    store.create_repo("dataset", "me/packed")
    store.commit_folder("dataset", "me/packed", folder / "packed")
    with running(HubApp(store)) as url:
        yield url, store


def _write_packed(folder: Path) -> None:
    folder.mkdir()
    lines = [json.dumps(row) + "\n" for row in qa(80)]
    (folder / "a.jsonl.gz").write_bytes(gzip.compress("".join(lines[:20]).encode()))
    (folder / "b.json.xz").write_bytes(lzma.compress(f"[{','.join(lines[20:40])}]".encode()))
    (folder / "c.ndjson").write_text("".join(lines[40:60]), encoding="utf-16")
    Dataset.from_list(qa(80)[60:]).save_to_disk(folder / "saved")


def _write_dataset(folder: Path) -> None:
    (folder / "plain").mkdir(parents=True)
    (folder / "labelled").mkdir()
    (folder / "README.md").write_text(CARD)
    lines = [json.dumps(row) + "\n" for row in qa(60)]
    (folder / "plain" / "a.jsonl").write_text("".join(lines[:30]) + "{\n")
    (folder / "plain" / "b.jsonl").write_text("".join(lines[30:]))
    (folder / "numbered.jsonl").write_text(
        "".join(f'{{"text": "t {i}", "label": {i % 2}}}\n' for i in range(40))
    )
    features = Features({"text": Value("string"), "label": ClassLabel(names=["z", "a", "unseen"])})
    for name, count in (("train", 50), ("test", 20)):
        values = {
            "text": [f"{name} {i}" for i in range(count)],
            "label": [i % 2 for i in range(count)],
        }
        Dataset.from_dict(values, features).to_parquet(folder / "labelled" / f"{name}.parquet")


@pytest.fixture
def hub_job(tmp_path: Path, hub: tuple[str, HubStore], monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("datasets.config.HF_ENDPOINT", "http://127.0.0.1:9")

    def make(
        config: str, columns: Columns, shape: str, task: str, repo: str = "me/rows", **fields: Any
    ) -> Job:
        spec = make_spec()
        ctx = make_context(
            tmp_path / "storage", spec, endpoint=hub[0], secrets={"HF_TOKEN": "hf_me"}
        )
        model = ModelFacts(
            place=Place.HUB,
            name="me/base",
            architecture="LlamaForCausalLM",
            model_type="llama",
            kind="decoder",
            hidden_size=8,
            layers=1,
            vocab_size=600,
        )
        dataset = DatasetFacts(
            place=Place.HUB,
            name=repo,
            config=config,
            splits={"train": None},
            columns=[c for _, c in columns if c],
        )
        return Job(
            ctx,
            Validated(
                model=model,
                dataset=dataset,
                task=task,
                shape=shape,
                columns=columns,
                split="train",
                **fields,
            ),
        )

    return make


QA = Columns(prompt="question", completion="answer")


def test_jsonl_of_a_private_repo_is_read_line_by_line(hub_job: Any) -> None:
    job = hub_job("plain", QA, "question/answer", "sft")
    report = job.run()
    assert sum(report.rows.values()) == 60
    (broken,) = job.rule("unreadable")["examples"]
    assert (broken["file"], broken["line"]) == ("a.jsonl", 31)
    tasks = {p["task"]: p for p in job.sent(EventType.PROGRESS)}
    loaded = tasks["download me/rows train"]
    assert loaded["done"] == loaded["total"] > 0
    assert loaded["unit"] == "bytes"


def test_packed_files_and_saved_datasets_are_read_together(hub_job: Any) -> None:
    job = hub_job("default", QA, "question/answer", "sft", repo="me/packed")
    assert sum(job.run().rows.values()) == 80
    assert job.dropped().keys() <= {"held_out"}


def test_a_config_with_reader_options_goes_through_datasets(hub_job: Any) -> None:
    job = hub_job("bars", QA, "question/answer", "sft", repo="me/bars")
    assert sum(job.run().rows.values()) == 40


def test_label_names_and_their_order_come_from_the_dataset(hub_job: Any) -> None:
    columns = Columns(text="text", label="label")
    job = hub_job("labelled", columns, "text/label", "classification", test_split="test")
    report = job.run()
    assert report.labels == ["z", "a", "unseen"]
    assert report.rows["golden"] == 20
    assert set(job.load("train")["label"]) == {0, 1}


def test_label_names_may_stand_in_the_card(hub_job: Any) -> None:
    columns = Columns(text="text", label="label")
    report = hub_job("numbered", columns, "text/label", "classification").run()
    assert report.labels == ["zebra", "ape"]


def test_a_config_that_is_not_there_names_the_others(hub_job: Any) -> None:
    with pytest.raises(Refused) as caught:
        hub_job("plane", QA, "question/answer", "sft").run()
    assert caught.value.code == "no_such_config"
    assert caught.value.where["nearest"] == [
        "me/rows:plain",
        "me/rows:labelled",
        "me/rows:numbered",
    ]
