"""The rows of a job as the choice of sets sees them, and which of them stay on one side."""

import numpy as np

from ftq_worker.data import splits
from ftq_worker.data.load import Tables
from ftq_worker.data.splits import Rows
from ftq_worker.data.tables import SplitTable
from ftq_worker.job.context import PhaseContext


def rows_together(ctx: PhaseContext, tables: Tables) -> dict[str, Rows]:
    """Return the rows of all tables, by role, with the groups that can be kept together.

    Where a few prompts are most of the rows (`Write a joke.`), keeping each on one side would
    leave nothing to train on or to judge with: such rows are told apart by their whole text.
    """
    rows = {role: rows_of(tables, table) for role, table in tables.roles()}
    if ctx.spec.data.group_by:
        return rows
    train, others = rows["train"], [r for role, r in rows.items() if role != "train"]
    alone = {role: part.alone() for role, part in rows.items()}
    prompts, counts = np.unique(train.group, return_counts=True)
    size = splits.golden_size_from_train(len(train), None).value
    too_large = "test" not in rows and counts.min() > max(size, len(train) // 4)
    by_prompt = splits.held_out(train, *others).sum()
    by_text = splits.held_out(alone["train"], *(part.alone() for part in others)).sum()
    if not too_large and (by_prompt <= len(train) // 2 or by_text > len(train) // 2):
        return rows
    ctx.warn(
        f"the {len(train):,} training rows have {len(prompts):,} prompts only, so the same prompt"
        " stands in training and in the golden set, with other answers: the golden figures tell"
        " nothing about prompts that are new",
        hint="--set data.test=SPLIT names a split with prompts of its own",
    )
    return alone


def rows_of(tables: Tables, table: SplitTable) -> Rows:
    """Return the usable rows of one table; their strata are labels, or length buckets."""
    by_label = bool(tables.labels)
    strata = tables.ids[table.label] if by_label else splits.length_strata(table.length)
    index = np.arange(len(table.alive), dtype=np.int64)
    return Rows(index, table.key, table.group, strata)
