"""Real training of small random models, with what torch's allocator gave out for it.

What `memory_count` says of a step without running it is compared with this.
"""

import gc
import itertools
import random
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import trl.trainer.utils
from datasets import Dataset
from torch._C._profiler import _EventType
from torch.profiler import ProfilerActivity, profile
from torch.utils.data import SequentialSampler
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, AutoModelForMaskedLM

from ftq_shared.spec import Lora, Task
from ftq_worker.training.adapters import allowed_dropout
from ftq_worker.training.base_model import load_tokenizer
from ftq_worker.training.blueprint import blueprint
from ftq_worker.training.classification import build_classification
from ftq_worker.training.memory_need import Setup
from ftq_worker.training.sft import build_sft, load_writer
from ftq_worker.training.trainer_args import EXAMPLE
from tests.support.tiny_jobs import make_base
from tests.support.zoo import DECODERS, ENCODERS

KINDS = (
    "llama",
    "qwen3",
    "gemma3_text",
    "gpt2",
    "phi3",
    "qwen3_moe",
    "deepseek_v3",
    "lfm2",
    "qwen3_next",
    "bert",
    "modernbert",
    "deberta-v2",
)
LAYERS = 4
VOCAB = 2_000
_WIDE = {"vocab_size": VOCAB, "hidden_size": 96, "intermediate_size": 192,
         "num_hidden_layers": LAYERS, "max_position_embeddings": 512, "head_dim": 24}  # fmt: skip
# What differs, by model type; what neither names is as in the zoo.
_SIZES: dict[str, dict[str, Any]] = {
    "llama": _WIDE | {"num_hidden_layers": 6},  # so deep that cuts of it are counted
    "gpt2": {"n_embd": 96, "n_layer": LAYERS, "n_positions": 512, "vocab_size": VOCAB},
    "deepseek_v3": _WIDE | {"head_dim": None, "moe_intermediate_size": 48},
    "lfm2": _WIDE | {"layer_types": ["conv", "full_attention"] * (LAYERS // 2)},
    "qwen3_next": _WIDE | {"layer_types": ["linear_attention", "full_attention"] * (LAYERS // 2)},
}


@dataclass(frozen=True)
class Trial:
    """A kind of model, and how it is trained."""

    kind: str
    setup: Setup

    def __str__(self) -> str:
        one = self.setup
        more = " accumulating" if one.accumulates else ""
        return (
            f"{self.kind:<12} {one.method:<4} {one.precision} {one.micro_batch} x {one.length:<3}"
            f" checkpointing {one.checkpointing}{more}"
        )


def small_tiles() -> AbstractContextManager[object]:
    """Make the head's tiles as narrow as the small models' vocabulary.

    TRL's, of 32,768 entries, would be most of what so small a model holds.
    """
    return patch.object(trl.trainer.utils, "_CHUNKED_LOGPROB_CHUNK_SIZE", VOCAB)


def trials(count: int, seed: int = 0) -> Iterator[Trial]:
    """Yield so many different ones, all kinds in turn."""
    pick = random.Random(seed)
    seen = set()
    while len(seen) < count:
        kind = KINDS[len(seen) % len(KINDS)]
        trial = Trial(
            kind,
            Setup(
                task=Task.CLASSIFICATION if kind in ENCODERS else Task.SFT,
                method=pick.choice(("full", "lora")),
                precision=pick.choice(("fp32", "bf16")),
                micro_batch=pick.choice((1, 2, 4)),
                length=pick.choice((48, 64, 96, 128)),
                lora=Lora(r=pick.choice((8, 16)), dropout=pick.choice((0.0, 0.05))),
                checkpointing=pick.choice(("none", 2, "all")),
                accumulates=pick.random() < 0.5,
                labels=3,
                device="cpu",
            ),
        )
        if trial not in seen:
            seen.add(trial)
            yield trial


def make_model(folder: Path, kind: str) -> Path:
    """Write a small random model of a kind, with a tokenizer."""
    make_base(folder, "bert" if kind in ENCODERS else "llama")
    known = (ENCODERS if kind in ENCODERS else DECODERS)[kind]
    sizes = {"num_attention_heads": 4, "num_key_value_heads": 2, "pad_token_id": 0}
    sizes |= known.get("only", known) | _SIZES.get(kind, _WIDE)
    torch.manual_seed(7)
    given = {name: size for name, size in sizes.items() if size is not None}
    config = CONFIG_MAPPING[kind](**given)
    made = AutoModelForMaskedLM if kind in ENCODERS else AutoModelForCausalLM
    made.from_config(config).save_pretrained(folder)
    return folder


def train_and_count(trial: Trial, base: Path, output: Path) -> int:
    """Train two steps as ftq does; return the most bytes that were allocated at once."""
    setup = trial.setup
    accumulation = 2 if setup.accumulates else 1
    lora = setup.lora.model_copy(
        update={"dropout": allowed_dropout(setup.lora, blueprint(base, setup.task, ["0", "1"]))}
    )
    settings = replace(
        EXAMPLE,
        task=setup.task,
        method=setup.method,
        steps=2,
        micro_batch=setup.micro_batch,
        batch_size=setup.micro_batch * accumulation,
        accumulation=accumulation,
        gradient_checkpointing=setup.checkpointing,
        precision=setup.precision,
        max_length=setup.length,
        eval_every=None,
        lora=None if setup.method == "full" else lora,
    )
    rows = _rows(setup, 2 * accumulation * setup.micro_batch)
    tokenizer = load_tokenizer(base)
    if setup.task is Task.CLASSIFICATION:
        labels = [str(n) for n in range(setup.labels)]
        trainer: Any = build_classification(
            settings, base, tokenizer, labels, rows, None, output, []
        )
    else:
        trainer = build_sft(
            settings, load_writer(settings, base), tokenizer, rows, None, output, []
        )
    trainer.order = SequentialSampler(rows)  # ftq's own puts the longest rows together
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # models so small gain nothing by more
    held = {
        storage._cdata: storage.nbytes()
        for tensor in (*trainer.model.parameters(), *trainer.model.buffers())
        for storage in [tensor.untyped_storage()]
    }
    gc.collect()  # what earlier trials left is not freed in this one
    gc.disable()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        trainer.train()
    gc.enable()
    trainer.end()
    torch.set_num_threads(threads)
    return sum(held.values()) + _most_allocated(recorded)


def _most_allocated(recorded: Any) -> int:
    """Return the most bytes that torch's allocator had given out, beyond those of the start."""
    changes, events = [], list(recorded.profiler.kineto_results.experimental_event_tree())
    while events:
        event = events.pop()
        events += event.children
        if event.tag == _EventType.Allocation:
            changes.append((event.start_time_ns, event.extra_fields.alloc_size))
    return max(itertools.accumulate(size for _, size in sorted(changes)))


def _rows(setup: Setup, count: int) -> Dataset:
    """Return rows of which the first of each batch has the full length, and others are padded."""
    pick = random.Random(1)
    made = []
    for n in range(count):
        size = setup.length - n % setup.micro_batch
        ids = [pick.randrange(4, VOCAB) for _ in range(size)]
        row: dict[str, Any] = {"input_ids": ids, "length": size}
        classes = setup.task is Task.CLASSIFICATION
        made.append(row | ({"label": n % setup.labels} if classes else {"labels": ids}))
    return Dataset.from_list(made)
