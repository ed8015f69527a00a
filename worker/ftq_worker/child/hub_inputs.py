"""The client's own files that travel through a private Hub repo: fetched, and freed after prepare.

Only a repo named `ftq-inputs-<this job>` is ever read or deleted: the job record can be written by
whoever writes to the broker, and the token may open more than this job's files.
"""

import hashlib
from pathlib import Path
from tempfile import TemporaryDirectory

from ftq_shared.errors import FtqError, Refused, input_lost
from ftq_shared.events import EventType
from ftq_shared.hub import HubClient, Retry
from ftq_shared.job_record import InputFile, input_repo
from ftq_shared.paths import read_json
from ftq_shared.states import Phase
from ftq_worker.job.context import PhaseContext
from ftq_worker.job.hub import download_file, hub_of
from ftq_worker.job.progress import Progress

# Nothing depends on the deletion: a Hub that is away must not hold a finished phase up for long.
_FREE = Retry(total_s=10.0, asked_s=10.0)


def fetch(ctx: PhaseContext) -> None:
    """Put the files that are missing in place, each whole or not at all.

    Raises FtqError (code `input_lost`) when the repo is gone or a file arrived damaged, Refused
    without a token that opens it, HubUnreachable, JobCancelled and Interrupted.
    """
    listed = _listed(ctx)
    for file in listed:
        _place(ctx, file)  # also of what is here already: `free` must not meet a foreign repo
    missing = [file for file in listed if not _in_place(ctx, file)]
    if not missing:
        return
    total = sum(file.size for file in missing)
    progress = Progress(ctx.emit, ctx.control, "download your files", "bytes", total)
    # On the storage's own disk, so that a file is moved into place and not copied.
    with TemporaryDirectory(prefix="hub_inputs.", dir=ctx.paths.root) as scratch:
        for file in missing:
            _fetch(ctx, file, progress, Path(scratch))
    progress.finish()


def free(ctx: PhaseContext) -> None:
    """Delete the private repo once prepare is done; a failure is told and changes nothing.

    Raises Stale when the job is somebody else's by now.
    """
    if ctx.phase != Phase.PREPARE:
        return
    hub = HubClient(ctx.endpoint, ctx.hub_token, retry=_FREE)
    for repo in sorted({_place(ctx, file)[0] for file in _listed(ctx)}):
        ctx.owner.check_lease()  # somebody else, on another storage, may still need the files
        try:
            hub.delete_repo("dataset", repo)
        except FtqError as error:
            ctx.warn(
                f"the private repo {repo} with your files could not be deleted: {error.message}",
                f"delete it yourself: {hub.refusals.page('dataset', repo)}/settings",
            )
        else:
            ctx.emit(EventType.LOG, line=f"deleted the private repo {repo}: the files are here")


def _listed(ctx: PhaseContext) -> list[InputFile]:
    """Return the files that the agent left to this child."""
    raw = read_json(ctx.paths.hub_inputs) or []
    return [InputFile.from_json(entry) for entry in raw]


def _in_place(ctx: PhaseContext, file: InputFile) -> bool:
    target = ctx.paths.inputs / file.path
    return target.exists() and target.stat().st_size == file.size


def _place(ctx: PhaseContext, file: InputFile) -> tuple[str, str]:
    """Return repo and commit of a file. Raises FtqError for a repo that is not this job's."""
    repo, _, commit = file.hub.partition("@")
    if repo.partition("/")[2] != input_repo(ctx.job):
        raise input_lost(file.path, f"{repo} is not the repo of this job's files")
    return repo, commit


def _fetch(ctx: PhaseContext, file: InputFile, progress: Progress, scratch: Path) -> None:
    """Download one file, compare its hash, and move it into place."""
    repo, commit = _place(ctx, file)
    if not ctx.hub_token:
        raise Refused(
            f"the job's files are in the private repo {repo}, and no Hub token came with the job",
            code="no_token",
            hint=f"log in with `hf auth login` or set HF_TOKEN, then `ftq retry {ctx.job}`",
        )
    came = _download(ctx, file, repo, commit, progress, scratch)
    with came.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    if (came.stat().st_size, digest) != (file.size, file.sha256):
        raise input_lost(file.path, "it arrived damaged")
    target = ctx.paths.inputs / file.path
    target.parent.mkdir(parents=True, exist_ok=True)
    came.replace(target)


def _download(
    ctx: PhaseContext,
    file: InputFile,
    repo: str,
    commit: str,
    progress: Progress,
    scratch: Path,
) -> Path:
    """Bring a file into the scratch folder; return where it lies there."""
    # Only now: a child in a fresh interpreter would pay for the import in every phase.
    from huggingface_hub.errors import EntryNotFoundError

    start = progress.done
    try:
        path = download_file(
            hub_of(ctx), "dataset", repo, commit, file.path, progress, folder=scratch
        )
    except (Refused, EntryNotFoundError) as error:
        # Another code means a token that does not open it: the files may well be there.
        if isinstance(error, Refused) and not error.code.startswith("no_such"):
            raise
        raise input_lost(file.path, f"{repo} is gone, or does not hold it any more") from error
    progress.at(start + file.size)
    return path
