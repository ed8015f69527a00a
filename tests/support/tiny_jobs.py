"""A job's folder as prepare leaves it, made by hand: tiny random models and rows.

`python -m tests.support.tiny_jobs` is not needed; the fixtures of tests/unit/training use it.
"""

import json
import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    BertConfig,
    BertModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from ftq_shared.events import EventType, make_body
from ftq_shared.paths import JobPaths
from ftq_shared.sources import Place
from ftq_shared.spec import Columns, JobSpec, Task
from ftq_shared.states import Phase
from ftq_worker.job.context import Control, Devices, PhaseContext
from ftq_worker.job.reports import DatasetFacts, ModelFacts, Prepared, Validated
from ftq_worker.job.row_sources import SOURCES, save_sources

WORDS = 40
VOCAB = ["<pad>", "</s>", "<unk>", "<s>"] + [f"w{i}" for i in range(WORDS)]
EOS = 1
LABELS = ["even", "odd", "other"]


def make_base(folder: Path, kind: str) -> Path:
    """Write a random model with its tokenizer; `kind` is llama or bert."""
    torch.manual_seed(7)
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(VOCAB)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    special = {"eos_token": "</s>", "unk_token": "<unk>"}
    if kind == "bert":
        special |= {"pad_token": "<pad>", "cls_token": "<s>", "sep_token": "</s>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)
    if kind == "llama":
        config = LlamaConfig(
            vocab_size=len(VOCAB),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=64,
            bos_token_id=3,
            eos_token_id=EOS,
            attention_dropout=0.1,  # so that an exact resume has a generator to restore
        )
        LlamaForCausalLM(config).save_pretrained(folder)
    else:
        config = BertConfig(
            vocab_size=len(VOCAB),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=64,
            pad_token_id=0,
        )
        BertModel(config).save_pretrained(folder)
    return folder


@dataclass
class Recorder:
    """An Emit that keeps events and refuses what ftq_shared.events does not document."""

    seen: list[tuple[EventType, dict[str, Any]]] = field(default_factory=list)
    bodies: list[str] = field(default_factory=list)  # as an agent writes them down
    hook: Callable[[EventType, dict[str, Any]], None] | None = None

    def __call__(self, type_: EventType, /, **data: Any) -> None:
        body = make_body(type_, data, attempt=1, host="test", phase=Phase.TRAIN)
        self.seen.append((type_, json.loads(body)["data"]))
        self.bodies.append(body)
        if self.hook:
            self.hook(type_, data)

    def of(self, type_: EventType) -> list[dict[str, Any]]:
        """Return the data of all events of a type."""
        return [data for seen, data in self.seen if seen is type_]


@dataclass(frozen=True)
class TinyJob:
    """A context and what it emitted."""

    ctx: PhaseContext
    events: Recorder

    def write_events(self) -> None:
        """Leave the events where an agent does: a replay reads them there."""
        path = self.ctx.paths.events(self.ctx.claim)
        path.write_text("".join(f"{body}\n" for body in self.events.bodies))

    def again(self, **changes: Any) -> "TinyJob":
        """Return the next attempt at the same job: a new token, a new control, new events."""
        events = Recorder()
        token = changes.pop("token_number", self.ctx.token_number + 1)
        ctx = replace(
            self.ctx, token_number=token, attempt=token, emit=events, control=Control(), **changes
        )
        return TinyJob(ctx, events)


def tiny_job(
    folder: Path,
    base: Path,
    task: str,
    *,
    job: str = "ft-aaaaaaaa",
    cpu_threads: int = 1,
    **spec: Any,
) -> TinyJob:
    """Return a prepared job; `spec` replaces parts of the spec, for example train={...}."""
    paths = JobPaths(folder / "storage", job)
    _save_reports(paths, base, task)
    train = {"epochs": 2, "batch_size": 8, "micro_batch": 4, "learning_rate": 1e-3, "eval_every": 4}
    full = {"model": f"worker:{base}", "dataset": "org/rows", "task": task, **spec}
    full["train"] = train | spec.get("train", {})
    events = Recorder()
    ctx = PhaseContext(
        job=job,
        phase=Phase.TRAIN,
        attempt=1,
        token_number=1,
        spec=JobSpec.model_validate(full),
        paths=paths,
        emit=events,
        devices=Devices(cpu_threads=cpu_threads),
    )
    return TinyJob(ctx, events)


def _save_reports(paths: JobPaths, base: Path, task: str) -> None:
    """Write what validate and prepare leave: the rows, and their reports."""
    rows = {
        "train": make_rows(task, 48, seed=1),
        "validation": make_rows(task, 8, seed=2),
        "golden": make_rows(task, 32, seed=3),  # as many as a verdict needs
    }
    for name, data in rows.items():
        data.save_to_disk(str(paths.prepared / name))
    # As if every third row of two files had been left out by a rule, or held out.
    sources = [{"file": f"part-{i % 2}.jsonl", "row": 3 * i, "line": 3 * i + 1} for i in range(48)]
    save_sources(iter([pa.RecordBatch.from_pylist(sources, SOURCES)]), paths.row_sources)
    paths.marker.write_text(paths.job)
    classes = task == "classification"
    Validated(
        model=ModelFacts(
            place=Place.WORKER,
            name=str(base),
            architecture="BertModel" if classes else "LlamaForCausalLM",
            model_type="bert" if classes else "llama",
            kind="encoder" if classes else "decoder",
            parameters=30_000,
            hidden_size=32,
            layers=2,
            vocab_size=len(VOCAB),
            max_positions=64,
            license="apache-2.0",
            licenses=["apache-2.0"],
        ),
        dataset=DatasetFacts(
            place=Place.HUB, name="org/rows", revision="d" * 40, splits={"train": 68}, columns=["a"]
        ),
        task=Task(task),
        shape="text/label" if classes else "prompt/completion",
        columns=Columns(),
        split="train",
    ).save(paths.validated)
    Prepared(
        rows={name: len(data) for name, data in rows.items()},
        labels=LABELS if classes else [],
        max_length=20,
        tokens={"total": 480, "p50": 10, "p90": 15, "p99": 20, "max": 20},
        cleaning=[{"rule": "exact_duplicates", "rows_in": 70, "rows_out": 68}],
        golden_sha256="e" * 64,
        golden_source="train",
    ).save(paths.prepared_report)


def make_rows(task: str, count: int, seed: int) -> Dataset:
    """Return rows as prepare writes them: copy the prompt, or tell the first word."""
    pick = random.Random(seed)
    rows = []
    for _ in range(count):
        words = [pick.randrange(4, len(VOCAB)) for _ in range(pick.randrange(3, 9))]
        if task == "classification":
            label = pick.randrange(2)
            rows.append({"input_ids": [3, *[4 + label] * 4, *words, EOS], "label": label})
        else:
            answer = [*words, EOS]
            labels = [-100] * len(words) + answer
            rows.append({"input_ids": words + answer, "labels": labels})
    return Dataset.from_list([row | {"length": len(row["input_ids"])} for row in rows])
