"""ftq's own phases in one process, as a worker's child runs them, and what they said."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

JOB = "ft-00000000"
Events = list[dict[str, Any]]


class Failed(Exception):
    """Raised with what the phases said last."""


def run(
    spec: Mapping[str, Any],
    storage: Path,
    gpus: int,
    *phases: str,
    kill_after: int | None = None,
    ranks: int = 1,
) -> Events:
    """Run phases (all but publish by default) with a card for each rank, and return their events.

    Without cards, ranks are processes on the CPU. With `kill_after` the process is killed at that
    step. Raises Failed.
    """
    storage.mkdir(parents=True, exist_ok=True)
    file = storage / "spec.yaml"
    file.write_text(json.dumps(spec))  # JSON is YAML
    wanted = [
        word for phase in phases or ("validate", "prepare", "train") for word in ("--phase", phase)
    ]
    command = [sys.executable, "-m", "ftq_worker.child", str(file), "--storage", str(storage)]
    log, events = storage / "log", []
    with (
        log.open("w") as errors,
        subprocess.Popen(
            [*command, "--gpus", str(min(ranks, gpus)), "--ranks", str(ranks), *wanted],
            env={**os.environ, "HF_HUB_OFFLINE": "1"},
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        ) as process,
    ):
        assert process.stdout
        for line in process.stdout:
            events.append(json.loads(line))
            if events[-1]["type"] == "step" and events[-1]["data"]["step"] == kill_after:
                process.kill()
                return events
    if process.returncode:
        raise Failed("\n".join(log.read_text().strip().splitlines()[-12:]))
    return events


def of(events: Events, kind: str) -> Iterator[dict[str, Any]]:
    """Yield the data of the events of one type."""
    return (event["data"] for event in events if event["type"] == kind)


def resolved(events: Events) -> dict[str, Any]:
    """Return what each `auto` became."""
    return {data["field"]: data["value"] for data in of(events, "resolved")}


def folder(storage: Path) -> Path:
    """Return where the job's files are."""
    return storage / "jobs" / JOB


def report(storage: Path) -> dict[str, Any]:
    """Return the train phase's report."""
    found: dict[str, Any] = json.loads((folder(storage) / "train.json").read_text())
    return found
