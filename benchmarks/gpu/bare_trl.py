"""A plain TRL script on the rows that ftq prepared: `python -m benchmarks.gpu.bare_trl JSON`.

`tuned` has what a person who knows TRL would set: ftq's micro-batch, rows grouped by length, no
recomputed activations where they fit; `default` leaves all of that to TRL.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from datasets import load_from_disk
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import SFTConfig, SFTTrainer

_WARM = 3  # steps that are not counted


class Speed(TrainerCallback):  # type: ignore[misc]
    """Tokens and seconds of every step but the first ones."""

    def __init__(self) -> None:
        self.marks: list[tuple[float, float]] = []

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        if logs and "loss" in logs:
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            self.marks.append((time.perf_counter(), float(logs["num_tokens"])))

    def tokens_per_s(self) -> float:
        (start, before), (end, after) = self.marks[_WARM - 1], self.marks[-1]
        return (after - before) / (end - start)


def main() -> None:
    """Train, and print one JSON object."""
    wanted = json.loads(sys.argv[1])
    cuda = torch.cuda.is_available()
    tuned = wanted["side"] == "tuned"
    own: dict[str, Any] = {}
    if tuned:
        own = {
            "per_device_train_batch_size": wanted["micro_batch"],
            "gradient_accumulation_steps": wanted["accumulation"],
            "gradient_checkpointing": wanted["checkpointing"],
            "train_sampling_strategy": "group_by_length",
            "length_column_name": "length",
        }
    model = AutoModelForCausalLM.from_pretrained(
        wanted["model"], dtype=torch.bfloat16 if cuda else torch.float32
    )
    speed = Speed()
    trainer = SFTTrainer(
        model=model,
        args=SFTConfig(
            output_dir=wanted["output"],
            max_steps=wanted["steps"],
            learning_rate=2e-4,
            max_length=None,
            bf16=cuda,
            use_cpu=not cuda,
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            dataset_kwargs={"skip_prepare_dataset": True},
            **own,
        ),
        train_dataset=load_from_disk(str(Path(wanted["prepared"]) / "train")),
        processing_class=AutoTokenizer.from_pretrained(wanted["model"]),
        peft_config=LoraConfig(
            r=wanted["rank"], lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"
        ),
        callbacks=[speed],
    )
    trainer.train()
    peak = torch.cuda.max_memory_allocated() if cuda else 0
    print(json.dumps({"tokens_per_s": speed.tokens_per_s(), "peak_bytes": peak}))


if __name__ == "__main__":
    main()
