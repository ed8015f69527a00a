"""Checkpoints that are complete or absent, and the choice of the one to resume from.

attempts/<claim>/checkpoints/
    .part/checkpoint-<step>/      where the trainer writes
    checkpoint-<step>/            moved here once all is on disk
        manifest.json             written last: step, token, data, the sha256 of every other file
    best-<step>/                  weights alone, of the best evaluation; see best_weights
checkpoint.json                   the newest and the best one, switched by os.replace

So a checkpoint is complete or absent: one whose writing was cut off stays in .part, where nobody
looks. One that does not match its manifest is damaged: it is skipped with a warning, and an older
one is taken. One that was trained on other data, before the job was prepared again, does not count.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Container, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NotRequired, TypedDict, cast

from ftq_shared.paths import JobPaths, read_json, write_json
from ftq_worker.job.atomic_folders import PART, sync
from ftq_worker.job.reports import RowFigures

MANIFEST = "manifest.json"
STATE = "trainer_state.json"
WHOLE, BEST = "checkpoint", "best"  # what folders are named by
KEEP_NEWEST = 2


class FileEntry(TypedDict):
    """One file in a manifest."""

    sha256: str
    bytes: int


class RunFigures(TypedDict, total=False):
    """What an earlier attempt has measured and a later one goes on from."""

    golden_before: dict[str, float]
    golden_rows: list[int]  # as in GoldenScores
    golden_scores: list[RowFigures]
    seconds: float  # of training, over all attempts
    train_loss: float | None  # of the last step
    best_rows: list[float]  # summed loss of each validation row at the best evaluation
    losses: list[float]  # of the steps since the last evaluation
    recent_losses: list[float]  # as in LossWatch
    steps_above: int  # as in LossWatch
    bad_norms: int  # steps in a row whose gradient had no norm
    learning_rate: float  # the peak, of the schedule that was saved
    best_step: int | None  # of the best evaluation so far
    memory: dict[str, int]  # on a GPU: what its first steps held, see EventType.MEMORY


class Pointer(TypedDict):
    """What checkpoint.json holds."""

    path: str  # relative to the job's folder
    step: int
    token: int
    data: NotRequired[str]  # absent in files of ftq 0.1.0
    manifest_sha256: str
    best: dict[str, int] | None  # its step


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint on disk that has a manifest."""

    path: Path
    step: int
    token: int  # number of the claim that wrote it
    files: dict[str, FileEntry]  # by relative name
    facts: RunFigures = field(default_factory=RunFigures)
    data: str = ""  # what it was trained on; '' in checkpoints of ftq 0.1.0

    @property
    def bytes(self) -> int:
        return sum(entry["bytes"] for entry in self.files.values())


def hash_files(path: Path) -> dict[str, FileEntry]:
    """Hash and sync every file of a checkpoint in .part."""
    names = sorted(p.relative_to(path).as_posix() for p in path.rglob("*") if p.is_file())
    return {name: _hash_and_sync(path / name) for name in names if name != MANIFEST}


def seal(
    path: Path,
    *,
    step: int,
    token: int,
    data: str,
    facts: RunFigures,
    files: dict[str, FileEntry] | None = None,
) -> Checkpoint:
    """Write the manifest of a checkpoint in .part, and move it out.

    `data` names what it was trained on (`data_id`); `files` are those of `hash_files`, which is
    called where they are not given.
    """
    files = hash_files(path) if files is None else files
    manifest = {"step": step, "token": token, "data": data, "files": files, "facts": facts}
    write_json(path / MANIFEST, manifest)
    sync(path)
    target = path.parent.parent / path.name
    if target.exists():  # the step was saved already, by an evaluation that was the best
        remove(target)
    path.replace(target)
    sync(target.parent)
    return Checkpoint(target, step, token, files, facts, data)


def part_folder(paths: JobPaths, claim: str) -> Path:
    """Return where a claim's trainer writes: the output folder it is given."""
    return paths.checkpoints(claim) / PART


