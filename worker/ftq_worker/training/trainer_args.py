"""`train.args`: fields of the trainer that a person may set, and those that ftq owns."""

import dataclasses
import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import TrainingArguments
from trl import SFTConfig

from ftq_shared.errors import Refused
from ftq_shared.spec import Task
from ftq_shared.spec_input.aliases import owned_arg
from ftq_shared.trainer_fields import TRAINER_FIELDS
from ftq_worker.training.settings import TrainSettings


def trainer_fields(task: Task) -> set[str]:
    """Return the fields of the installed trainer's configuration for a task; auto has SFT's."""
    config = TrainingArguments if task is Task.CLASSIFICATION else SFTConfig
    return {field.name for field in dataclasses.fields(config)}


def check_trainer_args(task: Task, args: Mapping[str, object]) -> None:
    """Raise Refused naming every key of `train.args` that ftq owns or the trainer does not have."""
    known = trainer_fields(task)
    problems = [f"train.args.{key}: {why}" for key in args if (why := _problem(key, known))]
    if problems:
        raise Refused(
            "; ".join(problems),
            code="bad_trainer_args",
            hint="train.args takes fields of the trainer that ftq does not set itself",
            field="train.args",
        )


def _problem(key: str, known: set[str]) -> str | None:
    if (answer := owned_arg(key)) or key in known:
        return answer
    nearest = difflib.get_close_matches(key, known - TRAINER_FIELDS.keys(), n=3)
    also = f"; nearest: {', '.join(nearest)}" if nearest else ""
    return f"the trainer has no such field{also}"


def common_args(settings: TrainSettings, output: Path) -> dict[str, Any]:
    """Return the trainer's arguments that all tasks share; the person's own come last.

    Saving, the best model and early stopping are decided in `flow`, so the trainer's own
    strategies are off. `logging_nan_inf_filter` would show a NaN as a loss of 0.0.
    """
    return {
        "output_dir": str(output),
        "max_steps": settings.steps,
        "num_train_epochs": settings.epochs,
        "learning_rate": settings.learning_rate,
        "lr_scheduler_type": "cosine",
        "warmup_steps": settings.warmup_steps,
        "per_device_train_batch_size": settings.micro_batch,
        "gradient_accumulation_steps": settings.accumulation,
        "activation_checkpointing": False,  # SFTConfig turns it on, about 20 % slower
        "bf16": settings.precision == "bf16",
        "fp16": settings.precision == "fp16",
        "use_cpu": settings.on_cpu,
        "seed": settings.seed,
        "data_seed": settings.seed,
        "logging_strategy": "steps",
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "disable_tqdm": True,
        "report_to": "none",
        "save_strategy": "no",
        "eval_strategy": "steps" if settings.eval_every else "no",
        "eval_steps": settings.eval_every,
        "dataloader_num_workers": 0,  # a worker process would be one more thing to lose
        "dataloader_pin_memory": not settings.on_cpu,
        **settings.args,
    }
