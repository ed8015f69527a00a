"""Which route the client's own files take to the workers, and sending them.

Routes, in order: a storage that both share; chunks through the broker, up to 64 MiB a job; a
private Hub repo, with consent (`hub_route`). Where none is open, the error names what to do.
"""

import hashlib
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftq_client.transfer.files import OwnFile, own_files, size_of
from ftq_shared import keys
from ftq_shared.errors import UsageError
from ftq_shared.hosts import HostRecord
from ftq_shared.job_record import InputFile
from ftq_shared.lifetimes import INPUT_CHUNK, INPUT_JOB_MAX, INPUT_TOTAL_MAX, INPUTS_TTL_S
from ftq_shared.paths import JobPaths
from ftq_shared.settings import Settings

if TYPE_CHECKING:
    from redis import Redis

    from ftq_client.transfer.hub_route import HubRoute
    from ftq_shared.spec import JobSpec


@dataclass(frozen=True)
class Draft:
    """A checked spec, the client's own files that it names, and the route that is open to them."""

    spec: "JobSpec"
    files: Sequence[OwnFile]
    storage: Path | None = None  # the root of a storage that client and workers share
    refusal: UsageError | None = None  # why the broker does not take them: the Hub is left

    @property
    def needs_hub(self) -> bool:
        """Whether only the Hub could bring the files to the workers."""
        return self.refusal is not None


def make_draft(
    spec: "JobSpec", binary: "Redis", settings: Settings, hosts: Sequence[HostRecord]
) -> Draft:
    """Find the files of a spec and their route; nothing is sent. Raises what `own_files` raises."""
    files = own_files(spec)
    if files and shares_storage(settings, hosts):
        return Draft(spec, files, storage=storage_root(settings))
    return Draft(spec, files, refusal=_broker_refuses(binary, files) if files else None)


def send_inputs(draft: Draft, job: str, binary: "Redis", hub: "HubRoute") -> list[InputFile]:
    """Send the client's own files; return what the job record says of them.

    Raises UsageError when they are too large for every route that is open, and what HubRoute.send
    raises.
    """
    if draft.storage:
        paths = JobPaths(draft.storage, job)
        return [_copy(file, paths) for file in draft.files]
    if draft.refusal:
        if hub.consents(job, draft.refusal.message):
            return hub.send(job, draft.files)
        raise draft.refusal
    if draft.files:
        binary.zadd(keys.INPUT_SIZES, {job: size_of(draft.files)})
    return [_send_chunks(binary, job, file) for file in draft.files]


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


def _copy(file: OwnFile, paths: JobPaths) -> InputFile:
    target = paths.inputs / file.path
    target.parent.mkdir(parents=True, exist_ok=True)
    with file.open() as source, target.open("wb") as copy:
        shutil.copyfileobj(source, copy)
    with target.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return InputFile(file.path, file.size, digest)


def _send_chunks(binary: "Redis", job: str, file: OwnFile) -> InputFile:
    """Send a file to the broker, 1 MiB at a time, each under its own hash."""
    names: list[str] = []
    whole = hashlib.sha256()
    with file.open() as stream:
        while chunk := stream.read(INPUT_CHUNK):
            whole.update(chunk)
            names.append(hashlib.sha256(chunk).hexdigest())
            binary.hset(keys.inputs(job), names[-1], chunk)
            binary.expire(keys.inputs(job), INPUTS_TTL_S)
    return InputFile(file.path, file.size, whole.hexdigest(), tuple(names))


def _broker_refuses(binary: "Redis", files: Sequence[OwnFile]) -> UsageError | None:
    size = size_of(files)
    if size > INPUT_JOB_MAX:
        return _too_large(size)
    live = _waiting_bytes(binary)
    if live + size > INPUT_TOTAL_MAX:
        return _too_large(size, f"other jobs hold {live / 2**20:.0f} MiB of the broker already; ")
    return None


def _waiting_bytes(binary: "Redis") -> int:
    """Return the size of all jobs' files that the broker holds; forget those that are gone."""
    sizes: Any = binary.zrange(keys.INPUT_SIZES, 0, -1, withscores=True)
    live = 0
    for name, size in sizes:
        if binary.exists(keys.inputs(name.decode())):
            live += int(size)
        else:
            binary.zrem(keys.INPUT_SIZES, name)
    return live


def _too_large(size: int, why: str = "") -> UsageError:
    limit = INPUT_JOB_MAX // 2**20
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