def data_id(paths: JobPaths) -> str:
    """Return what tells the prepared data of a job from any other: the hash of their report."""
    return _sha256(paths.prepared_report)


def switch(paths: JobPaths, newest: Checkpoint, best_step: int | None) -> None:
    """Make `newest` the job's checkpoint; call `owner.check_lease` first.

    The token in the file that is replaced does not tell whose claim holds: a broker that was
    rolled back has forgotten higher numbers.
    """
    pointer: Pointer = {
        "path": newest.path.relative_to(paths.root).as_posix(),
        "step": newest.step,
        "token": newest.token,
        "data": newest.data,
        "manifest_sha256": _sha256(newest.path / MANIFEST),
        "best": {"step": best_step} if best_step is not None else None,
    }
    write_json(paths.checkpoint, pointer)


def read_pointer(paths: JobPaths) -> Pointer | None:
    """Return checkpoint.json; None when it is missing or damaged.

    It only shows which checkpoint has gone: the choice rests on the folders.
    """
    try:
        pointer = read_json(paths.checkpoint)
    except (ValueError, OSError):
        return None
    whole = isinstance(pointer, dict) and all(
        isinstance(pointer.get(name), int) for name in ("step", "token")
    )
    return cast(Pointer, pointer) if whole else None


def candidates(paths: JobPaths, kind: str = WHOLE) -> list[Checkpoint]:
    """Return every checkpoint of all attempts that has a readable manifest, newest step first."""
    found = [c for folder in _folders(paths, kind) if (c := read_manifest(folder))]
    return sorted(found, key=lambda c: (c.step, c.token), reverse=True)


