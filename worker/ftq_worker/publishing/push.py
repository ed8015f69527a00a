"""Push the staged folder in one commit, and read back what the Hub holds.

A repeated push makes no second commit: the commit's title names the job, and one whose files have
the hashes of the staged ones is recognised, also when somebody has committed on top of it since.
`parent_commit` has the Hub refuse a commit when another one came in between.
"""

import fnmatch
from dataclasses import dataclass

from huggingface_hub import CommitOperationAdd, CommitOperationDelete
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.hf_api import RepoFile

from ftq_shared.errors import FtqError, HubUnreachable, target_taken
from ftq_shared.events import EventType
from ftq_shared.hub import HubClient, RepoState
from ftq_worker.job.context import Busy, PhaseContext
from ftq_worker.job.hub import stoppable
from ftq_worker.publishing.staging import StagedFile
from ftq_worker.publishing.verdicts import Verification

RACES = 3  # how often another commit may come in between
# Files that make up a model at a repo's root. Those that an earlier push left and this one does not
# bring are removed: from_pretrained would mix old and new.
MODEL_FILES = (
    "*.safetensors",
    "*.safetensors.index.json",
    "*.bin",
    "*.bin.index.json",
    "adapter_config.json",
    "config.json",
    "generation_config.json",
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
    "spiece.model",
    "chat_template.*",
)


@dataclass(frozen=True)
class Pushed:
    """A commit on the Hub."""

    repo: str
    revision: str


def push(ctx: PhaseContext, hub: HubClient, repo: str, files: list[StagedFile]) -> Pushed:
    """Make the repo hold exactly this model, and return the commit.

    Raises Refused when the token may not write or the repo holds something that ftq did not put
    there, HubUnreachable when the Hub stays away; the job can be retried then.
    """
    full = hub.write_access(repo)
    for _ in range(RACES):
        if hub.repo_state(full) is RepoState.OTHER and not ctx.spec.publish.overwrite:
            raise target_taken(full)
        hub.create_repo("model", full, private=ctx.spec.publish.private)
        if left_out := hub.ignored(full, [file.name for file in files]):
            raise hub.refusals.ignored(full, left_out)
        revision = _attempt(ctx, hub, full, files)
        if revision is not None:
            return Pushed(full, revision)
        ctx.warn(f"another commit came into {full} at the same time; looking at it again")
    raise HubUnreachable(f"{full} changes all the time", hint="`ftq retry` when it is quiet")


def lock_repo(ctx: PhaseContext, hub: HubClient, repo: str) -> None:
    """Make this job the only one of the fleet that publishes to the repo, until the phase ends.

    Raises Busy while another one does, Stale when the claim is lost.
    """
    name = f"{hub.endpoint}/{repo}".lower()
    if owner := ctx.owner.try_lock(name):
        raise Busy(f"{owner} publishes to {repo}", name)


def _attempt(ctx: PhaseContext, hub: HubClient, repo: str, files: list[StagedFile]) -> str | None:
    """Return the commit, made now or found; None when another one came in between."""
    looking = f"looking at {repo}"
    parent, done = hub.call(
        lambda: _look(ctx, hub, repo, files), kind="model", repo=repo, what=looking
    )
    if done:
        _emit_found(ctx, repo, parent, done)
        return done
    uploaded = [_upload(ctx, hub, repo, files, i) for i in range(len(files))]
    ctx.control.check()  # the last moment to stop: a finished publish wins over a cancel

    def commit() -> str | None:
        head, done = _look(ctx, hub, repo, files)
        if done or head != parent:  # the answer to an earlier try was lost, or somebody was faster
            return done
        # A stale owner stops here. One that loses its claim from now on can only lose the race for
        # parent_commit, or make the commit that the next attempt recognises as this job's.
        ctx.owner.check_lease()
        # The client marks operations as used up; a second try needs new ones.
        additions = [uploaded.pop(0) for _ in range(len(uploaded))] or _additions(files)
        try:
            made = hub.api.create_commit(
                repo,
                [*additions, *_stale(files, _tree(hub, repo, head))],
                commit_message=f"ftq {ctx.job}: {ctx.spec.name or 'fine-tuned model'}",
                commit_description=f"Spec {ctx.spec.sha256()}",
                parent_commit=head,
            )
        except HfHubHTTPError as error:
            if error.response.status_code in (409, 412):
                return None
            raise
        return str(made.oid)

    return hub.call(commit, kind="model", repo=repo, what=f"committing to {repo}")


