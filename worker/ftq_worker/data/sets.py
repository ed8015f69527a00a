"""The three sets of a job: golden first, then validation, then what is left to train on."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa

from ftq_shared.errors import Refused
from ftq_shared.judging import FEWEST_TO_JUDGE, TOO_FEW_TO_JUDGE
from ftq_worker.data import splits
from ftq_worker.data.arrow import Indices
from ftq_worker.data.cleaning import EXAMPLES, Rule, row_example
from ftq_worker.data.load import Tables
from ftq_worker.data.near_duplicates import NearDuplicates
from ftq_worker.data.row_groups import rows_of, rows_together
from ftq_worker.data.splits import Rows
from ftq_worker.data.tables import Mask, SplitTable
from ftq_worker.job.context import PhaseContext
from ftq_worker.job.progress import Progress

_STEPS = 5  # of the choice that its progress counts


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

    def sources(self) -> Iterator[pa.RecordBatch]:
        """Yield where the rows came from, in order, some at a time: `file`, `row`, `line`."""
        alive = self.table.alive[self.rows]
        for number, place in self.table.rows.parts(alive):
            yield self.table.rows.take(number, alive[place])


@dataclass(frozen=True)
class RowSets:
    """The sets, and how the golden one was chosen."""

    train: RowSet
    validation: RowSet
    golden: RowSet
    reason: str
    sha256: str = ""  # of the golden texts, in order
    strata: dict[str, int] = field(default_factory=dict)  # golden rows per label or length bucket
    leaked: int = 0  # training rows that were equal to one of another split, or of its group

    def items(self) -> Iterator[tuple[str, RowSet]]:
        yield "train", self.train
        yield "validation", self.validation
        yield "golden", self.golden


def choose_sets(ctx: PhaseContext, tables: Tables, near: NearDuplicates) -> RowSets:
    """Choose golden, then validation, and take both out of the training rows.

    All tables are tokenized. No prompt (or value of `data.group_by`) stands on two sides, and no
    label loses its last training row. Raises Refused: `golden_size`, `group_by`, `too_few_rows`,
    `one_label`.
    """
    # Each step takes up to a second for a million rows.
    progress = Progress(ctx.emit, ctx.control, "choose the sets", "steps", _STEPS, after_s=0.5)
    rows = rows_together(ctx, tables)
    progress.advance()
    labels = len(tables.labels)
    # Of each label one row stays behind. Lengths need no such care: any row teaches.
    spare = _counts(rows["train"], labels) - 1 if labels else None
    golden, reason = _golden(ctx, tables, rows, spare)
    progress.advance()
    golden_rows = rows[_role(tables, golden.table)].take(_mask(golden))
    if spare is not None and golden.table is tables.train:
        spare -= _counts(golden_rows, labels)
    validation = _validation(ctx, tables, rows, golden, spare, near)
    progress.advance()
    chosen = [golden, validation]
    taken = [rows[_role(tables, c.table)].take(_mask(c)) for c in chosen]

    # Whole splits are kept out, not only the rows that were chosen from them.
    whole = [others for role, others in rows.items() if role != "train"]
    away = splits.held_out(rows["train"], *taken, *whole)
    if away.all():
        raise _nothing_left(ctx, rows, tables)
    progress.advance()
    copies = _near_copies(ctx, tables, near, ~away, chosen)
    stay = np.zeros_like(away)
    if labels:
        mine = _mask_in(tables.train, chosen)
        stay = splits.last_of_their_label(rows["train"], away | copies, mine)
        away, copies = away & ~stay, copies & ~stay
    left = RowSet(tables.train, np.flatnonzero(~away & ~copies))
    sets = RowSets(left, validation, golden, reason)
    if stay.any():
        sets = _without_equals_of(
            sets, rows, tables, near, RowSet(tables.train, np.flatnonzero(stay))
        )
    held = [c for c in (sets.golden, sets.validation) if c.table is tables.train]
    # Counted, and not dropped: the sets find their rows in the table.
    tables.train.tally.count(Rule.HELD_OUT, int(away.sum()))
    _count_copies(tables.train, copies)
    progress.advance()
    progress.finish()
    return _freeze(tables, replace(sets, leaked=int(away.sum()) - sum(map(len, held))))


def _near_copies(
    ctx: PhaseContext, tables: Tables, near: NearDuplicates, left: Mask, chosen: Sequence[RowSet]
) -> Mask:
    """Return which of the training rows that are `left` nearly equal a held-out row."""
    copies = near.copies(tables.train, left, [(part.table, part.rows) for part in chosen])
    if copies.sum() <= left.sum() // 2:
        return copies
    ctx.warn(
        f"{copies.sum():,} of {left.sum():,} training rows are nearly equal to a golden or"
        " validation row and stay in training, as too little would be left without them: the"
        " figures of these sets tell little about rows that are new",
        hint="--set data.test=SPLIT names a split of other rows; --set data.group_by=COLUMN keeps"
        " rows that belong together on one side",
    )
    return np.zeros_like(copies)


def _count_copies(train: SplitTable, copies: Mask) -> None:
    some = np.flatnonzero(copies)[:EXAMPLES]
    what = "nearly equal to a golden or validation row"
    examples = [row_example(train.source_row(int(i)), "", what) for i in some]
    train.tally.count(Rule.NEAR_DUPLICATE, int(copies.sum()), examples)


def _freeze(tables: Tables, sets: RowSets) -> RowSets:
    """Return the sets with the fingerprint of the golden rows, and their strata."""
    golden = rows_of(tables, sets.golden.table).take(_mask(sets.golden))
    names = splits.stratum_names(tables.labels)
    few = f"; {TOO_FEW_TO_JUDGE}" if len(sets.golden) < FEWEST_TO_JUDGE else ""
    return replace(
        sets, reason=sets.reason + few, sha256=_sha256(sets.golden), strata=_strata(golden, names)
    )


def _golden(
    ctx: PhaseContext, tables: Tables, rows: dict[str, Rows], spare: Indices | None
) -> tuple[RowSet, str]:
    """Choose the golden set, from the test split or else from the training rows; say why."""
    test = tables.test
    asked = ctx.spec.data.golden.size
    size = None if asked == "auto" else asked
    by = "label" if tables.labels else "length"
    seed = ctx.spec.train.seed
    if test is not None and len(test.alive):
        wanted = splits.golden_size_from_test(len(test.alive), size)
        # Groups need not stay whole here: all groups of the test split leave the training rows.
        picked = _pick(test, rows["test"].alone(), wanted.value, seed)
        return picked, (
            f"{len(picked):,} of the {len(test.alive):,} usable rows of the test split"
            f" ({wanted.reason}); stratified by {by}, seed {seed}"
        )
    count = len(rows["train"])
    wanted = splits.golden_size_from_train(count, size)
    picked = _pick(tables.train, rows["train"], wanted.value, seed, spare)
    if not len(picked) and not tables.labels:
        raise _nothing_left(ctx, rows, tables)
    group_by = ctx.spec.data.group_by
    how = f"whole groups of {group_by}" if group_by else f"stratified by {by}"
    return picked, (
        f"{len(picked):,} of {count:,} training rows ({wanted.reason}), held out before"
        f" anything else; {how}, seed {seed}"
    )


def _validation(
    ctx: PhaseContext,
    tables: Tables,
    rows: dict[str, Rows],
    golden: RowSet,
    spare: Indices | None,
    near: NearDuplicates,
) -> RowSet:
    """Choose the validation set. It steers the training: it shares nothing with the golden one."""
    seed = ctx.spec.train.seed
    golden_rows = rows[_role(tables, golden.table)].take(_mask(golden))
    if ctx.spec.data.validation == "none":
        return RowSet(tables.train, np.zeros(0, dtype=np.int64))
    if tables.validation is not None and len(tables.validation.alive):
        own = rows["validation"]
        own = own.take(~splits.held_out(own, golden_rows))
        own = _unlike(own, tables.validation, golden, near)
        if len(own):
            return _pick(tables.validation, own.alone(), splits.VALIDATION_MOST, seed)
        ctx.warn(
            f"every row of split {tables.validation.split} stands in the golden set as well, or"
            " its prompt does; training rows are held out in its place"
        )
    others = [part for role, part in rows.items() if role != "train"]
    left = rows["train"].take(~splits.held_out(rows["train"], golden_rows, *others))
    left = _unlike(left, tables.train, golden, near)
    picked = _pick(tables.train, left, splits.validation_size(len(left)), seed, spare)
    if not len(picked) and len(left):
        ctx.warn(
            "no rows could be held out for validation: every label or group is too small; no"
            " checkpoint is chosen and nothing ends the training early",
            hint="--set data.validation=SPLIT names a split of the dataset",
        )
    return picked


def _unlike(rows: Rows, table: SplitTable, golden: RowSet, near: NearDuplicates) -> Rows:
    """Return the rows that do not nearly equal a golden one; all of them where most of them do."""
    mask = _mask(RowSet(table, rows.index))
    copies = near.copies(table, mask, [(golden.table, golden.rows)])[rows.index]
    return rows if copies.sum() > len(rows) // 2 else rows.take(~copies)


def _pick(
    table: SplitTable, rows: Rows, size: int, seed: int, spare: Indices | None = None
) -> RowSet:
    return RowSet(table, rows.index[splits.choose(rows, size, seed, spare)])


def _role(tables: Tables, table: SplitTable) -> str:
    return next(role for role, known in tables.roles() if known is table)


def _counts(rows: Rows, labels: int) -> Indices:
    """Return the rows of each label, shape (labels,)."""
    return np.bincount(rows.stratum, minlength=labels)


def _mask(chosen: RowSet) -> Mask:
    mask = np.zeros(len(chosen.table.alive), dtype=bool)
    mask[chosen.rows] = True
    return mask


def _mask_in(table: SplitTable, chosen: Sequence[RowSet]) -> Mask:
    """Return which rows of a table stand in one of the sets."""
    mask = np.zeros(len(table.alive), dtype=bool)
    for part in chosen:
        if part.table is table:
            mask[part.rows] = True
    return mask


def _without_equals_of(
    sets: RowSets, rows: dict[str, Rows], tables: Tables, near: NearDuplicates, stay: RowSet
) -> RowSets:
    """Return the sets without held-out rows that share text or group with rows that stay."""
    staying = rows["train"].take(_mask(stay))

    def without(chosen: RowSet) -> RowSet:
        mask = _mask(chosen)
        mask &= ~splits.held_out(rows[_role(tables, chosen.table)], staying)
        mask &= ~near.copies(chosen.table, mask, [(stay.table, stay.rows)])
        return RowSet(chosen.table, np.flatnonzero(mask))

    return replace(sets, golden=without(sets.golden), validation=without(sets.validation))


def _strata(rows: Rows, names: list[str]) -> dict[str, int]:
    numbers, counts = np.unique(rows.stratum, return_counts=True)
    return {names[n]: int(count) for n, count in zip(numbers, counts, strict=True)}


def _sha256(golden: RowSet) -> str:
    digest = hashlib.sha256()
    for examples in golden.table.examples(golden.rows):
        digest.update("".join(f"{example}\n" for example in examples).encode())
    return digest.hexdigest()


def _nothing_left(ctx: PhaseContext, rows: dict[str, Rows], tables: Tables) -> Refused:
    train, group_by = rows["train"], ctx.spec.data.group_by
    for role, part in rows.items():
        if role != "train" and splits.held_out(train, part).all():
            table = tables.validation if role == "validation" else tables.test
            assert table is not None
            return Refused(
                f"every one of the {len(train):,} usable training rows stands in split"
                f" {table.split} as well, or its group does: none is left to train on",
                code="too_few_rows",
                hint=f"--set data.{role}=none leaves that split out",
                field=f"data.{role}",
            )
    if group_by:
        return Refused(
            f"data.group_by {group_by!r} leaves no training rows: its groups are too large",
            code="group_by",
            hint="choose a column with many values, or leave data.group_by out",
            field="data.group_by",
        )
    return Refused(
        f"{len(train):,} usable rows are too few: none is left to train on beside golden and"
        " validation",
        code="too_few_rows",
        hint="give at least 3 rows that differ, or a test split of their own",
    )


def lengths(chosen: RowSet) -> dict[str, int]:
    """Return total, p50, p90, p99 and max of the row lengths of a set, in tokens.

    `trained` are those that the loss counts: none where rows have a label instead.
    """
    values = chosen.table.length[chosen.rows]
    shares = np.percentile(values, (50, 90, 99), method="nearest") if len(values) else [0] * 3
    figures = (values.sum(), *shares, values.max(initial=0))
    names = ("total", "p50", "p90", "p99", "max")
    found = {name: int(value) for name, value in zip(names, figures, strict=True)}
    return found | {"trained": int(chosen.table.trained[chosen.rows].sum())}
