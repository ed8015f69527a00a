"""A model without weights: built from its configuration on torch's meta device, in milliseconds."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    PreTrainedModel,
)

from ftq_shared.spec import Task
from ftq_worker.job.context import PhaseContext
from ftq_worker.job.foreign import foreign
from ftq_worker.training.adapters import allowed_dropout
from ftq_worker.training.base_model import label_settings
from ftq_worker.training.settings import TrainSettings


def blueprint(folder: Path, task: Task, labels: list[str]) -> PreTrainedModel:
    """Return the model that `load_base` would load, with its shapes and no numbers.

    Raises Refused (`broken_model`) for a configuration that transformers cannot build.
    """
    with (
        foreign(
            "the model cannot be built from its config.json",
            code="broken_model",
            hint="choose another revision of the model, or another model",
        ),
        torch.device("meta"),
    ):
        if task is not Task.CLASSIFICATION:
            config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
            return AutoModelForCausalLM.from_config(config)
        config = AutoConfig.from_pretrained(
            folder, trust_remote_code=False, **label_settings(labels)
        )
        return AutoModelForSequenceClassification.from_config(config)


def rehearse_load(model: PreTrainedModel, shapes: Mapping[str, Sequence[int]]) -> dict[str, Any]:
    """Return what `from_pretrained` will say of loading weights of these names and shapes.

    Raises Refused (`broken_model`) where it could not load them at all.
    """
    empty = {name: torch.empty(tuple(shape), device="meta") for name, shape in shapes.items()}
    with foreign(
        "the weights do not fit config.json",
        code="broken_model",
        hint="choose another revision of the model, or get it again",
    ):
        _, found = type(model).from_pretrained(
            None,
            config=model.config,
            state_dict=empty,
            device_map={"": "meta"},
            output_loading_info=True,
            ignore_mismatched_sizes=True,
        )
    return dict(found)


def fit_adapter(ctx: PhaseContext, settings: TrainSettings, base: Path) -> TrainSettings:
    """Return the settings with the dropout that LoRA can have on this base; says what changes."""
    if settings.lora is None or not settings.lora.dropout:
        return settings
    dropout = allowed_dropout(settings.lora, blueprint(base, settings.task, ["a", "b"]))
    if dropout == settings.lora.dropout:
        return settings
    if ctx.devices.rank == 0:
        ctx.resolve(
            "train.lora.dropout",
            dropout,
            "a mixture of experts: peft adapts experts that are one tensor, without dropout",
        )
    return replace(settings, lora=settings.lora.model_copy(update={"dropout": dropout}))
