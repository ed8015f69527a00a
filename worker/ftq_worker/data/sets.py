"""The three sets of a job: golden first, then validation, then what is left to train on."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ftq_shared.errors import Refused
from ftq_worker.data import splits
from ftq_worker.data.arrow import Indices
from ftq_worker.data.cleaning import Rule
from ftq_worker.data.load import Tables
from ftq_worker.data.splits import Rows
from ftq_worker.data.tables import Mask, SplitTable
from ftq_worker.job.context import PhaseContext


@dataclass(frozen=True)
class RowSet:
    """Rows of one table that make up a set."""

    table: SplitTable
    rows: Indices  # numbers of usable rows of the table, ascending

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def records(self) -> Indices:
        """Positions in the table's token file."""
        return self.table.position[self.rows]


@dataclass(frozen=True)
class RowSets:
    """The sets, and how the golden one was chosen."""

    train: RowSet
    validation: RowSet
    golden: RowSet
    reason: str
    sha256: str  # of the golden texts, in order
    strata: dict[str, int]  # golden rows per label or length bucket
    leaked: int  # training rows that were equal to one of another split, or of its group

    def items(self) -> Iterator[tuple[str, RowSet]]:
        yield "train", self.train
        yield "validation", self.validation
        yield "golden", self.golden


def choose_sets(ctx: PhaseContext, tables: Tables) -> RowSets:
    """Choose golden, then validation, and take both out of the training rows.

    All tables are tokenized. Raises Refused: `golden_size`, `group_by`, `too_few_rows`.
    """
    train = tables.train
    rows = _rows_of(tables, train)
    golden, reason = _golden(ctx, tables, rows)
    golden_rows = _rows_of(tables, golden.table).take(_mask(golden))
    held = tables.validation
    table = held if held is not None and len(held.alive) else train
    candidates = _rows_of(tables, table)
    # Early stopping looks at the validation set: it may share nothing with the golden one, even
    # where the dataset's own splits overlap.
    candidates = candidates.take(~splits.held_out(candidates, golden_rows))
    chosen = _validation(ctx, table, candidates, held_out=table is train)
    validation_rows = _rows_of(tables, chosen.table).take(_mask(chosen))

    # Whole splits are kept out, not only the rows that were chosen from them.
    whole = [_rows_of(tables, other) for role, other in tables.roles() if role != "train"]
    away = splits.held_out(rows, golden_rows, validation_rows, *whole)
    left = np.flatnonzero(~away)
    if not len(left):
        raise _nothing_left(ctx, len(rows))
    taken = sum(len(c) for c in (golden, chosen) if c.table is train)
    names = splits.stratum_names(tables.labels)
    # Counted, and not dropped: the sets find their rows in the table.
    train.tally.count(Rule.HELD_OUT, int(away.sum()))
    return RowSets(
        RowSet(train, left),
        chosen,
        golden,
        reason,
        _sha256(golden),
        _strata(golden_rows, names),
        int(away.sum()) - taken,
    )


def _golden(ctx: PhaseContext, tables: Tables, rows: Rows) -> tuple[RowSet, str]:
    """Choose the golden set, from the test split or else from the training `rows`; say why."""
    test = tables.test
    asked = ctx.spec.data.golden.size
    size = None if asked == "auto" else asked
    by = "label" if tables.labels else "length"
    if test is not None and len(test.alive):
        wanted = splits.golden_size_from_test(len(test.alive), size)
        # Groups need not stay whole here: all groups of the test split leave the training rows.
        picked = _pick(test, _rows_of(tables, test), wanted.value, ctx.spec.train.seed)
        return picked, (
            f"{len(picked):,} of the {len(test.alive):,} usable rows of the test split"
            f" ({wanted.reason}); stratified by {by}, seed {ctx.spec.train.seed}"
        )
    grouped = bool(ctx.spec.data.group_by)
    wanted = splits.golden_size_from_train(len(rows), size)
    picked = _pick(tables.train, rows, wanted.value, ctx.spec.train.seed, grouped=grouped)
    how = f"whole groups of {ctx.spec.data.group_by}" if grouped else f"stratified by {by}"
    return picked, (
        f"{len(picked):,} of {len(rows):,} training rows ({wanted.reason}), held out before"
        f" anything else; {how}, seed {ctx.spec.train.seed}"
    )


def _validation(ctx: PhaseContext, table: SplitTable, rows: Rows, *, held_out: bool) -> RowSet:
    if ctx.spec.data.validation == "none":
        return RowSet(table, np.zeros(0, dtype=np.int64))
    size = splits.validation_size(len(rows)) if held_out else splits.VALIDATION_MOST
    grouped = held_out and bool(ctx.spec.data.group_by)
    return _pick(table, rows, size, ctx.spec.train.seed, grouped=grouped)


def _pick(table: SplitTable, rows: Rows, size: int, seed: int, *, grouped: bool = False) -> RowSet:
    if not len(rows):
        return RowSet(table, np.zeros(0, dtype=np.int64))
    return RowSet(table, rows.index[splits.choose(rows, size, seed, grouped=grouped)])


def _rows_of(tables: Tables, table: SplitTable) -> Rows:
    by_label = bool(tables.labels)
    strata = tables.ids[table.column("label")] if by_label else splits.length_strata(table.length)
    index = np.arange(len(table.alive), dtype=np.int64)
    return Rows(index, table.column("key"), table.column("group"), strata)


def _mask(chosen: RowSet) -> Mask:
    mask = np.zeros(len(chosen.table.alive), dtype=bool)
    mask[chosen.rows] = True
    return mask


def _strata(rows: Rows, names: list[str]) -> dict[str, int]:
    numbers, counts = np.unique(rows.stratum, return_counts=True)
    return {names[n]: int(count) for n, count in zip(numbers, counts, strict=True)}


def _sha256(golden: RowSet) -> str:
    digest = hashlib.sha256()
    for i in golden.rows:
        digest.update(golden.table.example(int(i)).to_json().encode())
        digest.update(b"\n")
    return digest.hexdigest()


def _nothing_left(ctx: PhaseContext, rows: int) -> Refused:
    group_by = ctx.spec.data.group_by
    if group_by:
        return Refused(
            f"data.group_by {group_by!r} leaves no training rows: its groups are too large",
            code="group_by",
            hint="choose a column with many values, or leave data.group_by out",
            field="data.group_by",
        )
    return Refused(
        f"{rows:,} usable rows are too few: none is left to train on beside golden and validation",
        code="too_few_rows",
        hint="give at least 3 rows that differ, or a test split of their own",
    )


def lengths(chosen: RowSet) -> dict[str, int]:
    """Return total, p50, p90, p99 and max of the row lengths of a set, in tokens."""
    values = chosen.table.length[chosen.rows]
    shares = np.percentile(values, (50, 90, 99), method="nearest") if len(values) else [0] * 3
    figures = (values.sum(), *shares, values.max(initial=0))
    names = ("total", "p50", "p90", "p99", "max")
    return {name: int(value) for name, value in zip(names, figures, strict=True)}
