"""The base model: is it there, may it be used, and what is it?"""

import os
from pathlib import Path

from ftq_shared.errors import Refused, max_length_above
from ftq_shared.hub import HubClient, RepoRecord
from ftq_shared.sources import Place, Source
from ftq_shared.spec import JobSpec
from ftq_worker.host.data_roots import DataRoots
from ftq_worker.job.context import PhaseContext
from ftq_worker.job.reports import ModelFacts
from ftq_worker.validation.architecture import Architecture
from ftq_worker.validation.files import FolderFiles, HubFiles, ModelFiles
from ftq_worker.validation.weights import Weights


def find_model(ctx: PhaseContext, hub: HubClient, source: Source) -> tuple[ModelFiles, str]:
    """Return the model's files and what to say about them; pins a Hub model to its commit.

    Raises Refused when there is no such model, revision or folder.
    """
    if source.place is Place.HUB:
        record = hub.model_info(source.name, source.revision)
        return HubFiles(hub, record), f"{record.id} at commit {record.sha[:12]}"
    folder = model_folder(ctx, source)
    inner = source.place is Place.CLIENT
    roots = DataRoots(open=(str(folder),), closed=()) if inner else ctx.data_roots
    files = FolderFiles(folder, source.name, roots)
    return files, f"folder {source.name}, {len(files.sizes)} files"


def model_folder(ctx: PhaseContext, source: Source) -> Path:
    """Return the folder of a model that is not on the Hub; raises Refused when it is not there."""
    if source.place is Place.CLIENT:
        folder = Path(os.path.realpath(ctx.paths.inputs / "model"))
        inner = [path for path in folder.glob("*/config.json") if path.is_file()]
        if not (folder / "config.json").exists() and len(inner) == 1:
            return inner[0].parent  # the folder travelled under its own name
        hint = "submit the job again, so that the folder travels again"
    else:
        folder = ctx.data_roots.path(source.name, "model")
        hint = "worker:/path must exist on every worker; without worker: it is a path of yours"
    if folder.is_dir():
        return folder
    raise Refused(
        f"model: there is no folder {source.name} on this worker",
        code="no_such_model",
        hint=hint,
        field="model",
    )


def check_access(hub: HubClient, record: RepoRecord) -> tuple[bool, str]:
    """Return True when the files may be read; raises Refused (`gated`, `access`)."""
    if not (record.gated or record.private):
        return True, f"{record.id} is public"
    hub.check_access(record.kind, record.id)
    return True, f"{record.id} is {'gated' if record.gated else 'private'}; this token may read it"


def describe_license(record: RepoRecord | None) -> tuple[str | None, str]:
    """Return the licence and what to say about it; a missing one stops nobody."""
    name = record.license if record else None
    return name, f"licence {name}" if name else "no licence is stated"


def license_warning(what: str, name: str | None) -> str:
    """Return what a person should know about a licence, empty when nothing."""
    if name is None:
        return f"{what}: no licence is stated; find out whether you may use and publish it"
    if "nc" in name.lower().replace("_", "-").split("-"):
        return f"{what}: licence {name} forbids commercial use, of the result as well"
    return ""


def model_facts(
    source: Source,
    files: ModelFiles,
    architecture: Architecture,
    weights: Weights | None,
    has_chat_template: bool,
) -> ModelFacts:
    """Return what the other phases need to know about the base model."""
    record = files.record if isinstance(files, HubFiles) else None
    return ModelFacts(
        place=source.place,
        name=record.id if record else str(files.root if isinstance(files, FolderFiles) else ""),
        revision=record.sha if record else None,
        architecture=architecture.name,
        model_type=architecture.model_type,
        kind=architecture.kind,
        parameters=weights.parameters if weights else None,
        weight_bytes=weights.size_bytes if weights else None,
        hidden_size=architecture.hidden_size,
        layers=architecture.layers,
        vocab_size=architecture.vocab_size,
        max_positions=architecture.max_positions,
        has_chat_template=has_chat_template,
        license=record.license if record else None,
        licenses=list(record.licenses) if record else [],
        license_name=record.license_name if record else None,
        license_link=record.license_link if record else None,
        gated=bool(record and record.gated),
        private=bool(record and record.private),
    )


def check_length(spec: JobSpec, architecture: Architecture) -> tuple[int | None, str]:
    """Return the longest input; raises Refused (`max_length`) when the spec asks for more."""
    limit, asked = architecture.max_positions, spec.train.max_length
    if limit is not None and isinstance(asked, int) and asked > limit:
        raise max_length_above(asked, limit)
    return limit, f"up to {limit} tokens" if limit else "no limit of the input is stated"
