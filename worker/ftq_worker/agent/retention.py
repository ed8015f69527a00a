"""What a host removes of ended jobs, by itself and on `ftq prune`: by age, state and room.

Work files are all but the model, the reports and the events: inputs, prepared sets, checkpoints.
A job that was removed whole starts over when it is retried. What is going on is never touched.
"""

import contextlib
import json
import logging
import secrets
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict

from ftq_shared import keys
from ftq_shared.job_record import JobRecord
from ftq_shared.lifetimes import (
    KEEP_ENDED_S,
    KEEP_ENDED_SHORT_OF_ROOM_S,
    KEEP_PUBLISHED_S,
    KEEP_WORK_S,
    LITTLE_ROOM,
)
from ftq_shared.paths import JobPaths
from ftq_shared.states import JobState
from ftq_shared.store import JobStore

if TYPE_CHECKING:
    from redis import Redis

log = logging.getLogger(__name__)

Part = Literal["work files", "everything"]


class PruneRequest(TypedDict):
    """What a client publishes on the control channel."""

    prune: str  # names the list that the client reads
    dry_run: bool
    older_than_s: float  # since the job's end
    models: bool  # whether models of succeeded jobs may go
    jobs: list[str] | None  # only these; None for all


@dataclass(frozen=True)
class Removal:
    """A part of one job that may go."""

    job: str
    part: Part
    bytes: int
    why: str
    removed: bool = False


@dataclass(frozen=True)
class Ages:
    """Seconds after its end from which a part of a job may go; None: it stays."""

    work: float | None  # of a job that succeeded
    ended: float | None  # everything of one that failed or was cancelled
    published: float | None  # everything of one whose model is on the Hub
    model: float | None  # everything of any other that succeeded


ALWAYS = Ages(KEEP_WORK_S, KEEP_ENDED_S, KEEP_PUBLISHED_S, None)
ASIDE = ".removed-"  # how the folder of a job is named that is being removed
SHORT_OF_ROOM = Ages(0.0, KEEP_ENDED_SHORT_OF_ROOM_S, KEEP_PUBLISHED_S, KEEP_PUBLISHED_S)


class Retention:
    """Removes what may go from one storage."""

    def __init__(self, store: JobStore, storage: Path) -> None:
        self._store, self._storage = store, storage

    def sweep(self) -> list[Removal]:
        """Remove what is old; where there is little room, more of it, the oldest first.

        What an earlier removal could not finish is removed as well.
        """
        for aside in (self._storage / "jobs").glob(f"{ASIDE}*"):
            try:
                _delete(aside)
            except OSError as error:
                log.warning("%s stays: %s", aside, error, extra={"action": "pruned"})
        removed = list(self._remove(self._candidates(ALWAYS)))
        if not self._has_room():
            for one in self._candidates(SHORT_OF_ROOM):
                removed += self._remove([one])
                if self._has_room():
                    break
        return removed

    def prune(self, request: PruneRequest) -> Iterator[Removal]:
        """Remove, or only name, what a person asked for."""
        age = request["older_than_s"]
        model = age if request["models"] else None
        found = self._candidates(Ages(age, age, model, model), request)
        yield from found if request["dry_run"] else self._remove(found)

    def _has_room(self) -> bool:
        disk = shutil.disk_usage(self._storage)
        return disk.free >= LITTLE_ROOM * disk.total

    def _candidates(self, ages: Ages, request: PruneRequest | None = None) -> list[Removal]:
        """Return what may go, jobs that ended first before others."""
        found = []
        for record in sorted(self._ended(), key=lambda record: record.ended_ms):
            if request and request["jobs"] is not None and record.id not in request["jobs"]:
                continue
            if one := self._judge(record, ages):
                found.append(one)
        return found

    def _ended(self) -> list[JobRecord]:
        """Return the records of the jobs in this storage that have ended.

        A folder without a record stays: the broker may have lost its memory, and then the folder
        is all that there is.
        """
        folders = [f.name for f in (self._storage / "jobs").glob("ft-*") if keys.is_job_id(f.name)]
        records: list[JobRecord] = []
        for start in range(0, len(folders), 200):
            records += self._store.get_many(folders[start : start + 200])
        return [record for record in records if record.state.terminal and record.ended_ms]

    def _judge(self, record: JobRecord, ages: Ages) -> Removal | None:
        age_s = self._store.now_s() - record.ended_ms / 1000
        paths = JobPaths(self._storage, record.id)
        if record.state is not JobState.SUCCEEDED or "replay_of" in record.summary:
            whole = ages.ended
        else:
            whole = ages.published if paths.published.exists() else ages.model
        ended = f"{record.state} {age_s / 86400:.1f} days ago"
        if whole is not None and age_s >= whole:
            return Removal(record.id, "everything", _size([paths.root]), ended)
        if record.state is JobState.SUCCEEDED and ages.work is not None and age_s >= ages.work:
            size = _size(_work_files(paths))
            return Removal(record.id, "work files", size, ended) if size else None
        return None

    def _remove(self, removals: Iterable[Removal]) -> Iterator[Removal]:
        for one in removals:
            records = self._store.get_many([one.job])
            if not records or not records[0].state.terminal:
                continue  # somebody has retried it since
            if one.job in {it.summary.get("replay_of") for it in self._store.leased()}:
                continue  # a step of it is being replayed
            paths = JobPaths(self._storage, one.job)
            extra = {"action": "pruned", "job": one.job, "part": one.part, "bytes": one.bytes}
            try:
                whole = one.part == "everything"
                for target in [_set_aside(paths)] if whole else _work_files(paths):
                    _delete(target)
            except OSError as error:  # what is said to be gone is gone
                log.warning("%s of %s stays: %s", one.part, one.job, error, extra=extra)
                why = f"{one.why}, could not be removed: {error.strerror}"
                yield replace(one, why=why)
                continue
            log.info("removed %s of %s, which %s", one.part, one.job, one.why, extra=extra)
            yield replace(one, removed=True)


