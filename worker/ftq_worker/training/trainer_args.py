"""`train.args`: fields of the trainer that a person may set, and those that ftq owns."""

import dataclasses
import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import TrainingArguments
from trl import SFTConfig

from ftq_shared.errors import UsageError
from ftq_shared.spec import Task

if TYPE_CHECKING:
    from ftq_worker.training.settings import TrainSettings

# Fields that ftq sets itself, and where the same thing is said in the spec ("" means nowhere).
OWNED = {
    "output_dir": "",
    "num_train_epochs": "train.epochs",
    "max_steps": "train.max_steps",
    "learning_rate": "train.learning_rate",
    "per_device_train_batch_size": "train.micro_batch",
    "per_device_eval_batch_size": "train.micro_batch",
    "gradient_accumulation_steps": "train.batch_size",
    "auto_find_batch_size": "train.micro_batch",
    "max_length": "train.max_length",
    "packing": "train.packing",
    "packing_strategy": "train.packing",
    "eval_packing": "train.packing",
    "padding_free": "train.packing",
    "bf16": "train.precision",
    "fp16": "train.precision",
    "use_cpu": "resources.gpus",
    "seed": "train.seed",
    "data_seed": "train.seed",
    "save_strategy": "train.save_every",
    "save_steps": "train.save_every",
    "save_total_limit": "",
    "save_only_model": "",
    "eval_strategy": "train.eval_every",
    "eval_steps": "train.eval_every",
    "eval_on_start": "",
    "logging_strategy": "",
    "logging_steps": "",
    "logging_first_step": "",
    "logging_nan_inf_filter": "",
    "disable_tqdm": "",
    "report_to": "report_to",
    "load_best_model_at_end": "",
    "metric_for_best_model": "",
    "greater_is_better": "",
    "resume_from_checkpoint": "",
    "ignore_data_skip": "",
    "enable_jit_checkpoint": "",
    "restore_callback_states_from_checkpoint": "",
    "include_num_input_tokens_seen": "",
    "remove_unused_columns": "",
    "train_sampling_strategy": "",
    "length_column_name": "",
    "dataloader_num_workers": "",
    "push_to_hub": "publish.repo",
    "hub_model_id": "publish.repo",
    "hub_token": "",
    "hub_private_repo": "publish.private",
    "model_init_kwargs": "",
    "trust_remote_code": "",
    "chat_template_path": "data.chat_template",
    "dataset_text_field": "data.columns.text",
    "dataset_kwargs": "",
    "eos_token": "",
    "pad_token": "",
    "assistant_only_loss": "data.format",
    "completion_only_loss": "data.format",
    "shuffle_dataset": "",
}


def config_class(task: Task) -> type[TrainingArguments]:
    """Return the trainer's configuration class for a task."""
    chosen: type[TrainingArguments] = (
        TrainingArguments if task is Task.CLASSIFICATION else SFTConfig
    )
    return chosen


def check_trainer_args(task: Task, args: Mapping[str, Any]) -> None:
    """Raise UsageError naming every key of `train.args` that ftq owns or that does not exist."""
    known = {f.name for f in dataclasses.fields(config_class(task))}
    problems = [_problem(key, known) for key in args if key in OWNED or key not in known]
    if problems:
        raise UsageError(
            "; ".join(problems),
            code="bad_trainer_args",
            hint="train.args takes fields of the trainer that ftq does not set itself",
            field="train.args",
        )


def _problem(key: str, known: set[str]) -> str:
    if key in OWNED:
        place = OWNED[key]
        return f"train.args.{key}: set {place} instead" if place else f"train.args.{key}: ftq's own"
    nearest = difflib.get_close_matches(key, known - OWNED.keys(), n=3)
    also = f"; nearest: {', '.join(nearest)}" if nearest else ""
    return f"train.args.{key}: the trainer has no such field{also}"


def common_args(settings: "TrainSettings", output: Path) -> dict[str, Any]:
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
        "gradient_checkpointing": False,  # SFTConfig turns it on, about 20 % slower
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
