"""validate: everything that can be refused in seconds is refused here.

Nothing is downloaded whole and no weight is loaded. Every check is an event; checks that do not
need each other go on after a failure, so that all failures are known at once.
"""

from dataclasses import dataclass
from pathlib import Path

from ftq_shared.events import EventType
from ftq_shared.hub import HubClient
from ftq_shared.sources import Place, Source, parse_source
from ftq_shared.spec import Task
from ftq_worker.data.columns import ColumnLayout, detect_layout, has_label
from ftq_worker.job.context import PhaseContext
from ftq_worker.job.hub import hub_of
from ftq_worker.job.reports import DatasetFacts, ModelFacts, Validated
from ftq_worker.publishing.metadata import provisional
from ftq_worker.training.trackers import installed
from ftq_worker.validation import dataset as data
from ftq_worker.validation import disk, fit, model, rehearsal, target
from ftq_worker.validation.architecture import Architecture, check_size, read_architecture
from ftq_worker.validation.checks import Checks
from ftq_worker.validation.examples import look_at_examples
from ftq_worker.validation.files import HubFiles, ModelFiles
from ftq_worker.validation.rows import Head
from ftq_worker.validation.tokenizer import read_chat_template
from ftq_worker.validation.weights import Weights, read_weights


@dataclass
class _Model:
    """What the checks of the base model found; None where one failed or was not made."""

    source: Source
    files: ModelFiles | None = None
    architecture: Architecture | None = None
    weights: Weights | None = None
    has_chat_template: bool | None = None


@dataclass
class CheckedData:
    """What the checks of the dataset found; None where one failed or was not made."""

    source: Source
    found: data.FoundDataset | None = None
    splits: data.ChosenSplits | None = None
    head: Head | None = None
    layout: ColumnLayout | None = None
    task: Task | None = None


def run(ctx: PhaseContext) -> None:
    """Check model, dataset, target and disk; leave `Validated` for the other phases.

    Raises Refused for the first check that failed, after all have been made; HubUnreachable
    when the Hub stays away.
    """
    # An earlier attempt has left them, perhaps with the commits of another Hub.
    for left in (ctx.paths.validated, ctx.paths.resolved):
        left.unlink(missing_ok=True)
    checks = Checks(ctx)
    hub = hub_of(ctx)
    base = _check_model(ctx, checks, hub)
    rows = check_data(ctx, checks, hub)
    if base.architecture and rows.task:
        architecture, task = base.architecture, rows.task
        checks.run("task fit", lambda: fit.check_fit(ctx.spec, architecture, task))
        _rehearse(ctx, checks, base, rows)
    if ctx.spec.train.args:
        checks.run("trainer args", lambda: _trainer_args(ctx, rows.task or ctx.spec.task))
    if names := [*ctx.spec.report_to]:
        checks.run("trackers", lambda: installed(names))
    if ctx.spec.publish.repo:
        checks.run("target repo", lambda: target.check_target(hub, ctx.spec))
    if base.weights and rows.found:
        _check_disk(ctx, checks, base, rows.found)
    validated = _checked_card(ctx, checks, hub, base, rows)
    checks.finish()

    validated = validated or _validated(base, rows)
    _emit(ctx, validated, rows)
    validated.save(ctx.paths.validated)


def _check_model(ctx: PhaseContext, checks: Checks, hub: HubClient) -> _Model:
    base = _Model(parse_source(ctx.spec.model, what="model"))
    base.files = files = checks.run("model", lambda: model.find_model(ctx, hub, base.source))
    if files is None or not _may_read_model(ctx, checks, hub, files):
        return base
    known = files.record.parameters if isinstance(files, HubFiles) else None
    base.architecture = checks.run("architecture", lambda: _architecture(files))
    base.weights = checks.run("weights", lambda: _weights(files, known))
    base.has_chat_template = checks.run("tokenizer", lambda: _template(files, ctx))
    if base.architecture and (weights := base.weights):
        whole = base.architecture
        checks.run("size", lambda: check_size(whole, weights))
    if architecture := base.architecture:
        checks.run("length", lambda: model.check_length(ctx.spec, architecture))
    if base.weights and base.weights.pickled:
        ctx.warn("the weights are .bin files (pickle); safetensors load faster and run no code")
    return base


