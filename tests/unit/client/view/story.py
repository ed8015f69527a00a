"""A job as a person would see it.

python tests/unit/client/view/story.py PAUSE [refused]    plays it
"""

import math
import random
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from ftq_shared.events import Event, EventType, finite
from ftq_shared.states import Phase

JOB = "ft-7k3q9xhd"
QUESTION = (
    "Natalia sold clips to 48 of her friends in April, and then she sold half as many clips in "
    "May. How many clips did Natalia sell altogether in April and May?"
)
ANSWER = "Natalia sold 48/2 = 24 clips in May.\nShe sold 48+24 = 72 clips altogether.\n#### 72"


class Teller:
    """Makes events with numbers and times that go up."""

    def __init__(self, job: str = JOB) -> None:
        self.job, self.seq, self.attempt, self.host = job, 0, 1, ""
        self.phase: Phase | None = None
        self.now = datetime(2026, 1, 2, 11, 3, 4, tzinfo=UTC)

    def __call__(self, type_: EventType | str, after_s: float = 0.05, **data: Any) -> Event:
        self.seq += 1
        self.now += timedelta(seconds=after_s)
        time_ = self.now.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        return Event(
            self.job,
            self.seq,
            self.attempt,
            self.host,
            time_,
            self.phase,
            EventType(type_),
            finite(data),
        )


def phase(tell: Teller, which: Phase, host: str = "gpu-03") -> Iterator[Event]:
    tell.phase = which
    yield tell("state", state="queued")
    tell.host = host
    yield tell("state", state="placed")
    yield tell("state", state="running")
    devices = ["cuda:0"] if which is Phase.TRAIN else ["cpu"]
    yield tell("phase_started", pid=4711, devices=devices, warm=True)


def validate(tell: Teller) -> Iterator[Event]:
    tell.phase = Phase.VALIDATE
    yield tell("state", state="queued")
    yield tell("waiting", reason="no worker is online", unblock="start one: ftq worker", position=1)
    yield from phase(tell, Phase.VALIDATE)
    for name, message in (
        ("model", "Qwen/Qwen3-0.6B, 0.6B parameters, pinned to c1899de289a0"),
        ("dataset", "openai/gsm8k:main, pinned to 740312add88f"),
        ("licence", "apache-2.0 (model), mit (dataset)"),
        ("task", "question/answer columns and a decoder: sft"),
        ("target", "me/qwen-gsm8k does not exist yet; the token may create it"),
        ("disk", "14 GB needed, 412 GB free"),
    ):
        yield tell("check", 0.3, name=name, ok=True, message=message, seconds=0.3)
    yield tell("phase_finished", seconds=2.1)


def prepare(tell: Teller) -> Iterator[Event]:
    yield from phase(tell, Phase.PREPARE)
    for part in range(11):
        yield tell(
            "progress",
            0.2,
            task="download openai/gsm8k",
            done=part * 231_400,
            total=2_314_000,
            unit="bytes",
        )
    yield tell(
        "dataset",
        rows=7473,
        columns=["question", "answer"],
        splits={"train": 7473, "test": 1319},
        shape="question/answer",
        task="sft",
        tokens={"p50": 151, "p90": 243, "p99": 341, "max": 489},
        source="openai/gsm8k:main",
    )
    yield tell(
        "golden",
        rows=1000,
        source="test",
        sha256="9f2c11d04be1aa",
        reason="up to 1,000 from a test split",
        strata={"short": 334, "medium": 333, "long": 333},
        validation_rows=149,
        removed_from_train=2,
    )
    for rule, rows_in, rows_out, more in (
        (
            "empty_field",
            7473,
            7471,
            {
                "examples": [
                    {"file": "train.jsonl", "line": 88, "field": "answer", "problem": "empty"}
                ]
            },
        ),
        ("exact_duplicates", 7471, 7468, {}),
        ("in_golden_or_validation", 7468, 7317, {"reason": "they judge the model"}),
        ("untrainable", 7317, 7317, {}),
        ("too_long", 7317, 7317, {}),
    ):
        yield tell("cleaning", rule=rule, rows_in=rows_in, rows_out=rows_out, **more)
    text = f"<|im_start|>user\n{QUESTION}<|im_end|>\n<|im_start|>assistant\n{ANSWER}<|im_end|>\n"
    yield tell("sample", row=0, text=text, trained=f"{ANSWER}<|im_end|>\n", tokens=118, set="train")
    yield tell(
        "sample", row=17, text="[red]not red[/red] \x1b[31mnor this\x1b[0m", tokens=9, set="golden"
    )
    for field, value, reason in (
        ("train.method", "lora", "a decoder"),
        ("train.max_length", 489, "the longest row of the sample"),
        ("train.epochs", 2, "SFT with 5,000 to 50,000 rows"),
    ):
        yield tell("resolved", field=field, value=value, reason=reason)
    for done in range(0, 7318, 1219):
        yield tell("progress", 0.4, task="tokenize", done=min(done, 7317), total=7317, unit="rows")
    yield tell("progress", 0.4, task="tokenize", done=7317, total=7317, unit="rows")
    yield tell("phase_finished", seconds=7.8)


