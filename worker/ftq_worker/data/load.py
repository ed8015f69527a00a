"""From a validated dataset to tables: the splits are opened, read, cleaned and labelled."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ftq_shared.errors import Refused
from ftq_shared.sources import Place
from ftq_shared.spec import Task
from ftq_worker.data.arrow import Indices
from ftq_worker.data.cleaning import Rule, empty_dataset
from ftq_worker.data.columns import ColumnLayout, require_column
from ftq_worker.data.examples import example_maker
from ftq_worker.data.hub import hub_sources
from ftq_worker.data.ledger import assert_balance, refuse_dropped
from ftq_worker.data.limits import max_length
from ftq_worker.data.rows import SplitSource, SplitSources
from ftq_worker.data.split_sources import columns_of, file_sources, pick_split, sample_rows
from ftq_worker.data.tables import LabelBook, SplitTable, collect, drop_duplicates
from ftq_worker.job.context import PhaseContext
from ftq_worker.job.reports import Validated

# Rows that are read of a validation or test split at most; the sets take 2,000 and 1,000 of them.
HELD_OUT_ROWS = 100_000


@dataclass(frozen=True)
class Tables:
    """The splits of a job. A held-out split that the dataset lacks, or that is empty, is None."""

    train: SplitTable
    validation: SplitTable | None
    test: SplitTable | None
    labels: list[str]  # classification: names in id order
    ids: Indices  # the label id of every number in the tables' label column

    def roles(self) -> Iterator[tuple[str, SplitTable]]:
        yield "train", self.train
        for role, table in (("validation", self.validation), ("test", self.test)):
            if table is not None:
                yield role, table


def load_tables(
    ctx: PhaseContext,
    validated: Validated,
    folder: Path,
    sources: SplitSources | None = None,
    first_rows: int | None = None,
) -> Tables:
    """Read and clean all splits into Arrow files under `folder`.

    `sources` open the splits where they are not those of `validated`. With `first_rows` no more
    rows of any split are read, and one label is enough: the rows may be sorted by label.

    Raises Refused: `no_split`, `wrong_column`, `bad_file`, `bad_row`, `empty_dataset`,
    `one_label`, `dropped_rows`.
    """
    dataset = validated.dataset
    on_hub = dataset.place is Place.HUB
    if not on_hub:
        _refuse_moved(dataset.files)
    if sources is None:
        sources = hub_sources(ctx, dataset, folder) if on_hub else file_sources(dataset.files)
    source = pick_split(sources, validated.split)
    names = source.label_names.get(validated.columns.label or "")
    book = LabelBook(names)
    most = _least(ctx.spec.data.max_rows, first_rows)
    train = _table(ctx, validated, source, book, folder / "train.arrow", most)
    if not len(train.alive):
        raise empty_dataset(train.split, train.tally)

    def held_out(split: str | None, field: str) -> SplitTable | None:
        if split is None:
            return None
        opened = pick_split(sources, split, field)
        path = folder / f"{field.removeprefix('data.')}.arrow"
        return _table(ctx, validated, opened, book, path, _least(HELD_OUT_ROWS, first_rows))

    none = ctx.spec.data.validation == "none"
    validation = held_out(None if none else validated.validation_split, "data.validation")
    test = held_out(validated.test_split, "data.test")
    labels, ids = _labels(validated.task, train, book)
    if first_rows is None:
        refuse_one_label(validated.task, train)
    for table in (validation, test):
        if table is not None and labels:
            unknown = ids[table.label] < 0
            table.drop_where(Rule.MISSING, unknown, lambda i: "its label is on no training row")
    tables = Tables(train, _filled(ctx, validation), _filled(ctx, test), labels, ids)
    refuse_dropped_rows(ctx, tables)
    return tables


def refuse_dropped_rows(ctx: PhaseContext, tables: Tables) -> None:
    """Raise Refused (`dropped_rows`) where a rule takes away more rows than a person expects."""
    for _, table in tables.roles():
        assert_balance(table.tally, len(table.alive))
        if "dropped_rows" not in ctx.spec.data.allow:
            refuse_dropped(table.tally, table.split)


def _refuse_moved(files: Sequence[str]) -> None:
    """Raise Refused for a file that is a link or no file by now: validate looked at another one."""
    for file in map(Path, files):
        if os.path.realpath(file) != str(file) or not file.is_file():
            raise Refused(
                f"dataset: {file.name} is not there any more, or has become a link",
                code="file_moved",
                hint="put the file back, then `ftq retry --from validate`",
                file=file.name,
            )


def _table(
    ctx: PhaseContext,
    validated: Validated,
    source: SplitSource,
    book: LabelBook,
    path: Path,
    limit: int | None,
) -> SplitTable:
    layout = ColumnLayout(validated.shape, validated.task, validated.columns, "found by validate")
    columns = _columns(validated, source)
    if source.split == validated.split:
        _require_columns(ctx, layout, columns)
    make = example_maker(layout, ctx.spec.data.row_template, columns, source.label_names)
    table = collect(ctx, source, make, book, path, limit)
    keep = ctx.spec.data.dedupe == "none"
    conflicts = drop_duplicates(table, keep=keep)
    if conflicts:
        kept = "all of them are kept" if keep else "the first of each stays"
        ctx.warn(
            f"split {table.split}: {conflicts:,} rows repeat a text with another label; {kept}",
            hint="look at the labels: a model cannot learn two answers to one text",
        )
    return table


def _columns(validated: Validated, source: SplitSource) -> list[str]:
    """Return the columns of a split; a jsonl file tells them only row by row."""
    sampled = source.columns or columns_of(sample_rows(source))
    return list(dict.fromkeys([*sampled, *validated.dataset.columns]))


def _require_columns(ctx: PhaseContext, layout: ColumnLayout, columns: list[str]) -> None:
    if not columns:
        return  # nothing could be read: the counts say why
    for part, column in layout.columns:
        if column is not None:
            require_column(f"data.columns.{part}", column, columns)
    if ctx.spec.data.group_by:
        require_column("data.group_by", ctx.spec.data.group_by, columns)


def _least(*limits: int | None) -> int | None:
    return min((limit for limit in limits if limit is not None), default=None)


def _labels(task: Task, train: SplitTable, book: LabelBook) -> tuple[list[str], Indices]:
    """Return the labels in id order and the id of every number of the book."""
    if task is not Task.CLASSIFICATION:
        return [], np.zeros(0, dtype=np.int64)
    used = np.unique(train.label)
    labels = book.names(used)
    return labels, book.ids(labels)


def refuse_one_label(task: Task, train: SplitTable) -> None:
    """Raise Refused (`one_label`) for classification with nothing to tell apart."""
    if task is Task.CLASSIFICATION and len(np.unique(train.label)) < 2:
        raise Refused(
            f"all {len(train.alive):,} rows have the same label; there is nothing to learn",
            code="one_label",
            hint="check data.columns.label; data.max_rows reads the first rows, which may be"
            " sorted by label; for a model that writes, --set task=text learns the texts alone",
            field="data.columns.label",
        )


def _filled(ctx: PhaseContext, table: SplitTable | None) -> SplitTable | None:
    """Return the table, or None with a warning when nothing in it can be used."""
    if table is None or len(table.alive):
        return table
    ctx.warn(
        f"nothing in split {table.split} can be used ({table.tally.summary()});"
        " training rows are held out in its place"
    )
    return None


def drop_long(ctx: PhaseContext, tables: Tables, model_limit: int | None) -> None:
    """Resolve `train.max_length` and drop longer rows from all tables.

    Raises Refused: `max_length`, `empty_dataset`, `dropped_rows`.
    """
    asked = ctx.spec.train.max_length
    # Of all splits: a golden row may be longer than every training row.
    rows = np.concatenate([table.length for _, table in tables.roles()])
    limit = max_length(rows, None if asked == "auto" else asked, model_limit)
    if asked == "auto":
        ctx.resolve("train.max_length", limit.value, limit.reason)
    for _, table in tables.roles():
        lengths = table.length

        def what(i: int, lengths: Indices = lengths) -> str:
            return f"{lengths[i]:,} tokens, the limit is {limit.value:,}"

        table.drop_where(Rule.TOO_LONG, lengths > limit.value, what)
    if not len(tables.train.alive):
        raise empty_dataset(tables.train.split, tables.train.tally)
    refuse_dropped_rows(ctx, tables)
