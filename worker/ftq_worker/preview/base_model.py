"""The base model as far as a preview needs it: its tokenizer and its config, no weights."""

from pathlib import Path

from ftq_shared.errors import HubUnreachable
from ftq_shared.hub import HubClient
from ftq_shared.sources import Place, Source, parse_source
from ftq_worker.host.data_roots import DataRoots
from ftq_worker.job.context import PhaseContext
from ftq_worker.job.reports import ModelFacts
from ftq_worker.validation import model
from ftq_worker.validation.architecture import Architecture, read_architecture
from ftq_worker.validation.checks import Checks
from ftq_worker.validation.files import FolderFiles, HubFiles, ModelFiles
from ftq_worker.validation.tokenizer import read_chat_template


def check_model(
    ctx: PhaseContext, checks: Checks, hub: HubClient
) -> tuple[ModelFacts, Architecture] | None:
    """Return what is known of the base model, None where a check of it failed.

    Where the Hub is away, a copy in this machine's cache does. Raises HubUnreachable without one.
    """
    source = parse_source(ctx.spec.model, what="model")
    files = checks.run("model", lambda: _find(ctx, hub, source))
    if files is None:
        return None
    if isinstance(files, HubFiles):
        record = files.record
        if not checks.run("model access", lambda: model.check_access(hub, record)):
            return None
    found = checks.run("architecture", lambda: (read_architecture(files), ""))
    template = checks.run("tokenizer", lambda: (read_chat_template(files, ctx.spec), ""))
    if found is None or template is None:
        return None
    if checks.run("length", lambda: (True, model.check_length(ctx.spec, found)[1])) is None:
        return None
    facts = model.model_facts(source, files, found, None, template)
    if source.place is Place.HUB and not isinstance(files, HubFiles):  # the cached copy
        facts = facts.model_copy(update={"place": Place.WORKER})
    return facts, found


def _find(ctx: PhaseContext, hub: HubClient, source: Source) -> tuple[ModelFiles, str]:
    try:
        return model.find_model(ctx, hub, source)
    except HubUnreachable as error:
        folder = _cached(source)
        if folder is None:
            raise
        ctx.warn(
            f"{error.message}; the tokenizer of {source.name} is the copy in this machine's cache,"
            f" commit {folder.name[:12]}"
        )
        # In the cache a snapshot consists of links to the repo's blobs.
        return FolderFiles(folder, source.name, DataRoots(open=(str(folder.parents[1]),))), ""


def _cached(source: Source) -> Path | None:
    """Return the snapshot of a repo in the Hub cache: the revision asked for, else the newest."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.constants import HF_HUB_CACHE
    from huggingface_hub.file_download import repo_folder_name

    if source.place is not Place.HUB:
        return None
    found = try_to_load_from_cache(source.name, "config.json", revision=source.revision)
    if isinstance(found, str):
        return Path(found).parent
    if source.revision:
        return None
    repo = Path(HF_HUB_CACHE) / repo_folder_name(repo_id=source.name, repo_type="model")
    configs = sorted(repo.glob("snapshots/*/config.json"), key=lambda path: path.stat().st_mtime)
    return Path(configs[-1]).parent if configs else None
