"""The publish phase: the verified model gets its card and is pushed to the Hub in one commit."""

import torch

from ftq_shared.errors import FtqError
from ftq_shared.events import EventType
from ftq_worker.job.context import PhaseContext
from ftq_worker.job.hub import hub_of
from ftq_worker.job.quiet import quiet_libraries
from ftq_worker.job.reports import Prepared, Published, Trained, Validated, Verified
from ftq_worker.publishing.card import CARD, write_card
from ftq_worker.publishing.push import lock_repo, push, read_back
from ftq_worker.publishing.staging import StagedFile, hash_files
from ftq_worker.publishing.verify import verify


def run(ctx: PhaseContext) -> None:
    """Complete `release/`, which `ftq fetch` brings, with its card.

    With `publish.repo`, push it and leave `published.json`.

    Raises FtqError (`release_changed`), Refused, UsageError or HubUnreachable to end the job,
    Busy when another job publishes to the repo, Interrupted or JobCancelled until the moment of
    the commit, not after it.
    """
    quiet_libraries()
    torch.set_num_threads(ctx.devices.cpu_threads)
    hub, target = hub_of(ctx), ctx.spec.publish.repo
    repo = hub.write_access(target) if target else ""
    if repo:
        lock_repo(ctx, hub, repo)
    if not ctx.paths.verified.exists():  # the release has changed since it was verified
        verify(ctx)
    verified = Verified.load(ctx.paths.verified)
    # Without a repo it names the folder that `ftq fetch` makes.
    aside = ctx.paths.claim_dir(ctx.claim) / "card"
    aside.mkdir(parents=True, exist_ok=True)
    write_card(
        ctx,
        aside,
        repo or ctx.job,
        verified.format,
        Validated.load(ctx.paths.validated),
        Prepared.load(ctx.paths.prepared_report),
        Trained.load(ctx.paths.train_report),
    )
    ctx.owner.check_lease()  # what follows changes a folder of all attempts
    (aside / CARD).replace(ctx.paths.release / CARD)
    ctx.doing("hash the files")
    files = hash_files(ctx.paths.release)
    _compare(ctx, verified, files)
    if not repo:
        return
    pushed = push(ctx, hub, repo, files)
    ctx.doing("check the files on the Hub")
    read_back(ctx, hub, pushed, files)
    url = f"{hub.endpoint}/{pushed.repo}"
    Published(repo=pushed.repo, revision=pushed.revision, url=url).save(ctx.paths.published)
    ctx.emit(
        EventType.PUBLISHED,
        repo=pushed.repo,
        revision=pushed.revision,
        url=url,
        private=hub.model_info(pushed.repo, pushed.revision).private,
        files=len(files),
    )


def _compare(ctx: PhaseContext, verified: Verified, files: list[StagedFile]) -> None:
    """Raise FtqError (`release_changed`) unless the files are those that were verified."""
    found = {file.name: file.sha256 for file in files if file.name != CARD}
    names = found.keys() | verified.files.keys()
    changed = sorted(name for name in names if found.get(name) != verified.files.get(name))
    if not changed:
        return
    ctx.paths.verified.unlink()  # the next attempt stages the model again, and verifies that
    more = f", nor are {len(changed) - 1} more files" if len(changed) > 1 else ""
    raise FtqError(
        f"release/{changed[0]} is not what was verified{more}",
        code="release_changed",
        hint=f"`ftq retry {ctx.job} --from publish` makes it again from the trained model; look at"
        " the storage if this happens again",
        file=changed[0],
    )