def read_manifest(folder: Path) -> Checkpoint | None:
    """Read a checkpoint's manifest; None when it is missing or not one of ours."""
    try:
        raw = json.loads((folder / MANIFEST).read_text())
        return Checkpoint(
            folder,
            int(raw["step"]),
            int(raw["token"]),
            dict(raw["files"]),
            cast(RunFigures, dict(raw["facts"])),
            str(raw.get("data", "")),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def damage(checkpoint: Checkpoint) -> str | None:
    """Return what is wrong with a checkpoint, None when every file has its size and hash."""
    if STATE not in checkpoint.files and checkpoint.path.name.startswith(WHOLE):
        return f"{STATE} is not in its manifest"
    for name, entry in checkpoint.files.items():
        path = checkpoint.path / name
        try:
            if path.stat().st_size != entry["bytes"]:
                return f"{name} has {path.stat().st_size} bytes instead of {entry['bytes']}"
            if _sha256(path) != entry["sha256"]:
                return f"{name} does not have the hash of its manifest"
        except (OSError, KeyError, TypeError) as error:
            return f"{name} cannot be read ({type(error).__name__})"
    return None


def newest_good(
    paths: JobPaths, data: str, fresh_after: int = 0
) -> tuple[Checkpoint | None, list[str]]:
    """Return the newest checkpoint that matches its manifest, and what is wrong with newer ones.

    Only those of these data, and of tokens after `fresh_after`, count. Where none is left, the
    problems say why a training that had checkpoints has none now; they are empty if it had none.
    """
    problems = [f"{f.name}: no readable manifest" for f in _folders(paths) if _looks_broken(f)]
    for checkpoint in of_this_run(paths, data, fresh_after):
        problem = damage(checkpoint)
        if problem is None:
            return checkpoint, problems
        problems.append(f"checkpoint-{checkpoint.step}: {problem}")
    return None, problems or _missed(paths, data, fresh_after)


def of_this_run(
    paths: JobPaths, data: str, fresh_after: int = 0, kind: str = WHOLE
) -> list[Checkpoint]:
    """Return the checkpoints of this training, newest step first, sound or damaged."""
    return [c for c in candidates(paths, kind) if c.token > fresh_after and c.data in ("", data)]


def _missed(paths: JobPaths, data: str, fresh_after: int) -> list[str]:
    """Return why the checkpoint that the pointer names is not to be had; empty without one."""
    pointer = read_pointer(paths)
    if not pointer or pointer["token"] <= fresh_after:
        return []
    name = f"checkpoint-{pointer['step']}"
    if pointer.get("data", data) != data:
        return [f"{name} is of other data: the job was prepared anew since"]
    return [f"{name} is gone"]


def prune(paths: JobPaths, token: int, best_step: int | None, fresh_after: int = 0) -> None:
    """Remove all but the two newest checkpoints of a claim's training and its best one.

    Steps of earlier claims that are later than this claim's newest one do not count: this claim
    did not resume from them, because they were damaged, of other data or given up. Checkpoints of
    later claims are not touched.
    """
    known = [c for c in candidates(paths) if c.token <= token]
    newest = next((c for c in known if c.token == token), None)
    if newest is None:
        return
    line = [
        c
        for c in known
        if c.step <= newest.step and c.token > fresh_after and c.data in ("", newest.data)
    ]
    newest_ones = line[:KEEP_NEWEST]
    wanted = {best_step, *(c.facts.get("best_step") for c in newest_ones)}
    kept = {c.path for c in [*newest_ones, *(c for c in line if c.step in wanted)]}
    for checkpoint in known:
        if checkpoint.path not in kept:
            remove(checkpoint.path)


def prune_weights(paths: JobPaths, best_step: int | None, tokens: Container[int]) -> None:
    """Remove the weights that claims of `tokens` kept, but for those that still are the best.

    That is for the run as it is and for each checkpoint: a run that is resumed from one may come
    to another best on a card than before.
    """
    wanted = {best_step} | {c.facts.get("best_step") for c in candidates(paths)}
    for kept in candidates(paths, BEST):
        if kept.step not in wanted and kept.token in tokens:
            remove(kept.path)


def roll_back(paths: JobPaths, data: str, token: int, fresh_after: int, onset: int) -> None:
    """Remove the checkpoints of this training from step `onset` on; call `owner.check_lease` first.

    The newest goes first: where this is cut off, what is left is a training that comes to the same
    step again.
    """
    mine = [c for c in of_this_run(paths, data, fresh_after) if c.token <= token]
    good = next((c for c in mine if c.step < onset), None)
    pointer = read_pointer(paths)
    if good is None:
        paths.checkpoint.unlink(missing_ok=True)
    elif pointer and pointer["step"] >= onset:
        switch(paths, good, (pointer["best"] or {}).get("step"))
    for checkpoint in mine:
        if checkpoint.step >= onset:
            remove(checkpoint.path)
    for kept in of_this_run(paths, data, fresh_after, BEST):
        if kept.token <= token and kept.step > (good.step if good else 0):
            remove(kept.path)  # of steps that are trained again


def remove(folder: Path) -> None:
    """Remove a checkpoint, its manifest first: without one, the rest does not count."""
    (folder / MANIFEST).unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


def last_trained(paths: JobPaths, data: str, fresh_after: int, step: int) -> Checkpoint | None:
    """Return what holds the weights of a step, sound or damaged; None where nothing does.

    Of a step that was trained more than once, the last time counts: a claim that has come to it
    again has written over what it had, or written a whole checkpoint.
    """
    kept = [c for kind in (WHOLE, BEST) for c in of_this_run(paths, data, fresh_after, kind)]
    return find_step(sorted(kept, key=lambda c: -c.token), step)


def find_step(found: list[Checkpoint], step: int | None) -> Checkpoint | None:
    """Return the newest claim's checkpoint of one step, None when there is none."""
    return next((c for c in found if c.step == step), None)


def _folders(paths: JobPaths, kind: str = WHOLE) -> Iterator[Path]:
    return paths.root.glob(f"attempts/*/checkpoints/{kind}-*")


def _looks_broken(folder: Path) -> bool:
    """Return whether a manifest is there and cannot be read: damaged, not merely unfinished."""
    return (folder / MANIFEST).exists() and read_manifest(folder) is None


def _hash_and_sync(path: Path) -> FileEntry:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        os.fsync(file.fileno())
    return {"sha256": digest, "bytes": path.stat().st_size}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
