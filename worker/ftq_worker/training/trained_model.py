"""The trained model on disk: in its base's precision, with its stops, without any local path."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ftq_shared.sources import Place
from ftq_worker.job.reports import ModelFacts
from ftq_worker.training.base_model import pad_id, saved_dtype
from ftq_worker.training.end_of_turn import stop_at

ADAPTER_CONFIG = "adapter_config.json"


def save_model(
    model: torch.nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    facts: ModelFacts,
    base: Path,
    ends: list[int],
    folder: Path,
) -> None:
    """Write model (or adapter), tokenizer and generation settings to a new `folder`.

    `ends` are the tokens that training taught to stop at. The model is left in the precision of
    `base`. The model's own save is used, not the trainer's, which adds its arguments with local
    paths.
    """
    shutil.rmtree(folder, ignore_errors=True)
    inner = plain_model(model)
    stop_at(ends, inner, tokenizer)
    to_precision(model, saved_dtype(base))
    _pad_within(inner, tokenizer)
    saved: Any = model
    saved.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    if inner is not model and inner.can_generate():  # of an adapter, peft writes none
        inner.generation_config.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)  # peft's card names the local base folder
    name_base(folder, facts)


def _pad_within(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Let the settings name a padding token that the model has weights for.

    The trainer copies the tokenizer's, which may lie beyond them: such a model cannot be loaded.
    """
    every: list[Any] = [model.config.get_text_config(), getattr(model, "generation_config", None)]
    for settings in every:
        known = getattr(settings, "pad_token_id", None)
        if isinstance(known, int) and known >= model.get_input_embeddings().weight.shape[0]:
            settings.pad_token_id = pad_id(tokenizer, model)


def plain_model(model: Any) -> PreTrainedModel:
    """Return the model itself, or the one that an adapter sits on."""
    inner: PreTrainedModel = model.get_base_model() if hasattr(model, "get_base_model") else model
    return inner


def to_precision(model: torch.nn.Module, dtype: torch.dtype) -> None:
    """Convert the weights that are saved, in place; what the architecture keeps in float32 stays.

    Of an adapter only its own weights are converted: the base is not saved, and may be quantized.
    """
    inner: Any = plain_model(model)
    kept = set(inner._keep_in_fp32_modules_strict or ())
    if dtype is torch.float16:  # whose range is too small for some more of them
        kept |= set(inner._keep_in_fp32_modules or ())
    for name, weights in model.named_parameters():
        saved = inner is model or weights.requires_grad
        if saved and weights.is_floating_point() and not kept & set(name.split(".")):
            weights.data = weights.data.to(dtype)


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
