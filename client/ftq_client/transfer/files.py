"""How the client's own files reach the workers, and results the client.

Roads, in order: a storage that both share; chunks through the broker, up to 64 MiB a job; a private
Hub repo, with consent (`hub_road`); else the ways are named and nothing is sent.
"""

import hashlib
import json
import os
import secrets
import shutil
import tarfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from glob import glob
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftq_shared import keys
from ftq_shared.errors import FtqError, UsageError
from ftq_shared.hosts import HostRecord
from ftq_shared.job_record import InputFile
from ftq_shared.paths import JobPaths
from ftq_shared.settings import Settings
from ftq_shared.sources import DATA_SUFFIXES, Place, parse_source
from ftq_shared.spec import JobSpec

if TYPE_CHECKING:
    from redis import Redis

    from ftq_client.transfer.hub_route import HubRoad

FETCH_WAIT_S = 30.0  # for the first piece, and between two


@dataclass(frozen=True)
class LocalFile:
    """One file on this machine and its place in the job's inputs."""

    source: Path
    path: str  # relative to the inputs folder
    size: int  # bytes


def local_files(spec: JobSpec) -> list[LocalFile]:
    """Return the client's own files that a spec names. Raises UsageError when there are none."""
    found: list[LocalFile] = []
    for what, text in (("model", spec.model), ("dataset", spec.dataset)):
        source = parse_source(text, what=what)
        if source.place is Place.CLIENT:
            found += list(files_of(what, source.name))
    return found


def files_of(what: str, name: str) -> Iterator[LocalFile]:
    """Yield the files of one path: a file, a folder or a glob."""
    path = Path(name)
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file())
        pairs = [(file, file.relative_to(path)) for file in files if file.name[0] != "."]
    else:
        files = [path] if path.is_file() else [Path(p) for p in sorted(glob(name, recursive=True))]
        files = [file for file in files if file.is_file()]
        # Two files of one name in two folders stay two files.
        top = Path(os.path.commonpath([file.parent for file in files])) if files else path
        pairs = [(file, file.relative_to(top)) for file in files]
    if what == "dataset":
        pairs = [(file, to) for file, to in pairs if file.suffix in DATA_SUFFIXES]
    if not pairs:
        kinds = f" with {', '.join(DATA_SUFFIXES)}" if what == "dataset" else ""
        raise UsageError(
            f"{what}: there is no file{kinds} at {name}",
            code="no_such_file",
            hint=f"looked from {Path.cwd()}; a Hub id has no leading ./",
            field=what,
        )
    for file, to in pairs:
        yield LocalFile(file, f"{what}/{to.as_posix()}", file.stat().st_size)


def send_inputs(
    binary: "Redis",
    settings: Settings,
    hosts: Sequence[HostRecord],
    job: str,
    spec: JobSpec,
    hub: "HubRoad",
) -> list[InputFile]:
    """Bring the client's files on their way; return what the job record says of them.

    Raises UsageError when they are too large for every road that is open, and what HubRoad.send
    raises.
    """
    files = local_files(spec)
    if not files:
        return []
    if shares_storage(settings, hosts):
        paths = JobPaths(storage_root(settings), job)
        return [_copy(file, paths) for file in files]
    if refusal := _broker_refuses(binary, files):
        if hub.consents(job, refusal.message):
            return hub.send(job, files)
        raise refusal
    binary.zadd(keys.INPUT_SIZES, {job: _size(files)})
    return [_chunked(binary, job, file) for file in files]


def needs_hub(
    binary: "Redis", settings: Settings, hosts: Sequence[HostRecord], spec: JobSpec
) -> bool:
    """Return whether only the Hub could bring a spec's own files to the workers."""
    files = local_files(spec)
    closed = files and not shares_storage(settings, hosts) and _broker_refuses(binary, files)
    return bool(closed)


def storage_root(settings: Settings) -> Path:
    """Return the folder that FTQ_STORAGE names on this machine."""
    return Path(settings.storage.removeprefix("file://")).expanduser().absolute()


def shares_storage(settings: Settings, hosts: Sequence[HostRecord]) -> bool:
    """Return whether every host that could take the job sees this machine's storage."""
    marker = storage_root(settings) / "storage_id"
    online = [host for host in hosts if host.online]
    if not marker.is_file() or not online:
        return False
    mine = marker.read_text().strip()
    return all(host.storage_id == mine for host in online)


def _copy(file: LocalFile, paths: JobPaths) -> InputFile:
    """Put a file into the shared storage."""
    target = paths.inputs / file.path
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(file.source, target)
    with target.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return InputFile(file.path, file.size, digest)


