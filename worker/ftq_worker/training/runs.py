"""How each training of a job began: what a replay needs to do a step again as it was done.

A job is trained in runs: one for each attempt, and one more in the same process after each fault
that was outlived. Each notes, before its first step, where it went on from and with which settings,
one line in `attempts/<claim>/runs.jsonl`. Steps are told apart by the run's time: a claim's events
and its runs come from one process.
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ftq_shared.events import utc_now
from ftq_shared.paths import JobPaths
from ftq_shared.row_refs import RowRef, dump_refs, load_refs
from ftq_worker.job.context import PhaseContext
from ftq_worker.training.checkpoints import Checkpoint, data_id
from ftq_worker.training.settings import TrainSettings

LIBRARIES = ("torch", "transformers", "trl", "peft", "accelerate", "datasets", "huggingface_hub")


@dataclass(frozen=True)
class Run:
    """One beginning of a training."""

    claim: str
    token: int  # the claim's number
    begun: str  # RFC 3339, as in events
    after_step: int  # its first step is the next one
    checkpoint: str  # that it went on from, relative to the job's folder; '' for the base model
    data: str  # what it trained on, see `checkpoints.data_id`
    settings: TrainSettings
    device: str  # for people
    cpu_threads: int
    versions: Mapping[str, str]  # libraries
    left_out: tuple[RowRef, ...]  # rows that it left out by name
    diverged: int | None = None  # the first bad step, where it ended by that


@cache
def versions() -> Mapping[str, str]:
    """Return the versions of the libraries that a training's numbers depend on."""
    return MappingProxyType({name: version(name) for name in LIBRARIES})


def note_run(
    ctx: PhaseContext,
    settings: TrainSettings,
    resume: Checkpoint | None,
    device: str,
    left_out: Sequence[RowRef],
) -> None:
    """Write down how a training begins, before its first step; rank 0 does it for all."""
    path = resume.path.relative_to(ctx.paths.root).as_posix() if resume else ""
    _append(
        ctx,
        {
            "begun": utc_now(),
            "after_step": resume.step if resume else 0,
            "checkpoint": path,
            "data": data_id(ctx.paths),
            "settings": settings.to_record(),
            "device": device,
            "cpu_threads": ctx.devices.cpu_threads,
            "versions": dict(versions()),
            "left_out": json.loads(dump_refs(left_out)),
        },
    )


def note_divergence(ctx: PhaseContext, onset: int) -> None:
    """Write down that the run that began last has diverged from step `onset` on."""
    _append(ctx, {"diverged": onset})


def _append(ctx: PhaseContext, line: Mapping[str, Any]) -> None:
    if ctx.devices.rank != 0:
        return
    path = ctx.paths.runs(ctx.claim)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line, separators=(",", ":")) + "\n")
        file.flush()
        os.fsync(file.fileno())


def read_runs(paths: JobPaths, fresh_after: int = 0) -> list[Run]:
    """Return the runs of a job's present training, oldest first; what cannot be read is left out.

    Those of tokens up to `fresh_after` were given up: the phase was started afresh.
    """
    found = [run for folder in claim_folders(paths) for run in _runs_of(paths, folder)]
    return [run for run in found if run.token > fresh_after]


def claim_folders(paths: JobPaths) -> list[Path]:
    """Return the folders of a job's claims, the oldest first."""
    folders = [f for f in paths.root.glob("attempts/*") if f.name.split("-")[0].isdecimal()]
    return sorted(folders, key=lambda f: (token_of(f.name), f.stat().st_mtime))


def token_of(claim: str) -> int:
    """Return the number in a claim's name."""
    return int(claim.split("-")[0])


def _runs_of(paths: JobPaths, folder: Path) -> Iterator[Run]:
    made: Run | None = None
    for line in _lines(paths.runs(folder.name)):
        try:
            raw = json.loads(line)
            if "diverged" in raw:
                made = made and _with(made, int(raw["diverged"]))
                continue
            begun = _read(folder.name, raw)
        except (ValueError, KeyError, TypeError, AttributeError):
            continue  # cut off, or of another version
        if made:
            yield made
        made = begun
    if made:
        yield made


def _with(run: Run, diverged: int) -> Run:
    return Run(**{**vars(run), "diverged": diverged})


def _read(claim: str, raw: Mapping[str, Any]) -> Run:
    return Run(
        claim=claim,
        token=token_of(claim),
        begun=str(raw["begun"]),
        after_step=int(raw["after_step"]),
        checkpoint=str(raw["checkpoint"]),
        data=str(raw["data"]),
        settings=TrainSettings.from_record(raw["settings"]),
        device=str(raw["device"]),
        cpu_threads=int(raw["cpu_threads"]),
        versions=dict(raw["versions"]),
        left_out=load_refs(json.dumps(raw["left_out"])),
    )


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return []
