"""From the tables of the rows to a `DataReport`: everything is counted in what was made of them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from transformers import PreTrainedTokenizerBase

from ftq_shared.data_report import (
    VERSION,
    Choice,
    DataReport,
    Histogram,
    LabelFacts,
    LeftOutRow,
    ReportRow,
    RuleFacts,
    SplitFacts,
    TokenFacts,
    UnreadFacts,
    UnusedFacts,
    Warned,
)
from ftq_shared.errors import ErrorJson
from ftq_shared.spec import Task
from ftq_worker.data import arrow
from ftq_worker.data.cleaning import Rule
from ftq_worker.data.load import Tables
from ftq_worker.data.records import Encoder
from ftq_worker.data.sets import RowSets
from ftq_worker.data.tables import SplitTable
from ftq_worker.job.context import PhaseContext
from ftq_worker.job.reports import ResolvedValue, Unused, Validated, read_resolved
from ftq_worker.report.rows import report_row

_BARS = 24  # of a histogram, at most


@dataclass(frozen=True)
class Inputs:
    """What a report is made of."""

    validated: Validated
    tables: Tables  # tokenized
    encoder: Encoder
    tokenizer: PreTrainedTokenizerBase
    unused: Sequence[Unused]
    sets: RowSets | None = None  # None where not all rows were read
    first_rows: int | None = None  # of each split that were read at most; None: all
    cut_splits: frozenset[str] = frozenset()  # of which less was read than `first_rows`
    warnings: Sequence[Warned] = ()
    refusal: ErrorJson | None = None
    rows: int = 20  # rows that are shown


def make_report(ctx: PhaseContext, inputs: Inputs) -> DataReport:
    """Return the report of a job's data; every `auto` that it names has been resolved."""
    validated, tables = inputs.validated, inputs.tables
    resolved = read_resolved(ctx.paths)
    rows = _trained_rows(inputs)
    used = {table.split for _, table in tables.roles()}
    return DataReport(
        v=VERSION,
        model=ctx.spec.model,
        dataset=ctx.spec.dataset,
        task=_choice(resolved, "task", str(validated.task)),
        layout=validated.shape,
        columns={part: name for part, name in validated.columns if name is not None},
        format=_format(resolved, inputs.encoder.format, validated.task),
        max_length=_choice(resolved, "train.max_length", ctx.spec.train.max_length),
        first_rows=inputs.first_rows,
        splits=[_split(role, table, inputs, ctx) for role, table in tables.roles()],
        sets={name: len(rows) for name, rows in inputs.sets.items()} if inputs.sets else {},
        tokens=_tokens(tables.train, rows),
        lengths=histogram(tables.train.length[rows]),
        labels=_labels(tables, rows),
        unused=[_unused(one) for one in inputs.unused],
        unread_files=[
            UnreadFacts(name=file.name, reason=file.reason) for file in validated.dataset.unread
        ],
        unused_splits=sorted(set(validated.dataset.splits) - used),
        warnings=list(inputs.warnings),
        rows=_rows(inputs, rows),
        refusal=inputs.refusal,
    )


def is_whole(table: SplitTable, inputs: Inputs, max_rows: int | None = None) -> bool:
    """Return whether all rows of a split were read that a job would read."""
    first = inputs.first_rows
    asked = first is not None and max_rows is not None and max_rows <= first
    short = first is None or table.tally.read < first or asked
    return short and table.split not in inputs.cut_splits


def _choice(resolved: dict[str, ResolvedValue], name: str, given: object) -> Choice:
    if name in resolved:
        return Choice(value=resolved[name]["value"], reason=resolved[name]["reason"])
    return Choice(value=given, reason="as asked for")


def _format(resolved: dict[str, ResolvedValue], used: str, task: Task) -> Choice:
    if task in (Task.SFT, Task.PREFERENCE):
        return _choice(resolved, "data.format", used)
    return Choice(value=used, reason=f"task {task} has no turns")


def _split(role: str, table: SplitTable, inputs: Inputs, ctx: PhaseContext) -> SplitFacts:
    max_rows = ctx.spec.data.max_rows if role == "train" else None
    return SplitFacts(
        split=table.split,
        role=role,
        read=table.tally.read,
        kept=table.tally.left(),
        whole=is_whole(table, inputs, max_rows),
        rules=_rules(table),
    )


def _rules(table: SplitTable) -> list[RuleFacts]:
    rules = []
    for count in table.tally.report():
        rows = table.tally.changed(Rule(count["rule"]))
        if rows:
            examples = [LeftOutRow(**example) for example in count.get("examples", [])]
            rules.append(
                RuleFacts(
                    rule=count["rule"],
                    reason=count.get("reason", ""),
                    rows=rows,
                    rows_in=count["rows_in"],
                    rows_out=count["rows_out"],
                    examples=examples,
                )
            )
    return rules


def _trained_rows(inputs: Inputs) -> arrow.Indices:
    """Return the usable training rows; without those that are held out, where that is known."""
    train = inputs.tables.train
    return inputs.sets.train.rows if inputs.sets else np.arange(len(train.alive), dtype=np.int64)


def _tokens(table: SplitTable, rows: arrow.Indices) -> TokenFacts:
    lengths = table.length[rows]
    p50, p90, p99 = np.percentile(lengths, (50, 90, 99), method="nearest")
    return TokenFacts(
        total=int(lengths.sum()),
        trained=_trained(table, rows),
        p50=int(p50),
        p90=int(p90),
        p99=int(p99),
        max=int(lengths.max()),
    )


def _trained(table: SplitTable, rows: arrow.Indices) -> int | None:
    """Return how many tokens of these rows the loss counts, None where rows have a label."""
    assert table.tokens is not None  # it is tokenized
    if "labels" not in table.tokens.schema.names:
        return None
    return int(table.trained[rows].sum())


def histogram(lengths: arrow.Indices) -> Histogram:
    """Return the lengths in bars of equal width; a bar is at least one token wide."""
    low, high = int(lengths.min()), int(lengths.max()) + 1
    bars = min(_BARS, high - low)
    rows, edges = np.histogram(lengths, bins=bars, range=(low, high))
    return Histogram(edges=[round(float(edge), 1) for edge in edges], rows=rows.tolist())


def _labels(tables: Tables, rows: arrow.Indices) -> list[LabelFacts]:
    if not tables.labels:
        return []
    ids = tables.ids[tables.train.label][rows]
    counts = np.bincount(ids, minlength=len(tables.labels))
    facts = [
        LabelFacts(label=label, rows=int(count))
        for label, count in zip(tables.labels, counts, strict=True)
    ]
    return sorted(facts, key=lambda one: (-one["rows"], one["label"]))


def _unused(one: Unused) -> UnusedFacts:
    return UnusedFacts(
        name=one["name"], kind=one["kind"], rows=one["rows"], share=one["share"], use=one["use"]
    )


def _rows(inputs: Inputs, rows: arrow.Indices) -> list[ReportRow]:
    """Return rows from the beginning, the middle and the end of what is trained."""
    count = min(inputs.rows, len(rows))
    picked = [rows[i * (len(rows) - 1) // max(1, count - 1)] for i in range(count)]
    table = inputs.tables.train
    return [report_row(table, int(i), inputs.encoder, inputs.tokenizer) for i in picked]
