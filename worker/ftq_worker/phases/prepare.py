"""The prepare phase: rows are read, cleaned, split and tokenized; nothing is trained yet.

Leaves `prepared/{train,validation,golden}`, which `datasets.load_from_disk` reads, where each
training row came from (`prepared/rows.arrow`), and `prepared.json`. The columns: `input_ids`,
`labels` (-100 where not trained), `length`; for classification `input_ids`, `label`, `length`; for
preference `prompt`, `chosen`, `rejected`, `length`. Running it again gives the same rows.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Literal, cast

from datasets import disable_progress_bars
from transformers import PreTrainedTokenizerBase

from ftq_shared.spec import Task
from ftq_worker.data.arrow import save_set
from ftq_worker.data.events import (
    EARLY_RULES,
    LATE_RULES,
    emit_damage,
    emit_dataset,
    emit_held_out_cleaning,
    emit_sets,
    tell_odd_texts,
    tell_unused,
)
from ftq_worker.data.hub import fetch_tokenizer
from ftq_worker.data.judging import tell_judges
from ftq_worker.data.limits import model_limit
from ftq_worker.data.load import Tables, drop_long, load_tables
from ftq_worker.data.near_duplicates import RowSigner
from ftq_worker.data.records import Encoder
from ftq_worker.data.sets import RowSets, choose_sets, lengths
from ftq_worker.data.tables import tokenize
from ftq_worker.data.token_checks import check_eos
from ftq_worker.data.tokenizing import choose_format, make_encoder
from ftq_worker.job.atomic_folders import swap_in
from ftq_worker.job.context import PhaseContext
from ftq_worker.job.progress import Progress
from ftq_worker.job.reports import Prepared, Sample, Unused, Validated, read_resolved
from ftq_worker.job.row_sources import save_sources
from ftq_worker.report.facts import Inputs
from ftq_worker.report.page import leave_report

CHECKED_ROWS = 20  # rows that the end-of-turn check looks at


def run(ctx: PhaseContext) -> None:
    """Prepare the data sets of a job.

    Raises Refused for data that cannot be used, HubUnreachable, JobCancelled and Interrupted.
    """
    disable_progress_bars()  # they would land in the job's log; events show the progress
    validated = Validated.load(ctx.paths.validated)
    tokenizer = fetch_tokenizer(ctx, validated.model)
    _resolve_task(ctx, validated)

    with _scratch(ctx) as folder:
        tables = load_tables(ctx, validated, folder)
        emit_dataset(ctx, validated, tables)
        tables.train.tally.emit(ctx.emit, EARLY_RULES)
        emit_damage(ctx, tables)

        encoder = choose_encoder(ctx, validated, tokenizer, tables)
        unused = tables.train.ledger.unused(validated.columns, validated.task, encoder.render)
        tell_unused(ctx, unused)
        tell_odd_texts(ctx, tables.train.ledger.odd, validated.task, encoder.format)
        signer = RowSigner(ctx, tables, folder / "near")
        for role, table in tables.roles():
            tokenize(ctx, table, encoder, tables.ids, folder / f"{role}.tokens.arrow", signer)
        drop_long(ctx, tables, model_limit(validated.model, tokenizer))

        sets = choose_sets(ctx, tables, signer.near_duplicates())
        tell_judges(ctx, tables, sets)
        tables.train.tally.emit(ctx.emit, LATE_RULES)
        emit_held_out_cleaning(ctx, tables)
        samples = emit_sets(ctx, sets, encoder)
        emit_dataset(ctx, validated, tables, lengths(sets.train))

        _save(ctx, sets, folder / "prepared")
        leave_report(ctx, Inputs(validated, tables, encoder, tokenizer, unused, sets))
        _report(sets, tables, encoder, samples, unused).save(ctx.paths.prepared_report)


@contextmanager
def _scratch(ctx: PhaseContext) -> Iterator[Path]:
    """Give a folder that only this claim writes to, on the storage's own disk."""
    folder = ctx.paths.claim_dir(ctx.claim) / "prepare"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _resolve_task(ctx: PhaseContext, validated: Validated) -> None:
    """Resolve the task where the spec left it open, unless validate has done so."""
    if ctx.spec.task is Task.AUTO and "task" not in read_resolved(ctx.paths):
        ctx.resolve("task", str(validated.task), f"the columns are {validated.shape}")


def choose_encoder(
    ctx: PhaseContext, validated: Validated, tokenizer: PreTrainedTokenizerBase, tables: Tables
) -> Encoder:
    """Return the encoder, after a look at what it makes of the first rows."""
    data, format_ = ctx.spec.data, "plain"
    if validated.task in (Task.SFT, Task.PREFERENCE):
        format_, reason = choose_format(data.format, tokenizer, data.chat_template)
        if data.format == "auto":
            ctx.resolve("data.format", format_, reason)
    encoder = make_encoder(
        tokenizer, validated.task, format_, ctx.spec, _date(ctx), validated.model.vocab_size
    )
    count = min(CHECKED_ROWS, len(tables.train.alive))
    check_eos(tokenizer, encoder, [tables.train.example(i) for i in range(count)])
    return encoder


def _date(ctx: PhaseContext) -> str:
    """Return the day of the submit, for chat templates that write a date."""
    if not ctx.created:
        return ""
    return datetime.fromisoformat(ctx.created).strftime("%d %b %Y")


def _save(ctx: PhaseContext, sets: RowSets, folder: Path) -> None:
    """Write the sets beside `prepared/` and put them in its place.

    The old report is removed first and the new one written last, by `run`: a report that is there
    belongs to the folder.
    """
    total = sum(len(chosen) for _, chosen in sets.items())
    progress = Progress(ctx.emit, ctx.control, "save the sets", "rows", total, after_s=1.0)
    for name, chosen in sets.items():
        assert chosen.table.tokens is not None  # tokenized before anything is chosen
        save_set(chosen.table.tokens, chosen.records, folder / name, progress)
    save_sources(sets.train.sources(), folder / "rows.arrow")
    progress.finish()
    ctx.owner.check_lease()  # what follows changes files that all attempts share
    ctx.paths.prepared_report.unlink(missing_ok=True)
    swap_in(folder, ctx.paths.prepared)


def _report(
    sets: RowSets,
    tables: Tables,
    encoder: Encoder,
    samples: list[Sample],
    unused: list[Unused],
) -> Prepared:
    return Prepared(
        rows={name: len(chosen) for name, chosen in sets.items()},
        labels=tables.labels,
        format=cast(Literal["chat", "plain"], encoder.format),
        max_length=max(lengths(chosen)["max"] for _, chosen in sets.items()),
        tokens=lengths(sets.train),
        cleaning=tables.train.tally.report(),
        unused=unused,
        golden_sha256=sets.sha256,
        golden_source=sets.golden.table.split,
        samples=samples,
    )
