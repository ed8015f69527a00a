"""A whole job on a warm worker against cold scripts that only train and save.

    python -m benchmarks.whole_job [ROUNDS]

256 rows of GSM8K and a Llama of 4 layers of 192 (random weights), full, 26 steps of 8. Ours is
`ftq submit` on a broker, a local Hub and a worker that are there: from the start of the command to
the verified model, with validation, cleaning, the golden set scored before and after, evaluations,
checkpoints, and the saved model loaded and judged in a process of its own. The scripts are plain
TRL from `python train.py` on: `default` sets nothing but batch, steps and rate; `tuned` groups rows
by length and computes nothing twice. Both have the machine's cores, one after the other, in turn.
"""

import json
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.fleet import Fleet, fleet
from benchmarks.real_inputs import put
from benchmarks.report import Table
from benchmarks.steps import gsm8k, llama

ROWS, STEPS, BATCH, RATE = 256, 26, 8, 1e-3
SCRIPT = f"""
import sys
from datasets import load_dataset
from trl import SFTConfig, SFTTrainer
from transformers import AutoModelForCausalLM, AutoTokenizer
base, rows, out, kind = sys.argv[1:]
own = dict(train_sampling_strategy="group_by_length", gradient_checkpointing=False)
trainer = SFTTrainer(
    model=AutoModelForCausalLM.from_pretrained(base),
    args=SFTConfig(
        output_dir=out, max_steps={STEPS}, per_device_train_batch_size={BATCH},
        learning_rate={RATE}, use_cpu=True, bf16=False, report_to="none", save_strategy="no",
        **(own if kind == "tuned" else dict()),
    ),
    train_dataset=load_dataset("json", data_files=rows, split="train"),
    processing_class=AutoTokenizer.from_pretrained(base),
)
trainer.train()
trainer.save_model(out)
"""


def main(rounds: int = 3) -> None:
    """Measure in turn and print the ratios."""
    table = Table("seconds from the command to the model")
    with fleet(slots=1) as mine:
        base, source = llama(mine.root / "base"), mine.root / "rows.jsonl"
        put(mine, "model", "demo/small-llama", base)
        lines = (json.dumps({"prompt": q, "completion": a}) for q, a in gsm8k()[:ROWS])
        source.write_text("\n".join(lines) + "\n")
        script = mine.root / "train.py"
        script.write_text(SCRIPT)
        submit(mine, source, "first")  # warms the page cache, for all of them
        for turn in range(rounds):
            table.add("ftq", submit(mine, source, str(turn)))
            for kind in ("default", "tuned"):
                told = [str(script), str(base), str(source), str(mine.root / f"out-{kind}"), kind]
                table.add(kind, seconds_of([sys.executable, *told], mine))
    table.show()
    for kind, limit in (("default", 1.0), ("tuned", 1.15)):
        ratio = table.median("ftq") / table.median(kind)
        print(f"  ftq takes {ratio:.2f} times the {kind} script's time (at most {limit})")


def submit(mine: Fleet, source: Path, name: str) -> float:
    """Run one job to its verified model; return its seconds."""
    sets = {
        "train.method": "full",
        "train.max_steps": STEPS,
        "train.batch_size": BATCH,
        "train.learning_rate": RATE,
    }
    told = [arg for key, value in sets.items() for arg in ("--set", f"{key}={value}")]
    started = time.monotonic()
    mine.ftq(
        "submit", "--model", "demo/small-llama", "--dataset", str(source), *told,
        "--publish-to", f"demo/whole-{name}", "--json",
    )  # fmt: skip
    return time.monotonic() - started


def seconds_of(command: list[str], mine: Fleet) -> float:
    """Return the seconds that a command takes."""
    started = time.monotonic()
    subprocess.run(command, env=mine.env, capture_output=True, check=True)
    return time.monotonic() - started


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