def _may_read_model(ctx: PhaseContext, checks: Checks, hub: HubClient, files: ModelFiles) -> bool:
    if not isinstance(files, HubFiles):
        return True
    record = files.record
    allowed = checks.run("model access", lambda: model.check_access(hub, record))
    checks.run("model licence", lambda: model.describe_license(record))
    if warning := model.license_warning(record.id, record.license):
        ctx.warn(warning)
    return bool(allowed)


def check_data(ctx: PhaseContext, checks: Checks, hub: HubClient) -> CheckedData:
    """Make every check of the dataset; what one found is None where it failed."""
    rows = CheckedData(parse_source(ctx.spec.dataset, what="dataset"))
    rows.found = found = checks.run("dataset", lambda: data.find_dataset(ctx, hub, rows.source))
    if found is None or not _may_read_data(checks, hub, found):
        return rows
    rows.splits = splits = checks.run("splits", lambda: data.choose_splits(ctx.spec, found))
    if splits is None:
        return rows
    checks.run("files", lambda: data.check_files(ctx, found, splits))
    rows.head = head = checks.run("rows", lambda: data.look_at_rows(hub, found, splits.train))
    if head is None:
        return rows
    for warning in head.warnings:
        ctx.warn(warning)
    rows.layout = layout = checks.run("columns", lambda: _layout(ctx, found, splits.train, head))
    if layout:
        rows.task = checks.run("task", lambda: fit.check_task(ctx.spec, layout, head.values))
    if layout and rows.task:
        known = data.total_rows(found, splits.train, head)[splits.train]
        checks.run(
            "examples", lambda: look_at_examples(ctx.spec, head, layout, splits.train, known)
        )
    return rows


def _may_read_data(checks: Checks, hub: HubClient, found: data.FoundDataset) -> bool:
    record = found.record
    if record is None:
        return True
    allowed = checks.run("dataset access", lambda: model.check_access(hub, record))
    checks.run("dataset licence", lambda: model.describe_license(record))
    return bool(allowed)


def _architecture(files: ModelFiles) -> tuple[Architecture, str]:
    found = read_architecture(files)
    return found, (
        f"{found.name} ({found.kind}): {found.layers} layers of {found.hidden_size}, "
        f"vocabulary {found.vocab_size:,}"
    )


def _weights(files: ModelFiles, known_parameters: int | None) -> tuple[Weights, str]:
    found = read_weights(files, known_parameters)
    count = f"{found.parameters:,} parameters" if found.parameters else "parameters not counted"
    kind = "pytorch .bin" if found.pickled else "safetensors"
    return found, f"{kind}, {count}, {found.size_bytes / 1e6:,.1f} MB"


def _template(files: ModelFiles, ctx: PhaseContext) -> tuple[bool, str]:
    has = read_chat_template(files, ctx.spec)
    return has, "with a chat template" if has else "without a chat template"


def _layout(
    ctx: PhaseContext, found: data.FoundDataset, split: str, head: Head
) -> tuple[ColumnLayout, str]:
    spec = ctx.spec
    if spec.task is Task.CLASSIFICATION and not has_label(head.columns, spec):
        data.refuse_folder_labels(found, split)
    layout = detect_layout(head.columns, head.values, spec)
    if layout.task is Task.TEXT and spec.task is Task.AUTO:
        data.refuse_folder_labels(found, split)
    if lost := data.unread_folder_columns(found, split, head.columns):
        ctx.warn(
            f"not used: {', '.join(lost)}, which only the names of folders hold",
            hint="to use it, write it into the rows as a column",
        )
    return layout, f"{layout.name}: {layout.reason}"


def _rehearse(ctx: PhaseContext, checks: Checks, base: _Model, rows: CheckedData) -> None:
    """Let the libraries try model and rows, where nothing has failed that they need."""
    task, head, layout, weights = rows.task, rows.head, rows.layout, base.weights
    if not (base.files and base.has_chat_template is not None) or not (
        task and head and layout and weights and checks.all_passed
    ):
        return
    facts = _model_facts(base)
    sample = rehearsal.Sample(layout, head.columns, head.values)
    checks.run("build", lambda: rehearsal.rehearse_model(ctx, facts, weights, task))
    longest = checks.run("sample", lambda: rehearsal.rehearse_rows(ctx, facts, task, sample))
    if longest and checks.all_passed and ctx.spec.resources.gpus not in (0, "0"):
        checks.run("memory", lambda: fit.check_memory(ctx, facts, task, longest))


