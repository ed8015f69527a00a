"""What does it cost to tell every step? ftq's run against TRL's own SFTTrainer with logging off.

    python benchmarks/cost_of_watching.py [--pairs 7] [--steps 60] [--threads 1]

Both train the same small Llama on the same rows, in the same order, with the same arguments; the
watched one has ftq's callbacks, logs every step and writes each event as a JSON line to a pipe that
a thread reads, as a phase's child does. Runs are interleaved in pairs, the order within a pair
alternating, and a run's figure is the median of its steps without the first ones: the machine's
mood hits both sides alike. Exits with 1 when even the lower quartile of the ratios is above 1.02.
"""

import argparse
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    PrinterCallback,
    TrainerCallback,
)

from ftq_shared.events import EventType, make_body
from ftq_shared.paths import JobPaths
from ftq_shared.spec import JobSpec, Lora
from ftq_shared.states import Phase
from ftq_worker.job.context import Devices, PhaseContext
from ftq_worker.job.quiet import quiet_libraries
from ftq_worker.training.checkpoints import RunFigures
from ftq_worker.training.clock import RunClock
from ftq_worker.training.events import EventCallback
from ftq_worker.training.flow import FlowCallback
from ftq_worker.training.settings import TrainSettings
from ftq_worker.training.sft import build_sft, load_writer
from ftq_worker.training.trainer_args import EXAMPLE
from ftq_worker.training.trainers import FtqSFTTrainer

WARMUP_STEPS = 5
VOCABULARY = 2_000
LIMIT = 1.02
CALLBACK_S: list[float] = []  # seconds in ftq's callbacks, one entry per watched step


@dataclass(frozen=True)
class Setup:
    """What both sides share."""

    folder: Path
    tokenizer: PreTrainedTokenizerFast
    rows: Dataset
    settings: TrainSettings


class StepTimer(TrainerCallback):  # type: ignore[misc]  # transformers has no types
    """Notes when steps end; on both sides, so that it cancels out."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Note the start of a step, which is the end of the one before, logging included."""
        self.ends.append(time.perf_counter())

    def step_s(self) -> float:
        """Return the median seconds of a step, from begin to begin, without the warm-up."""
        return statistics.median(b - a for a, b in pairwise(self.ends[WARMUP_STEPS:]))


class Pipe:
    """Sends events as a child does: JSON lines into a pipe; a thread reads them."""

    def __init__(self) -> None:
        read, self._write = os.pipe()
        self._reader = threading.Thread(target=self._drain, args=(read,), daemon=True)
        self._reader.start()
        self.lines = 0

    def __call__(self, type_: EventType, /, **data: Any) -> None:
        """Write one event."""
        body = make_body(type_, data, attempt=1, host="bench", phase=Phase.TRAIN)
        os.write(self._write, body.encode() + b"\n")

    def close(self) -> None:
        """End the pipe and wait for the reader."""
        os.close(self._write)
        self._reader.join()

    def _drain(self, read: int) -> None:
        with os.fdopen(read, "rb") as lines:
            self.lines = sum(1 for _ in lines)


def make_setup(folder: Path, steps: int, hidden: int) -> Setup:
    """Write a small Llama and make random rows for `steps` steps."""
    torch.manual_seed(0)
    words = {f"w{i}": i for i in range(VOCABULARY)}
    model = Tokenizer(models.WordLevel(words, unk_token="w0"))
    model.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=model, eos_token="w1", pad_token="w2")
    tokenizer.save_pretrained(folder)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=hidden,
        intermediate_size=4 * hidden,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=128,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    settings = _settings(steps)
    made = torch.randint(3, VOCABULARY, (steps * settings.batch_size, 64)).tolist()
    rows = Dataset.from_dict({"input_ids": made, "labels": made, "length": [64] * len(made)})
    return Setup(folder, tokenizer, rows, settings)


def _settings(steps: int) -> TrainSettings:
    return replace(
        EXAMPLE,
        method="lora",
        steps=steps,
        steps_per_epoch=steps,
        batch_size=8,
        micro_batch=8,
        max_length=64,
        eval_every=None,
        save_every_steps=10**9,
        seed=1,
        lora=Lora(),
    )


