"""How soon a phase runs: ftq's warm start against a cold `python train.py` and `accelerate launch`.

    python -m benchmarks.warm_start [PAIRS]

The rivals are measured from the start of the command to the first line of a script that has
imported what a TRL fine-tune imports. Ours is measured three ways, by the events' own times: from
the end of one phase to the first line of the next phase's child, from the job's record to the
first line of its first child, and from the start of the `ftq submit` command to that line.
All in one run, one after the other in turn, on a broker, a Hub and a worker of the benchmark's own.
"""

import json
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import Any

from benchmarks.fleet import Fleet, fleet
from benchmarks.report import Table

TRAIN = """
import torch, transformers, trl, peft, datasets
from trl import SFTConfig, SFTTrainer
from peft import LoraConfig
print("ready", flush=True)
"""


def first_line_s(command: list[str]) -> float:
    """Return the seconds from the start of a command to its line `ready`."""
    started = time.monotonic()
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout
        for line in process.stdout:
            if line.startswith("ready"):
                return time.monotonic() - started
    raise RuntimeError(f"{command} printed no `ready`")


def ours(fleet: Fleet) -> dict[str, float]:
    """Run one job; return the seconds of each of our ways."""
    spec = ["--model", "demo/tiny-llama", "--dataset", "demo/colours", "--set", "train.max_steps=2"]
    started = time.time()
    done = fleet.ftq("submit", *spec, "--json")
    events = [json.loads(line) for line in done.stdout.splitlines()]
    queued = at(next(e for e in events if e["type"] == "state"))
    begun = {e["phase"]: at(e) for e in events if e["type"] == "phase_started"}
    ended = {e["phase"]: at(e) for e in events if e["type"] == "phase_finished"}
    return {
        "phase to phase": (begun["prepare"] - ended["validate"] + begun["train"] - ended["prepare"])
        / 2,
        "record to child": begun["validate"] - queued,
        "ftq submit": begun["validate"] - started,
    }


def at(event: dict[str, Any]) -> float:
    """Return an event's time in seconds."""
    return datetime.fromisoformat(event["time"]).timestamp()


def main(pairs: int = 7) -> None:
    """Measure in turn and print the ratios."""
    table = Table("seconds to the first line")
    with fleet() as mine:
        script = mine.root / "train.py"
        script.write_text(TRAIN)
        accelerate = [
            str(Path(sys.executable).parent / "accelerate"),
            "launch",
            "--cpu",
            str(script),
        ]
        ours(mine)  # the first job also warms the page cache, for all of them
        for _ in range(pairs):
            table.add("python train.py", first_line_s([sys.executable, str(script)]))
            table.add("accelerate launch", first_line_s(accelerate))
            for name, seconds in ours(mine).items():
                table.add(name, seconds)
    table.show()
    for name in ("phase to phase", "record to child", "ftq submit"):
        for rival in ("python train.py", "accelerate launch"):
            table.show_ratio(rival, name)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]))
