"""The look itself: validate's checks of the data, then prepare's own steps on the first rows."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, get_args

from ftq_shared.data_report import DataReport, Warned
from ftq_shared.errors import Refused
from ftq_shared.events import EventType, utc_now
from ftq_shared.hub import HubClient, Retry
from ftq_shared.paths import JobPaths
from ftq_shared.preview_messages import FIRST_ROWS, PreviewRequest
from ftq_shared.spec import Allowed, JobSpec, Task
from ftq_shared.states import Phase
from ftq_worker.data.events import emit_damage, tell_odd_texts
from ftq_worker.data.hub import fetch_tokenizer
from ftq_worker.data.judging import tell_judges
from ftq_worker.data.ledger import refuse_dropped, refuse_unused
from ftq_worker.data.limits import model_limit
from ftq_worker.data.load import Tables, drop_long, load_tables, refuse_one_label
from ftq_worker.data.near_duplicates import RowSigner
from ftq_worker.data.sets import RowSets, choose_sets
from ftq_worker.data.tables import tokenize
from ftq_worker.host.data_roots import DataRoots
from ftq_worker.job.context import PhaseContext
from ftq_worker.job.reports import Validated
from ftq_worker.phases.prepare import choose_encoder
from ftq_worker.phases.validate import CheckedData, check_data, validated_with
from ftq_worker.preview.base_model import check_model
from ftq_worker.preview.hub_rows import FirstRows, first_rows
from ftq_worker.preview.inputs import link_inputs
from ftq_worker.report.facts import Inputs, is_whole, make_report
from ftq_worker.validation import fit
from ftq_worker.validation.checks import Checks

_JOB = "ft-00000000"
_WAIT_FOR_HUB_S = 10.0  # somebody sits there and looks

Note = Callable[[str], None]


@dataclass
class _Emitter:
    """Keeps warnings, and tells people of what takes time."""

    note: Note
    warnings: list[Warned] = field(default_factory=list)
    told: set[str] = field(default_factory=set)

    def __call__(self, type_: EventType, /, **data: Any) -> None:
        if type_ is EventType.WARNING:
            self.warnings.append(Warned(message=data["message"], hint=data.get("hint", "")))
        elif type_ is EventType.PROGRESS and data["unit"] == "bytes":
            self._tell(data["task"])

    def _tell(self, task: str) -> None:
        if task not in self.told:
            self.told.add(task)
            self.note(task)


@dataclass
class _Refusals:
    """What a job would be refused for, where there is something to see all the same."""

    found: list[Refused] = field(default_factory=list)

    def check(self, what: Callable[[], object]) -> None:
        try:
            what()
        except Refused as error:
            self.found.append(error)


def preview(request: PreviewRequest, note: Note) -> DataReport:
    """Return what a job would be trained on.

    A refusal that `data.allow` could lift stands in the report, beside the rows; every other one is
    raised, in the words of the phase that raises it. Raises HubUnreachable as well.
    """
    emitter, folder = _Emitter(note), Path(request.folder)
    ctx = _context(request, folder, emitter)
    link_inputs(request, ctx.paths.inputs)
    hub = HubClient(ctx.endpoint, ctx.hub_token, note, Retry(total_s=_WAIT_FOR_HUB_S))
    refusals = _Refusals()
    validated, checked = _validate(ctx, hub, refusals)
    inputs = _prepare(ctx, validated, _first_rows(ctx, hub, checked, validated, folder), refusals)
    first = refusals.found[0].info().to_json() if refusals.found else None
    shown = replace(inputs, warnings=emitter.warnings, refusal=first, rows=request.rows)
    return make_report(ctx, shown)


def _context(request: PreviewRequest, folder: Path, emitter: _Emitter) -> PhaseContext:
    return PhaseContext(
        job=_JOB,
        phase=Phase.PREPARE,
        attempt=1,
        token_number=1,
        spec=JobSpec.model_validate(request.spec),
        paths=JobPaths(folder, _JOB),
        emit=emitter,
        secrets={"HF_TOKEN": request.token} if request.token else {},
        endpoint=request.endpoint,
        created=utc_now(),
        data_roots=DataRoots(open=("/",)),  # who looks reads their own files
    )


def _validate(
    ctx: PhaseContext, hub: HubClient, refusals: _Refusals
) -> tuple[Validated, CheckedData]:
    """Make validate's checks of tokenizer and data."""
    checks = Checks(ctx)
    base = check_model(ctx, checks, hub)
    rows = check_data(ctx, checks, hub)
    if base and rows.task:
        (_, architecture), task = base, rows.task
        checks.run("task fit", lambda: fit.check_fit(ctx.spec, architecture, task))
    refusals.check(checks.finish)
    if refusals.found and (not _may_be_allowed(refusals.found[0]) or not (base and rows.task)):
        raise refusals.found[0]
    assert base  # every check of it was good
    assert rows.layout  # there is no task without it
    if ctx.spec.task is Task.AUTO:
        ctx.resolve("task", str(rows.task), rows.layout.reason)
    return validated_with(base[0], rows), rows


