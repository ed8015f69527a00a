"""`train.args`: fields of the trainer that a person may set, and those that ftq owns."""

import dataclasses
import difflib
import tempfile
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from accelerate.state import AcceleratorState, GradientState
from datasets import Dataset
from pydantic import PydanticUserError, TypeAdapter, ValidationError
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import (
    DataCollatorWithPadding,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    PreTrainedTokenizerFast,
    PrinterCallback,
    Trainer,
    TrainingArguments,
)
from trl import SFTConfig, SFTTrainer

from ftq_shared.errors import Refused
from ftq_shared.spec import Task
from ftq_shared.spec_input.aliases import owned_arg
from ftq_shared.trainer_fields import TRAINER_FIELDS
from ftq_worker.training.memory_need import Checkpointing
from ftq_worker.training.parallel import alone
from ftq_worker.training.settings import TrainSettings
from ftq_worker.training.sharded import sharding_args

# What a toy on the CPU cannot be built with: these need a card, or a mixture of experts ...
NOT_BUILT = {"activation_offloading", "router_aux_loss_coef"}
# ... or not be trained with: a compiler, or layers of the real model.
NOT_TRAINED = {
    "optim_target_modules",
    "torch_compile",
    "torch_compile_backend",
    "torch_compile_mode",
}
# Of a run on a toy, to try the person's own arguments with.
EXAMPLE = TrainSettings(
    task=Task.SFT,
    method="full",
    epochs=1.0,
    steps=1,
    steps_per_epoch=1,
    learning_rate=1e-4,
    layerwise_lr_decay=1.0,
    class_weights="none",
    warmup_steps=0,
    batch_size=1,
    micro_batch=1,
    accumulation=1,
    gradient_checkpointing="none",
    packing=False,
    precision="fp32",
    max_length=8,
    eval_every=1,
    save_every_steps=None,
    save_every_s=None,
    on_divergence="stop",
    seed=0,
    lora=None,
    on_cpu=True,
    world_size=1,
    strategy="ddp",
    args={},
)


def trainer_config(task: Task) -> type[TrainingArguments]:
    """Return the class of the trainer's arguments for a task; auto has SFT's."""
    config: type[TrainingArguments] = (
        TrainingArguments if task is Task.CLASSIFICATION else SFTConfig
    )
    return config


def trainer_fields(task: Task) -> set[str]:
    """Return the fields of the installed trainer's configuration for a task."""
    return {field.name for field in dataclasses.fields(trainer_config(task))}


def check_trainer_args(task: Task, args: Mapping[str, object]) -> None:
    """Raise Refused naming every entry of `train.args` that the trainer cannot be built with.

    Those are keys that ftq owns or the trainer does not have, values of another type, and values
    that the trainer, its optimizer or its schedule refuse: a toy is trained with them for a step.
    """
    if not args:
        return
    known = trainer_fields(task)
    problems = {key: why for key in args if (why := _bad_key(key, known))}
    types = typing.get_type_hints(trainer_config(task))
    for key, value in args.items():
        if key not in problems and (why := _bad_type(value, types[key])):
            problems[key] = why
    if not problems:
        problems = _refused_values(task, args)
    if problems:
        raise Refused(
            "; ".join(f"train.args.{key}: {why}" for key, why in problems.items()),
            code="bad_trainer_args",
            hint="train.args takes fields of the trainer that ftq does not set itself",
            field="train.args",
        )


def _bad_key(key: str, known: set[str]) -> str | None:
    if (answer := owned_arg(key)) or key in known:
        return answer
    nearest = difflib.get_close_matches(key, known - TRAINER_FIELDS.keys(), n=3)
    also = f"; nearest: {', '.join(nearest)}" if nearest else ""
    return f"the trainer has no such field{also}"


def _bad_type(value: object, wanted: Any) -> str:
    """Return what is wrong with a value's type, '' when the trainer's own annotation takes it."""
    try:
        TypeAdapter(wanted).validate_python(value, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]["msg"]
        return f"{value!r} does not fit: {first[0].lower()}{first[1:]}"
    except PydanticUserError:  # an annotation that is no type of data
        return ""
    return ""


def _refused_values(task: Task, args: Mapping[str, object]) -> dict[str, str]:
    """Return why the trainer refuses values, by key; by all keys together when none is at fault."""
    if not (together := _refusal(task, args)):
        return {}
    alone = {key: why for key in args if (why := _refusal(task, {key: args[key]}))}
    return alone or {", ".join(args): together}


def _refusal(task: Task, args: Mapping[str, object]) -> str:
    """Train a toy for one step with `args`; return what is said against them, '' for nothing."""
    settings = dataclasses.replace(EXAMPLE, task=task, args=dict(args))
    try:
        with tempfile.TemporaryDirectory() as folder, alone():
            if args.keys() & NOT_BUILT:
                trainer_config(task)(**common_args(settings, Path(folder)))
                return ""
            trainer = _toy_trainer(settings, Path(folder))
            if not args.keys() & NOT_TRAINED:
                trainer.remove_callback(PrinterCallback)
                trainer.train()
    except Exception as error:  # whatever a library raises for a value is the value's fault
        lines = str(error).strip().splitlines()
        return lines[0] if lines else type(error).__name__
    finally:  # the process may train as well, when it runs a job by itself
        AcceleratorState._reset_state(reset_partial_state=True)
        GradientState._reset_state()
    return ""


def _toy_trainer(settings: TrainSettings, output: Path) -> Trainer:
    """Return the trainer of a task around a decoder of some hundred weights, on one row."""
    config = LlamaConfig(
        vocab_size=8,
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        max_position_embeddings=8,
    )
    words = WordLevel({f"<{n}>": n for n in range(config.vocab_size)}, unk_token="<0>")  # noqa: S106
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(words),
        eos_token="<1>",  # noqa: S106
        pad_token="<2>",  # noqa: S106
    )
    if settings.task is Task.CLASSIFICATION:
        rows = Dataset.from_dict({"input_ids": [[3, 4, 5]], "labels": [1]})
        return Trainer(
            model=LlamaForSequenceClassification(config),
            args=TrainingArguments(**common_args(settings, output)),
            data_collator=DataCollatorWithPadding(tokenizer),
            train_dataset=rows,
            eval_dataset=rows,
        )
    rows = Dataset.from_dict({"input_ids": [[3, 4, 5]], "labels": [[3, 4, 5]]})
    made: Trainer = SFTTrainer(
        model=LlamaForCausalLM(config),
        args=SFTConfig(
            **common_args(settings, output), dataset_kwargs={"skip_prepare_dataset": True}
        ),
        train_dataset=rows,
        eval_dataset=rows,
        processing_class=tokenizer,
    )
    return made


def _checkpointing(every: Checkpointing) -> dict[str, Any]:
    """Return the trainer's words for it; left out, SFTConfig would turn it on."""
    if every == "none":
        return {"activation_checkpointing": False}
    layers = 1 if every == "all" else every
    return {
        "activation_checkpointing": True,
        "activation_checkpointing_kwargs": {"every_n_layers": layers, "use_reentrant": False},
    }


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
        **_checkpointing(settings.gradient_checkpointing),
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
        **sharding_args(settings),
        **settings.args,
    }
