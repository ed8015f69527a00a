"""What the first steps hold of a card beside what was counted for them, on ten configurations."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.gpu import child
from benchmarks.gpu.card import Card
from benchmarks.gpu.models import SHAPES, make_model, make_rows

STEPS = 3


@dataclass(frozen=True)
class Case:
    """One configuration."""

    model: str
    method: str
    checkpointing: str | int
    micro_batch: int
    length: int
    precision: str = "bf16"

    def __str__(self) -> str:
        return (
            f"{self.model} {self.method} {self.precision}, {self.micro_batch} x {self.length},"
            f" checkpointing {self.checkpointing}"
        )


CASES = (
    Case("llama-1b", "lora", "none", 4, 1024),
    Case("llama-1b", "lora", 2, 4, 2048),
    Case("llama-1b", "lora", "all", 8, 2048),
    Case("llama-1b", "lora", "none", 2, 2048, "fp16"),
    Case("llama-1b", "full", "none", 2, 1024),
    Case("llama-1b", "full", "all", 4, 2048),
    Case("llama-1b", "full", "none", 1, 2048, "fp32"),
    Case("qwen2.5-7b", "lora", "all", 2, 4096),
    Case("qwen2.5-7b", "lora", 2, 1, 4096),
    Case("qwen2.5-7b", "lora", "none", 1, 2048),
)
REHEARSED = (Case("tiny", "lora", "none", 2, 256, "fp32"),)


def measure(case: Case, card: Card, folder: Path) -> dict[str, Any]:
    """Train a few steps and return what the job itself says; on the CPU nothing is measured."""
    model, file = folder / case.model, folder / f"{case.model}-{case.length}.jsonl"
    make_model(case.model, model, card.device)
    if not file.exists():
        make_rows(file, model, case.length)
    spec = {
        "model": f"worker:{model}",
        "dataset": f"worker:{file}",
        "data": {"golden": {"size": 2}, "validation": "none", "max_rows": 60},
        "train": {
            "method": case.method,
            "precision": case.precision,
            "gradient_checkpointing": case.checkpointing,
            "micro_batch": case.micro_batch,
            "batch_size": 2 * case.micro_batch,
            "max_length": min(case.length, SHAPES[case.model].length),
            "max_steps": STEPS,
            "packing": False,
        },
    }
    storage = folder / str(case).replace(" ", "-").replace(",", "")
    events = child.run(spec, storage, card.gpus)
    shutil.rmtree(storage)  # with the model that was saved
    said = list(child.of(events, "memory"))
    assert said or not card.gpus, "the job did not say what it holds"
    return {"configuration": str(case), **(said[0] if said else {})}


def words(figures: dict[str, Any]) -> str:
    """Return the figures as one line for people."""
    if "counted_bytes" not in figures:
        return f"{figures['configuration']}: nothing was counted, or this is a CPU"
    counted, peak = figures["counted_bytes"], figures["peak_bytes"]
    return (
        f"{figures['configuration']}: counted {counted / 1e9:.2f} GB, held {peak / 1e9:.2f} GB,"
        f" {counted / peak - 1:+.1%}"
    )
