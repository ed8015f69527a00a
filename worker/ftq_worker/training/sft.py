"""Build the trainer for SFT and plain text: TRL's SFTTrainer on rows that prepare tokenized.

What TRL is told not to do: prepare the rows again, cut them, choose a pad token, pad by token id,
checkpoint activations by default, log through a bar, send telemetry.
"""

from functools import partial
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import PreTrainedTokenizerBase, TrainerCallback
from trl import SFTConfig
from trl.data_utils import pack_dataset
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from ftq_shared.spec import Task
from ftq_worker.training.adapters import lora_config
from ftq_worker.training.base_model import load_base, pad_id
from ftq_worker.training.sampling import LengthGroupedOrder
from ftq_worker.training.scoring import FUSED_MARK, score_language
from ftq_worker.training.settings import TrainSettings
from ftq_worker.training.trainer_args import common_args
from ftq_worker.training.trainers import FtqSFTTrainer


def build_sft(
    settings: TrainSettings,
    base: Path,
    tokenizer: PreTrainedTokenizerBase,
    train: Dataset,
    validation: Dataset | None,
    output: Path,
    callbacks: list[TrainerCallback],
) -> FtqSFTTrainer:
    """Return a trainer that is ready for `train()`; the base model is loaded here.

    `train` has `input_ids`, `labels` and `length`; packed rows have `seq_lengths` as well.
    """
    model = load_base(
        base,
        Task.SFT,
        [],
        dtype=base_dtype(settings),
        seed=settings.seed,
        attention=settings.attention,
        **quantization(settings),
    )
    padding = pad_id(tokenizer, model)
    # Given with a packed set only: padding-free collating is TRL's own and wants no other.
    collator = None if settings.packing else DataCollatorForLanguageModeling(pad_token_id=padding)
    trainer = FtqSFTTrainer(
        model=model,
        args=SFTConfig(
            **common_args(settings, output),
            max_length=None if not settings.packing else settings.max_length,
            packing=settings.packing,
            eval_packing=False,
            dataset_kwargs={"skip_prepare_dataset": True},
        ),
        data_collator=collator,
        train_dataset=train,
        eval_dataset=validation,
        processing_class=tokenizer,
        peft_config=lora_config(settings.lora, "CAUSAL_LM", model) if settings.lora else None,
        callbacks=callbacks,
    )
    inner = trainer.model.get_base_model() if settings.lora else trainer.model
    setattr(inner, FUSED_MARK, True)  # TRL has just given it its fused head
    unit = settings.micro_batch * settings.world_size
    trainer.add_parts(
        LengthGroupedOrder(lengths_of(train), unit, settings.seed),
        partial(score_language, pad_id=padding, precision=settings.precision),
    )
    return trainer


def pack(train: Dataset, settings: TrainSettings) -> Dataset:
    """Return `train` packed into sequences of up to `max_length` tokens, no row cut.

    Best-fit decreasing, with the documents kept apart by position ids (TRL's `bfd`).
    """
    shuffled = train.select_columns(["input_ids", "labels"]).shuffle(seed=settings.seed)
    return pack_dataset(shuffled, settings.max_length, "bfd", {})


def lengths_of(rows: Dataset) -> list[int]:
    """Return the tokens of each row; of a packed one, of all its documents."""
    if "length" in rows.column_names:
        return list(rows["length"])
    return [sum(parts) for parts in rows["seq_lengths"]]


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
