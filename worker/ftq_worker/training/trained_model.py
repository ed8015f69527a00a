"""The trained model on disk, without any local path."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from ftq_shared.sources import Place
from ftq_worker.job.reports import ModelFacts

ADAPTER_CONFIG = "adapter_config.json"


def save_model(
    model: torch.nn.Module, tokenizer: PreTrainedTokenizerBase, base: ModelFacts, folder: Path
) -> None:
    """Write model (or adapter) and tokenizer to a new `folder`.

    The model's own save is used, not the trainer's, which adds its arguments with local paths.
    """
    shutil.rmtree(folder, ignore_errors=True)
    saved: Any = model
    saved.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)  # peft's card names the local base folder
    name_base(folder, base)


def name_base(folder: Path, base: ModelFacts) -> None:
    """Make the saved configurations name the base by its Hub id, or not at all."""
    hub_id = base.name if base.place is Place.HUB else None
    _edit_json(
        folder / ADAPTER_CONFIG,
        {"base_model_name_or_path": hub_id, "revision": base.revision if hub_id else None},
    )
    _edit_json(folder / "config.json", {"_name_or_path": hub_id})


def _edit_json(path: Path, changes: Mapping[str, str | None]) -> None:
    """Set keys of a JSON file; a None removes a key that only documents."""
    if not path.exists():
        return
    data = json.loads(path.read_text())
    for key, value in changes.items():
        if key in data or value is not None:
            data[key] = value
    if data.get("_name_or_path", "") is None:
        del data["_name_or_path"]
    path.write_text(json.dumps(data, indent=2, sort_keys=True) + "\n")
