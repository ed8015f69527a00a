"""Build the trainer for SFT and plain text: TRL's SFTTrainer on rows that prepare tokenized.

What TRL is told not to do: prepare the rows again, cut them, choose a pad token, pad by token id,
checkpoint activations by default, log through a bar, send telemetry.
"""

from functools import partial
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback
from trl import SFTConfig
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from ftq_shared.spec import Task
from ftq_worker.training.adapters import lora_config
from ftq_worker.training.base_model import load_base, pad_id
from ftq_worker.training.packed_steps import PackedOrder
from ftq_worker.training.sampling import LengthGroupedOrder
from ftq_worker.training.scoring import FUSED_MARK, score_language
from ftq_worker.training.settings import TrainSettings
from ftq_worker.training.sharded import plan_sharding
from ftq_worker.training.trainer_args import common_args
from ftq_worker.training.trainers import FtqSFTTrainer


def load_writer(settings: TrainSettings, base: Path) -> PreTrainedModel:
    """Return the base model as it is trained from."""
    return load_base(
        base,
        Task.SFT,
        [],
        dtype=base_dtype(settings),
        seed=settings.seed,
        attention=settings.attention,
        **quantization(settings),
    )


def build_sft(
    settings: TrainSettings,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    train: Dataset,
    validation: Dataset | None,
    output: Path,
    callbacks: list[TrainerCallback],
) -> FtqSFTTrainer:
    """Return a trainer that is ready for `train()`.

    `train` has `input_ids`, `labels` and `length`. The rows of a packed sequence are put together
    by the collator; TRL's own packing would mix the examples of different steps.
    """
    padding = pad_id(tokenizer, model)
    args = SFTConfig(
        **common_args(settings, output),
        max_length=None,
        dataset_kwargs={"skip_prepare_dataset": True},
    )
    plan_sharding(args, settings, model)
    trainer = FtqSFTTrainer(
        model=model,
        args=args,
        data_collator=DataCollatorForLanguageModeling(
            pad_token_id=padding, padding_free=settings.packing
        ),
        train_dataset=train,
        eval_dataset=validation,
        processing_class=tokenizer,
        peft_config=lora_config(settings.lora, "CAUSAL_LM", model) if settings.lora else None,
        callbacks=callbacks,
    )
    inner = trainer.model.get_base_model() if settings.lora else trainer.model
    setattr(inner, FUSED_MARK, True)  # TRL has just given it its fused head
    trainer.add_parts(
        PackedOrder(train["length"], settings)
        if settings.packing
        else LengthGroupedOrder(train["length"], settings.rows_per_step, settings.seed),
        partial(score_language, pad_id=padding, precision=settings.precision),
        settings.layerwise_lr_decay,
    )
    return trainer


def base_dtype(settings: TrainSettings) -> torch.dtype:
    """Return the dtype of the loaded weights.

    Weights that are trained stay float32: with bf16 weights most small updates are lost (24 % of
    the weights moved instead of 99.7 % in a trial). A frozen base is loaded in half precision.
    """
    half = {"bf16": torch.bfloat16, "fp16": torch.float16}
    return (
        torch.float32 if settings.method == "full" else half.get(settings.precision, torch.float32)
    )


def quantization(settings: TrainSettings) -> dict[str, Any]:
    """Return the loading options of QLoRA: nf4 with double quantisation; else none."""
    if settings.method != "qlora":
        return {}
    from transformers import BitsAndBytesConfig

    return {
        "quantization_config": BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_compute_dtype=base_dtype(settings),
            bnb_4bit_use_double_quant=True,
        ),
        "device_map": {"": torch.cuda.current_device()},
    }