def train(tell: Teller, steps: int = 120, step_s: float = 0.4) -> Iterator[Event]:
    chance = random.Random(7)
    yield from phase(tell, Phase.TRAIN)
    yield tell("resolved", field="train.micro_batch", value=8, reason="85 % of 80 GB")
    yield tell("resolved", field="train.precision", value="bf16", reason="NVIDIA H100")
    yield tell("log", line="Loading weights: 100%", stream="stderr")
    yield tell(
        "eval",
        3.0,
        set="golden",
        when="before",
        loss=2.3104,
        loss_low=2.2231,
        loss_high=2.3977,
        rows=1000,
        tokens_accuracy=0.534,
        seconds=2.9,
    )
    yield tell(
        "memory",
        peak_bytes=41_200_000_000,
        card_bytes=85_000_000_000,
        counted_bytes=41_900_000_000,
        step=2,
    )
    for step in range(1, steps + 1):
        loss = 0.62 + 1.7 * math.exp(-step / 30) + chance.uniform(-0.08, 0.08)
        yield tell(
            "step",
            step_s,
            step=step,
            steps=steps,
            epoch=2 * step / steps,
            loss=loss,
            lr=2e-4 * (1 - step / steps),
            grad_norm=0.4 + chance.random(),
            step_s=step_s,
            tokens_per_s=5120 + chance.randrange(-300, 300),
            eta_s=(steps - step) * step_s,
            tokens_accuracy=min(0.53 + step / 400, 0.83),
        )
        if step % (steps // 3) == 0:
            yield tell(
                "eval",
                1.0,
                set="validation",
                when="during",
                step=step,
                loss=loss + 0.05,
                best=True,
                rows=149,
                seconds=0.9,
            )
            yield tell(
                "checkpoint",
                0.5,
                step=step,
                path=f"checkpoints/a1/step-{step}",
                bytes=41_234_567,
                seconds=0.4,
                best=True,
            )
    yield tell(
        "warning", message="7 rows had no answer after the template", hint="look at data.columns"
    )
    yield tell("phase_finished", seconds=steps * step_s + 10)


def publish(tell: Teller) -> Iterator[Event]:
    yield from phase(tell, Phase.PUBLISH)
    yield tell(
        "eval",
        3.0,
        set="golden",
        when="after",
        loss=0.6213,
        loss_low=0.5902,
        loss_high=0.6524,
        rows=1000,
        tokens_accuracy=0.812,
        seconds=2.7,
    )
    yield tell(
        "verification",
        name="reload",
        ok=True,
        message="loaded afresh, its golden loss is what training measured: 0.6213",
        before=2.3104,
        after=0.6213,
    )
    for done in range(0, 42_000_001, 6_000_000):
        yield tell(
            "progress", 0.3, task="upload me/qwen-gsm8k", done=done, total=42_000_000, unit="bytes"
        )
    yield tell("verification", name="hashes", ok=True, message="9 files read back, all equal")
    yield tell(
        "published",
        repo="me/qwen-gsm8k",
        revision="4be1aa9f2c11d04be1aa9f2c",
        private=True,
        files=9,
        url="https://huggingface.co/me/qwen-gsm8k",
    )
    yield tell("phase_finished", seconds=9.4)
    yield tell("state", state="succeeded", outcome="succeeded", exit_code=0)


def story(steps: int = 120) -> Iterator[Event]:
    """Yield the events of a job that goes well."""
    tell = Teller()
    yield from validate(tell)
    yield from prepare(tell)
    yield from train(tell, steps)
    yield from publish(tell)


def refused() -> Iterator[Event]:
    """Yield the events of a job that validation refuses."""
    tell = Teller("ft-badmodel")
    yield from phase(tell, Phase.VALIDATE)
    yield tell(
        "check",
        name="model",
        ok=False,
        message="Qwen/Qwen3-0.6 is not on the Hub",
        hint="the nearest names: Qwen/Qwen3-0.6B, Qwen/Qwen3-8B",
    )
    yield tell(
        "error",
        code="model_not_found",
        message="Qwen/Qwen3-0.6 is not on the Hub",
        field="model",
        nearest=["Qwen/Qwen3-0.6B", "Qwen/Qwen3-8B"],
        hint="check the name, or: ftq search models qwen3",
        exit_code=5,
    )
    yield tell("state", state="failed", outcome="failed", exit_code=5)


def play(events: Iterator[Event], pause_s: float) -> None:
    from ftq_client.view import make_view

    view = make_view(sys.stdout, names={JOB: "qwen-gsm8k"})
    try:
        for event in events:
            view.event(event)
            time.sleep(pause_s)
    finally:
        view.close()


if __name__ == "__main__":
    play(refused() if "refused" in sys.argv else story(), float(sys.argv[1]))