def _may_be_allowed(error: Refused) -> bool:
    return error.code in get_args(Allowed)


def _first_rows(
    ctx: PhaseContext, hub: HubClient, rows: CheckedData, validated: Validated, folder: Path
) -> FirstRows | None:
    """Return what opens the splits of a dataset on the Hub, None for files."""
    assert rows.found
    if rows.found.record is None:
        return None
    return first_rows(ctx, hub, rows.found, validated.dataset, folder, FIRST_ROWS)


def _prepare(
    ctx: PhaseContext, validated: Validated, first: FirstRows | None, refusals: _Refusals
) -> Inputs:
    """Do what prepare does, with the first rows of each split."""
    allow = list(get_args(Allowed))
    data = ctx.spec.data.model_copy(update={"allow": allow})
    lenient = replace(ctx, spec=ctx.spec.model_copy(update={"data": data}))
    folder = ctx.paths.claim_dir(ctx.claim)
    folder.mkdir(parents=True)
    tokenizer = fetch_tokenizer(ctx, validated.model)
    sources = first.sources if first else None
    tables = load_tables(lenient, validated, folder, sources, FIRST_ROWS)
    emit_damage(ctx, tables)
    encoder = choose_encoder(lenient, validated, tokenizer, tables)
    unused = tables.train.ledger.unused(validated.columns, validated.task, encoder.render)
    signer = RowSigner(lenient, tables, folder / "near")
    for role, table in tables.roles():
        tokenize(lenient, table, encoder, tables.ids, folder / f"{role}.tokens.arrow", signer)
    drop_long(lenient, tables, model_limit(validated.model, tokenizer))
    inputs = Inputs(
        validated,
        tables,
        encoder,
        tokenizer,
        unused,
        first_rows=FIRST_ROWS,
        cut_splits=first.cut if first else frozenset(),
    )
    if "unused_columns" not in ctx.spec.data.allow and ctx.spec.data.row_template is None:
        refusals.check(lambda: refuse_unused(unused))
    odd, task = tables.train.ledger.odd, validated.task
    refusals.check(lambda: tell_odd_texts(ctx, odd, task, encoder.format))
    whole = _judge_rows(ctx, inputs, refusals)
    return replace(inputs, sets=_sets(lenient, tables, signer, refusals) if whole else None)


def _judge_rows(ctx: PhaseContext, inputs: Inputs, refusals: _Refusals) -> bool:
    """Refuse what a job would be refused for, as far as all rows are known; return whether."""
    tables, max_rows = inputs.tables, ctx.spec.data.max_rows
    limits = {"train": max_rows, "validation": None, "test": None}
    parts = [(table, is_whole(table, inputs, limits[role])) for role, table in tables.roles()]
    if "dropped_rows" not in ctx.spec.data.allow:
        for table, whole in parts:
            of_part = _Refusals()
            of_part.check(partial(refuse_dropped, table.tally, table.split))
            if whole:
                refusals.found += of_part.found
            else:
                _warn_of_part(ctx, of_part.found)
    if parts[0][1]:
        refusals.check(lambda: refuse_one_label(inputs.validated.task, tables.train))
    elif tables.labels and len(tables.labels) < 2:
        ctx.warn(
            f"the first {tables.train.tally.read:,} rows all have the label {tables.labels[0]}:"
            " the rows are sorted by label, or there is nothing to learn"
        )
    return all(whole for _, whole in parts)


def _warn_of_part(ctx: PhaseContext, found: Sequence[Refused]) -> None:
    for error in found:
        ctx.warn(f"so far, in the rows that were read: {error.message}", hint=error.hint)


def _sets(
    ctx: PhaseContext, tables: Tables, signer: RowSigner, refusals: _Refusals
) -> RowSets | None:
    try:
        sets = choose_sets(ctx, tables, signer.near_duplicates())
        tell_judges(ctx, tables, sets)
    except Refused as error:
        refusals.found.append(error)
        return None
    return sets
