"""datasets and transformers, unmodified, in processes that know only HF_ENDPOINT."""

import json
from pathlib import Path
from typing import Any

import pytest

CARD = """---
configs:
- config_name: main
  default: true
  data_files:
  - {split: train, path: main/train.jsonl}
  - {split: test, path: main/test.jsonl}
- config_name: socratic
  data_files:
  - {split: train, path: socratic/*.jsonl}
---
# Rows
"""


def jsonl(count: int, word: str) -> str:
    """Return rows of a question and an answer."""
    rows = [{"question": f"{word} {number}?", "answer": str(number)} for number in range(count)]
    return "".join(json.dumps(row) + "\n" for row in rows)


@pytest.fixture(scope="module")
def rows(hub: Any, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A dataset with two configs, private, and its first commit."""
    folder = tmp_path_factory.mktemp("rows")
    for name, text in {
        "README.md": CARD,
        "main/train.jsonl": jsonl(20, "train"),
        "main/test.jsonl": jsonl(5, "test"),
        "socratic/part.jsonl": jsonl(2, "why"),
    }.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    hub.store.create_repo("dataset", "me/by-config", private=True)
    sha: str = hub.store.commit_folder("dataset", "me/by-config", folder, "rows").sha
    (folder / "main" / "train.jsonl").write_text(jsonl(3, "newer"))
    hub.store.commit_folder("dataset", "me/by-config", folder, "fewer rows")
    return sha


@pytest.mark.chaos
def test_datasets_by_config_split_stream_revision_and_push(hub: Any, rows: str) -> None:
    found = hub.python(
        f"""
import json, datasets
name = "me/by-config"
out = {{"configs": datasets.get_dataset_config_names(name),
        "splits": datasets.get_dataset_split_names(name, "main")}}
loaded = datasets.load_dataset(name, "main")
out["sizes"] = {{split: len(rows) for split, rows in loaded.items()}}
out["socratic"] = datasets.load_dataset(name, "socratic", split="train")["question"][:]
stream = datasets.load_dataset(name, "main", split="train", streaming=True)
out["streamed"] = [row["answer"] for row in stream.take(2)]
pinned = datasets.load_dataset(name, "main", split="train", revision="{rows}", streaming=True)
out["pinned"] = len(list(pinned))
try:
    datasets.load_dataset(name)
except ValueError as error:
    out["no_name"] = str(error)
try:
    datasets.load_dataset("me/nothing")
except datasets.exceptions.DatasetNotFoundError as error:
    out["missing"] = "doesn't exist" in str(error)
own = datasets.Dataset.from_dict({{"text": ["a", "b", "c"], "label": [0, 1, 0]}})
own.push_to_hub("me/pushed", private=True)
back = datasets.load_dataset("me/pushed", split="train")
stream = datasets.load_dataset("me/pushed", split="train", streaming=True)
out["pushed"] = [back["label"][:], [row["text"] for row in stream]]
print(json.dumps(out))
"""
    )
    assert found["pushed"] == [[0, 1, 0], ["a", "b", "c"]]
    assert sorted(found["configs"]) == ["main", "socratic"]
    assert sorted(found["splits"]) == ["test", "train"]
    assert found["sizes"] == {"train": 3, "test": 5}
    assert found["socratic"] == ["why 0?", "why 1?"]
    assert found["streamed"] == ["0", "1"]
    assert found["pinned"] == 20
    assert found["missing"]
    assert "no_name" not in found  # one config is marked as the default


def test_a_model_is_pushed_loaded_and_gated(hub: Any) -> None:
    """One process for all of it: importing transformers is what takes the time here."""
    found = hub.python(
        """
import json, torch
from huggingface_hub import HfApi
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM
config = LlamaConfig(vocab_size=64, hidden_size=16, intermediate_size=32, num_hidden_layers=1,
                     num_attention_heads=2, num_key_value_heads=2)
model = LlamaForCausalLM(config)
model.push_to_hub("me/tiny", private=True)
again = AutoModelForCausalLM.from_pretrained("me/tiny")
same = all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters()))
total = HfApi().model_info("me/tiny").safetensors.total
HfApi().update_repo_settings("me/tiny", private=False, gated="manual")
try:
    AutoConfig.from_pretrained("me/tiny", token="hf_other", cache_dir="empty")
except OSError as error:
    refused = str(error)
print(json.dumps([same, total == model.num_parameters(), refused]))
"""
    )
    assert found[:2] == [True, True]
    assert "gated repo" in found[2]


@pytest.mark.chaos
def test_hf_endpoint_by_name_does_not_hang(hub: Any, rows: str, tmp_path: Path) -> None:
    """`datasets` looks for its viewer at a host that does not exist; that must cost nothing."""
    seconds = hub.python(
        """
import json, time, datasets
start = time.monotonic()
datasets.load_dataset("me/by-config", "main", split="test")
print(json.dumps(time.monotonic() - start))
""",
        HF_ENDPOINT=hub.url.replace("127.0.0.1", "localhost"),
    )
    assert seconds < 15