def _set_aside(paths: JobPaths) -> Path:
    """Move a job's folder out of the way: a retry that comes now makes another one."""
    aside = paths.root.with_name(f"{ASIDE}{paths.job}-{secrets.token_hex(4)}")
    return paths.root.rename(aside)


def _delete(folder: Path) -> None:
    """Remove a folder, though another host of this storage may be removing it as well."""
    while folder.exists():
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(folder)


def _work_files(paths: JobPaths) -> list[Path]:
    """Return the folders of a job that only its phases need."""
    claims = paths.root.glob("attempts/*/")
    folders = [f for claim in claims for f in claim.iterdir() if f.is_dir()]
    return [f for f in (paths.inputs, paths.prepared, *folders) if f.exists()]


def _size(folders: Iterable[Path]) -> int:
    """Return the bytes of all files; what vanishes meanwhile counts nothing."""
    total = 0
    for folder in folders:
        for file in folder.rglob("*"):
            try:
                total += file.lstat().st_size if file.is_file() else 0
            except OSError:
                continue
    return total


def answer_prune(binary: "Redis", retention: Retention, storage: str, request: Any) -> None:
    """Do what a client asks for, once in each storage, and list it where the client reads."""
    key = keys.relay(str(request["prune"]))
    if not binary.set(f"{key}:{storage}:taken", "1", nx=True, ex=3600):
        return
    try:
        done = [asdict(one) for one in retention.prune(_read(request))]
        answer: dict[str, Any] = {"storage_id": storage, "removed": done}
    except (OSError, KeyError, ValueError, TypeError) as error:
        log.error("prune: %r", error, extra={"action": "prune_failed"})
        answer = {"storage_id": storage, "removed": [], "error": str(error) or repr(error)}
    binary.rpush(key, json.dumps(answer))
    binary.expire(key, 600)


def _read(raw: Mapping[str, Any]) -> PruneRequest:
    """Check what came over the channel. Raises KeyError, ValueError, TypeError."""
    jobs = raw["jobs"]
    return PruneRequest(
        prune=str(raw["prune"]),
        dry_run=raw["dry_run"] is not False,
        older_than_s=max(0.0, float(raw["older_than_s"])),
        models=raw["models"] is True,
        jobs=None if jobs is None else [str(job) for job in jobs],
    )