def _trainer_args(ctx: PhaseContext, task: Task) -> tuple[None, str]:
    # Only for jobs that set some: where the trainer is not preloaded, its import takes seconds.
    from ftq_worker.job.quiet import quiet_libraries
    from ftq_worker.training.trainer_args import check_trainer_args

    quiet_libraries()
    check_trainer_args(task, ctx.spec.train.args)
    return None, f"the trainer has {', '.join(ctx.spec.train.args)}"


def _check_disk(ctx: PhaseContext, checks: Checks, base: _Model, found: data.FoundDataset) -> None:
    from huggingface_hub.constants import HF_HUB_CACHE

    assert base.weights
    method = ctx.spec.train.method
    encoder = base.architecture is not None and base.architecture.kind == "encoder"
    full = method == "full" or (method == "auto" and encoder)
    storage, cache = disk.space_needed(ctx.spec, base.weights, found, full)
    needs = {ctx.paths.root: storage}
    if base.source.place is Place.HUB or found.place is Place.HUB:
        needs[Path(HF_HUB_CACHE)] = cache
    checks.run("disk", lambda: disk.check_disk(needs))


def _checked_card(
    ctx: PhaseContext, checks: Checks, hub: HubClient, base: _Model, rows: CheckedData
) -> Validated | None:
    """Return what was found, with a licence that the Hub takes; None where there is no card."""
    repo = ctx.spec.publish.repo
    if repo is None or not (base.architecture and base.weights and rows.head and rows.task):
        return None
    found = _validated(base, rows)

    def card(facts: ModelFacts) -> str:
        return provisional(repo, found.model_copy(update={"model": facts}))

    facts = checks.run("model card", lambda: target.check_card(hub, repo, card, found.model))
    if facts is not None and facts != found.model:
        ctx.warn(
            f"the licence of {found.model.name} ({found.model.license}) cannot stand in the model "
            "card as it is: the Hub does not take it",
            hint=f"state it yourself at {hub.refusals.page('model', repo)} once it is published",
        )
    return found.model_copy(update={"model": facts or found.model})


def _validated(base: _Model, rows: CheckedData) -> Validated:
    return validated_with(_model_facts(base), rows)


def validated_with(model_facts: ModelFacts, rows: CheckedData) -> Validated:
    """Return what was found; no check of the dataset has failed."""
    assert rows.task
    assert rows.layout
    assert rows.splits
    return Validated(
        model=model_facts,
        dataset=_data_facts(rows),
        task=rows.task,
        shape=rows.layout.name,
        columns=rows.layout.columns,
        split=rows.splits.train,
        validation_split=rows.splits.validation,
        test_split=rows.splits.test,
    )


def _model_facts(base: _Model) -> ModelFacts:
    assert base.files
    assert base.architecture
    assert base.weights
    return model.model_facts(
        base.source, base.files, base.architecture, base.weights, bool(base.has_chat_template)
    )


def _data_facts(rows: CheckedData) -> DatasetFacts:
    assert rows.found
    assert rows.splits
    assert rows.head
    found, record = rows.found, rows.found.record
    return DatasetFacts(
        place=found.place,
        name=found.name,
        config=found.config,
        revision=record.sha if record else None,
        files=found.files,
        splits=data.total_rows(found, rows.splits.train, rows.head),
        columns=rows.head.columns,
        unread=found.unread,
        license=record.license if record else None,
        # What a person's own disk holds is nobody else's to see.
        private=record.private if record else True,
    )


def _emit(ctx: PhaseContext, validated: Validated, rows: CheckedData) -> None:
    """Emit what was resolved and what the dataset looks like."""
    if ctx.spec.task is Task.AUTO and rows.layout:
        ctx.resolve("task", str(validated.task), rows.layout.reason)
    facts = validated.dataset
    ctx.emit(
        EventType.DATASET,
        rows=facts.splits.get(validated.split),
        columns=facts.columns,
        splits=facts.splits,
        shape=validated.shape,
        task=str(validated.task),
        source=facts.name + (f" at {facts.revision[:12]}" if facts.revision else ""),
    )