def _chunked(binary: "Redis", job: str, file: LocalFile) -> InputFile:
    """Send a file to the broker, 1 MiB at a time, each under its own hash."""
    names: list[str] = []
    whole = hashlib.sha256()
    with file.source.open("rb") as stream:
        while chunk := stream.read(keys.INPUT_CHUNK):
            whole.update(chunk)
            names.append(hashlib.sha256(chunk).hexdigest())
            binary.hset(keys.inputs(job), names[-1], chunk)
            binary.expire(keys.inputs(job), keys.INPUTS_TTL_S)
    return InputFile(file.path, file.size, whole.hexdigest(), tuple(names))


def _size(files: Sequence[LocalFile]) -> int:
    return sum(file.size for file in files)


def _broker_refuses(binary: "Redis", files: Sequence[LocalFile]) -> UsageError | None:
    """Return why files cannot travel through the broker, None when they can."""
    size = _size(files)
    if size > keys.INPUT_JOB_MAX:
        return _too_large(size)
    sizes: Any = binary.zrange(keys.INPUT_SIZES, 0, -1, withscores=True)
    live = 0
    for name, bytes_ in sizes:
        if binary.exists(keys.inputs(name.decode())):
            live += int(bytes_)
        else:
            binary.zrem(keys.INPUT_SIZES, name)
    if live + size > keys.INPUT_TOTAL_MAX:
        return _too_large(size, f"other jobs hold {live / 2**20:.0f} MiB of the broker already; ")
    return None


def _too_large(size: int, why: str = "") -> UsageError:
    """Return the error that names the roads."""
    limit = keys.INPUT_JOB_MAX // 2**20
    return UsageError(
        f"{why}{size / 2**20:.0f} MiB of files cannot travel through the broker (at most {limit})",
        code="too_large_to_travel",
        hint=(
            "ways that work: a folder that client and workers share (FTQ_STORAGE), a path the"
            " workers have (worker:/data/rows.jsonl), a private Hub repo that ftq makes and deletes"
            " (`ftq submit --via-hub`), or one of your own"
            " (`hf upload ME/NAME PATH --repo-type dataset --private`)"
        ),
    )


def fetch_model(
    binary: "Redis", settings: Settings, job: str, storage_id: str, target: Path
) -> Path:
    """Bring a job's model folder to `target`. Raises FtqError when no road is open."""
    local = JobPaths(storage_root(settings), job).model
    if local.is_dir():
        shutil.copytree(local, target, dirs_exist_ok=True)
        return target
    nonce = secrets.token_hex(8)
    request = {"fetch": job, "storage_id": storage_id, "nonce": nonce}
    if not binary.publish(keys.CONTROL, json.dumps(request)):
        raise _no_road(job)
    target.mkdir(parents=True, exist_ok=True)
    with tarfile.open(fileobj=_Incoming(binary, job, nonce), mode="r|") as tar:  # type: ignore[call-overload]
        tar.extractall(target, filter="data")
        if not tar.getmembers():
            raise _no_road(job)
    return target


class _Incoming:
    """A file-like object that reads pieces as they arrive."""

    def __init__(self, binary: "Redis", job: str, nonce: str) -> None:
        self._binary, self._job, self._key = binary, job, keys.relay(nonce)
        self._buffer = b""
        self._ended = False
        self._pieces = 0

    def read(self, size: int) -> bytes:
        """Return up to `size` bytes. Raises FtqError when the host falls silent."""
        while len(self._buffer) < size and not self._ended:
            piece = self._next()
            self._ended = not piece
            self._buffer += piece
        data, self._buffer = self._buffer[:size], self._buffer[size:]
        return data

    def _next(self) -> bytes:
        deadline = time.monotonic() + FETCH_WAIT_S
        while time.monotonic() < deadline:
            got: Any = self._binary.blpop([self._key], timeout=2)
            if not got:
                continue
            number, piece = int.from_bytes(got[1][:8], "big"), bytes(got[1][8:])
            if number == self._pieces:
                self._pieces += 1
                return piece
            if number > self._pieces:  # a lost reply took one: nothing is better than a wrong file
                raise _no_road(self._job)
        raise _no_road(self._job)


def _no_road(job: str) -> FtqError:
    """Return the error for a model that cannot be reached."""
    return FtqError(
        "no worker that holds this job's files answers",
        code="no_road",
        hint=f"start the worker that ran it (`ftq show {job}` names it), then fetch again",
    )
