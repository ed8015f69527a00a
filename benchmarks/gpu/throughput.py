"""Tokens per second of a LoRA fine-tune at full length, events on, beside bare TRL.

Each side is a process of its own; ftq's is the whole train phase, of which the steps count. MFU
counts what the maths needs, 4 FLOP a parameter and token with frozen weights (forward, and the
gradient of the activations) and 12 a layer, hidden unit and position for attention (Chowdhery et
al. 2022, "PaLM", appendix B); recomputed activations are not counted.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.gpu import child
from benchmarks.gpu.card import Card
from benchmarks.gpu.models import SHAPES, make_model, make_rows

STEPS = 24
BATCH = 8  # rows of full length in a step
SIDES = ("default", "tuned")
# Published tokens per second on one H100 for LoRA at length 4,096.
PUBLISHED = {"llama-3-8b": 12_473, "qwen2.5-7b": 14_110}


def measure(name: str, card: Card, folder: Path) -> dict[str, Any]:
    """Return the figures of one model on all sides."""
    shape, model = SHAPES[name], folder / name
    parameters = make_model(name, model, card.device)
    rows = make_rows(folder / f"{name}.jsonl", model, shape.length)
    storage = folder / f"{name}-ftq"
    spec = {
        "model": f"worker:{model}",
        "dataset": f"worker:{folder / f'{name}.jsonl'}",
        "data": {"golden": {"size": 4}, "validation": "none"},
        "train": {
            "method": "lora",
            "max_steps": STEPS,
            "max_length": shape.length,
            "batch_size": BATCH,
            "save_every": STEPS,
        },
    }
    events = child.run(spec, storage, card.gpus)
    settings = child.report(storage)["settings"]
    speeds = {"ftq": list(child.of(events, "step"))[-1]["tokens_per_s"]}
    for side in SIDES:
        made = _bare(side, model, storage, settings)
        speeds[side] = made["tokens_per_s"]
    shutil.rmtree(storage)  # with the model that was saved
    flops = 4 * parameters + 12 * shape.config.num_hidden_layers * shape.config.hidden_size * (
        shape.length
    )
    return {
        "model": name,
        "rows": rows,
        "length": shape.length,
        "parameters": parameters,
        "tokens_per_s": speeds,
        "mfu": round(speeds["ftq"] * flops / card.peak_flops, 4) if card.peak_flops else None,
        "published": PUBLISHED.get(name),
        "resolved": child.resolved(events),
    }


def _bare(side: str, model: Path, storage: Path, settings: dict[str, Any]) -> dict[str, float]:
    wanted = {
        "side": side,
        "model": str(model),
        "prepared": str(child.folder(storage) / "prepared"),
        "output": str(storage / side),
        "steps": STEPS,
        "micro_batch": settings["micro_batch"],
        "accumulation": settings["accumulation"],
        "checkpointing": settings.get("gradient_checkpointing") not in (None, "none"),
        "rank": settings["lora"]["r"],
    }
    command = [sys.executable, "-m", "benchmarks.gpu.bare_trl", json.dumps(wanted)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise child.Failed("\n".join(done.stderr.strip().splitlines()[-12:]))
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def words(figures: dict[str, Any]) -> str:
    """Return the figures as one line for people."""
    speeds = figures["tokens_per_s"]
    parts = [f"{side} {speed:,.0f}" for side, speed in speeds.items()]
    ratios = [f"{speeds['ftq'] / speeds[side]:.2f} of {side}" for side in SIDES]
    mfu = f", MFU {figures['mfu']:.1%}" if figures["mfu"] else ""
    goal = f", published {figures['published']:,}" if figures["published"] else ""
    return f"{figures['model']}: tokens/s {', '.join(parts)} ({', '.join(ratios)}){mfu}{goal}"
