"""The publish phase: the saved model is verified, then pushed to the Hub in one commit."""

import torch

from ftq_shared.events import EventType
from ftq_shared.sources import Place
from ftq_worker.job.atomic_folders import swap_in
from ftq_worker.job.context import PhaseContext
from ftq_worker.job.hub import hub_of
from ftq_worker.job.prepared_sets import load_sets
from ftq_worker.job.quiet import quiet_libraries
from ftq_worker.job.reports import Prepared, Published, Trained, Validated
from ftq_worker.publishing.card import write_card
from ftq_worker.publishing.push import push, read_back
from ftq_worker.publishing.staging import hash_files, resolve_format, stage
from ftq_worker.publishing.verify import load_staged, verify
from ftq_worker.training.base_model import fetch_base


def run(ctx: PhaseContext) -> None:
    """Verify the trained model and leave `release/`, which `ftq fetch` brings.

    With `publish.repo`, push it and leave `published.json`.

    Raises FtqError (`verification_failed`), Refused, UsageError or HubUnreachable to end the job,
    Interrupted or JobCancelled until the moment of the commit, not after it.
    """
    quiet_libraries()
    torch.set_num_threads(ctx.devices.cpu_threads)
    validated = Validated.load(ctx.paths.validated)
    prepared = Prepared.load(ctx.paths.prepared_report)
    trained = Trained.load(ctx.paths.train_report)

    form = resolve_format(ctx, trained, validated.model.place is Place.HUB)
    ctx.doing("look at the base model")
    base = fetch_base(ctx, validated.model)
    ctx.doing(f"put the {form} model together")
    folder = stage(ctx, form, base, validated, prepared, trained)
    ctx.control.check()
    ctx.doing("load the saved model")
    model = load_staged(folder, form, base, validated, prepared, trained)
    golden = load_sets(ctx.paths, prepared).golden
    verify(ctx, folder, model, validated, trained, golden)
    del model

    hub, target = hub_of(ctx), ctx.spec.publish.repo
    repo = hub.write_access(target) if target else ""
    # Without a repo it names the folder that `ftq fetch` makes.
    write_card(ctx, folder, repo or ctx.job, form, validated, prepared, trained)
    ctx.owner.check_lease()  # what follows changes files that all attempts share
    swap_in(folder, ctx.paths.release)
    if not repo:
        return
    ctx.doing("hash the files")
    files = hash_files(ctx.paths.release)
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