def watched(setup: Setup, scratch: Path) -> float:
    """Return the step time with everything that ftq does at a step."""
    pipe, clock, timer = Pipe(), RunClock(), StepTimer()
    ctx = PhaseContext(
        job="ft-bench000",
        phase=Phase.TRAIN,
        attempt=1,
        token_number=1,
        spec=JobSpec(model="worker:/m", dataset="org/d"),
        paths=JobPaths(scratch, "ft-bench000"),
        emit=pipe,
        devices=Devices(),
    )
    flow = FlowCallback(ctx, setup.settings, clock)
    events = EventCallback(pipe, setup.settings, clock, flow.saves_left)
    trainer = _trainer(setup, scratch, [timer, events, flow])
    # Saving is no part of watching; the unwatched side saves nothing either.
    trainer._save_checkpoint = lambda *_: None  # type: ignore[method-assign]
    flow.on_save = lambda *_, **__: None  # type: ignore[method-assign]
    flow.connect(RunFigures, trainer.order, trainer.save_weights)
    spent = [_timed(events, "on_log"), _timed(flow, "on_step_end")]
    trainer.train()
    CALLBACK_S.extend(a + b for a, b in zip(*spent, strict=False))
    pipe.close()
    assert pipe.lines >= setup.settings.steps
    return timer.step_s()


def _timed(callback: TrainerCallback, name: str) -> list[float]:
    """Time each call of a callback's method; return the list that fills."""
    original = getattr(callback, name)
    seconds: list[float] = []

    def call(*args: Any, **kwargs: Any) -> None:
        start = time.perf_counter()
        original(*args, **kwargs)
        seconds.append(time.perf_counter() - start)

    setattr(callback, name, call)
    return seconds


def bare(setup: Setup, scratch: Path) -> float:
    """Return the step time of TRL's trainer that logs nothing."""
    timer = StepTimer()
    trainer = _trainer(setup, scratch, [timer], logging_strategy="no")
    trainer.train()
    return timer.step_s()


def _trainer(
    setup: Setup, scratch: Path, callbacks: list[TrainerCallback], **changes: Any
) -> FtqSFTTrainer:
    """Build the same trainer for both sides; `changes` go into its arguments afterwards."""
    model = load_writer(setup.settings, setup.folder)
    trainer = build_sft(
        setup.settings, model, setup.tokenizer, setup.rows, None, scratch, callbacks
    )
    for name, value in changes.items():
        setattr(trainer.args, name, value)
    trainer.remove_callback(PrinterCallback)
    return trainer


def measure(setup: Setup, pairs: int) -> tuple[list[float], list[float]]:
    """Return the step times (seconds) of both sides, pair by pair."""
    times: dict[Callable[..., float], list[float]] = {watched: [], bare: []}
    for number in range(-1, pairs):  # the first pair only warms up
        for side in (watched, bare) if number % 2 else (bare, watched):
            with tempfile.TemporaryDirectory() as scratch:
                seconds = side(setup, Path(scratch))
            if number >= 0:
                times[side].append(seconds)
    return times[watched], times[bare]


def main() -> int:
    """Run the pairs and print one line per side and the ratio; 1 when it is above the limit."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    quiet_libraries()
    torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as folder:
        setup = make_setup(Path(folder), args.steps, args.hidden)
        on, off = measure(setup, max(args.pairs, 5))
    ratios = [a / b for a, b in zip(on, off, strict=True)]
    for name, values, unit, scale in (
        ("watched", on, "ms/step", 1e3),
        ("bare TRL, logging off", off, "ms/step", 1e3),
        ("ratio", ratios, "", 1.0),
        ("in ftq's callbacks", CALLBACK_S, "ms/step", 1e3),
    ):
        low, middle, high = (q * scale for q in statistics.quantiles(values, n=4))
        print(f"{name:24} median {middle:9.4f} {unit} (quartiles {low:.4f} to {high:.4f})")
    low = statistics.quantiles(ratios, n=4)[0]
    verdict = "within" if low <= LIMIT else "above"
    print(f"{len(ratios)} interleaved pairs; {verdict} the limit of {LIMIT:.2f}")
    return int(low > LIMIT)


if __name__ == "__main__":
    raise SystemExit(main())
