"""Build the trainer for classification: transformers' Trainer with a sequence head."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset
from peft import get_peft_model
from transformers import (
    DataCollatorWithPadding,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)

from ftq_shared.spec import Task
from ftq_worker.training.adapters import lora_config
from ftq_worker.training.base_model import load_base, pad_id
from ftq_worker.training.end_of_turn import IGNORED
from ftq_worker.training.sampling import LengthGroupedOrder
from ftq_worker.training.scoring import score_labels
from ftq_worker.training.settings import TrainSettings
from ftq_worker.training.sft import base_dtype, quantization
from ftq_worker.training.sharded import plan_sharding
from ftq_worker.training.trainer_args import common_args
from ftq_worker.training.trainers import FtqTrainer


def build_classification(
    settings: TrainSettings,
    base: Path,
    tokenizer: PreTrainedTokenizerBase,
    labels: list[str],
    train: Dataset,
    validation: Dataset | None,
    output: Path,
    callbacks: list[TrainerCallback],
) -> FtqTrainer:
    """Return a trainer that is ready for `train()`; the base model is loaded here.

    `train` has `input_ids`, `label` (class id) and `length`; `labels` are the names by id.
    """
    model = load_base(
        base,
        Task.CLASSIFICATION,
        labels,
        dtype=base_dtype(settings),
        seed=settings.seed,
        attention=settings.attention,
        **quantization(settings),
    )
    ensure_padding(model, tokenizer)
    padding = int(tokenizer.pad_token_id)
    if settings.lora:
        set_seed(settings.seed)
        model = get_peft_model(model, lora_config(settings.lora, "SEQ_CLS", model))
    args = TrainingArguments(
        **common_args(settings, output),
        include_num_input_tokens_seen="non_padding",
    )
    plan_sharding(args, settings, model)
    trainer = FtqTrainer(
        model=model,
        args=args,
        data_collator=DataCollatorWithPadding(tokenizer, padding="longest"),
        train_dataset=train,
        eval_dataset=validation,
        processing_class=tokenizer,
        callbacks=callbacks,
    )
    # Heads for classification average over the micro-batch and ignore the item count; a trainer
    # that believes otherwise leaves the loss and the gradient `accumulation` times too large.
    trainer.model_accepts_loss_kwargs = False
    trainer.add_parts(
        LengthGroupedOrder(train["length"], settings.rows_per_step, settings.seed),
        partial(score_labels, pad_id=padding, precision=settings.precision),
        settings.layerwise_lr_decay,
    )
    if settings.class_weights == "balanced":
        trainer.class_weights = balanced_weights(train["label"], len(labels))
    return trainer


def balanced_weights(ids: Sequence[int], labels: int) -> torch.Tensor:
    """Return a weight for each label, float32 of shape (labels,): all count alike in the sum.

    rows / (labels that occur * rows of the label), so that a row weighs 1 on average: King and Zeng
    2001, Logistic Regression in Rare Events Data, section 4.2. Rows that are left out do not count.
    """
    kept = np.asarray(ids)
    counts = np.bincount(kept[kept != IGNORED], minlength=labels)
    return torch.tensor(
        counts.sum() / (np.count_nonzero(counts) * np.maximum(counts, 1)), dtype=torch.float32
    )


def ensure_padding(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Give tokenizer and model one pad token; a decoder's head finds the last token by it."""
    padding = pad_id(tokenizer, model)
    if tokenizer.pad_token_id != padding:
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(padding)
    tokenizer.padding_side = "right"
    model.config.get_text_config().pad_token_id = tokenizer.pad_token_id
    model.config.pad_token_id = tokenizer.pad_token_id