def _look(
    ctx: PhaseContext, hub: HubClient, repo: str, files: list[StagedFile]
) -> tuple[str | None, str | None]:
    """Return the newest commit, and this job's one with exactly these files if there is one."""
    head = hub.api.model_info(repo).sha
    for commit in hub.api.list_repo_commits(repo):
        if commit.title.startswith(f"ftq {ctx.job}:"):
            there = _tree(hub, repo, commit.commit_id)
            if not differences(files, there):
                return head, str(commit.commit_id)
    return head, None


def _emit_found(ctx: PhaseContext, repo: str, head: str | None, own: str) -> None:
    """Emit that an earlier attempt had pushed already, and warn of later commits."""
    ctx.emit(EventType.LOG, line=f"an earlier attempt of this job has pushed to {repo} already")
    if own != head:
        ctx.warn(
            f"{repo} has later commits than this job's; they stay",
            hint=f"this job's model is revision {own}",
        )


def _upload(
    ctx: PhaseContext, hub: HubClient, repo: str, files: list[StagedFile], number: int
) -> CommitOperationAdd:
    """Upload one file ahead of the commit and emit how far the whole is.

    Only large files are really sent here; small ones travel in the commit itself.
    """

    def once() -> CommitOperationAdd:
        (addition,) = _additions([files[number]])
        with stoppable(ctx.control):
            hub.api.preupload_lfs_files(repo, [addition])
        return addition

    ctx.control.check()
    name = files[number].name
    addition = hub.call(once, kind="model", repo=repo, what=f"uploading {name}")
    ctx.emit(
        EventType.PROGRESS,
        task=f"upload to {repo}",
        done=sum(file.size for file in files[: number + 1]),
        unit="bytes",
        total=sum(file.size for file in files),
    )
    return addition


def _additions(files: list[StagedFile]) -> list[CommitOperationAdd]:
    return [CommitOperationAdd(file.name, file.path) for file in files]


def _stale(files: list[StagedFile], there: dict[str, RepoFile]) -> list[CommitOperationDelete]:
    """Return the removals of model files that this push does not bring.

    Only of the repo's top: what lies in folders is no part of a model of ours.
    """
    staying = {file.name for file in files}
    return [
        CommitOperationDelete(name, is_folder=False)
        for name in there
        if name not in staying and "/" not in name
        if any(fnmatch.fnmatch(name, pattern) for pattern in MODEL_FILES)
    ]


def _tree(hub: HubClient, repo: str, revision: str | None) -> dict[str, RepoFile]:
    entries = hub.api.list_repo_tree(repo, recursive=True, revision=revision)
    return {entry.path: entry for entry in entries if isinstance(entry, RepoFile)}


def read_back(ctx: PhaseContext, hub: HubClient, pushed: Pushed, files: list[StagedFile]) -> None:
    """Compare the pushed revision with the local files, by hash; emit the result.

    Raises FtqError (code `verification_failed`) when the Hub holds something else.
    """
    there = hub.call(
        lambda: _tree(hub, pushed.repo, pushed.revision),
        kind="model",
        repo=pushed.repo,
        revision=pushed.revision,
        what="reading the pushed files back",
    )
    wrong = differences(files, there)
    message = (
        f"{len(files)} files on the Hub have the hashes of the local ones"
        if not wrong
        else "; ".join(wrong)
    )
    Verification("pushed_files", not wrong, message).emit(ctx)
    if wrong:
        raise FtqError(
            f"{pushed.repo} does not hold what was pushed: {message}",
            code="verification_failed",
            hint="`ftq retry` pushes again",
        )


def differences(files: list[StagedFile], there: dict[str, RepoFile]) -> list[str]:
    """Return what differs between local and pushed files, and model files that no local one has."""
    wrong = []
    for file in files:
        entry = there.get(file.name)
        if entry is None:
            wrong.append(f"{file.name} is missing")
        elif (entry.lfs.sha256 != file.sha256) if entry.lfs else (entry.blob_id != file.git_sha1):
            wrong.append(f"{file.name} differs")
    return wrong + [f"{entry.path_in_repo} is left over" for entry in _stale(files, there)]
