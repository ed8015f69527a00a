"""What the chosen sets can judge, told before anything is trained."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from ftq_shared.errors import Refused
from ftq_shared.judging import FEWEST_TO_JUDGE, TOO_FEW_TO_JUDGE, rows_in_words
from ftq_worker.data.load import Tables
from ftq_worker.data.sets import RowSets
from ftq_worker.data.tables import Mask
from ftq_worker.job.context import PhaseContext

SHOWN_LABELS = 10  # names in one warning
_NO_LABELS = ("-1", "-", "nan", "none", "null", "n/a")


def tell_judges(ctx: PhaseContext, tables: Tables, sets: RowSets) -> None:
    """Warn of what the sets cannot judge: labels without a golden row, and too small a set.

    Raises Refused (`one_label`) where fewer than two labels are left to train on.
    """
    if tables.labels:
        _check_labels(ctx, tables, sets)
        _warn_of_odd_labels(ctx, tables.labels)
    count = len(sets.golden)
    if 0 < count < FEWEST_TO_JUDGE:
        rows = count + len(sets.validation) + len(sets.train)
        from_train = sets.golden.table is tables.train
        enough = from_train and rows >= 2 * FEWEST_TO_JUDGE
        ctx.warn(
            f"the golden set has {rows_in_words(count)}: {TOO_FEW_TO_JUDGE}; the figures before"
            " and after are told, and no verdict",
            hint=f"--set data.golden.size={FEWEST_TO_JUDGE} holds out as many as a verdict needs"
            if enough
            else f"a verdict needs {FEWEST_TO_JUDGE} golden rows: give at least"
            f" {2 * FEWEST_TO_JUDGE} rows, or a test split of {FEWEST_TO_JUDGE}",
        )


def _check_labels(ctx: PhaseContext, tables: Tables, sets: RowSets) -> None:
    count = len(tables.labels)
    ids = tables.ids[tables.train.label][sets.train.rows]
    trained = np.bincount(ids, minlength=count)
    if (trained > 0).sum() < 2:
        raise Refused(
            f"all {len(sets.train):,} rows that are left to train on have the same label; there is"
            " nothing to learn",
            code="one_label",
            hint="look at the cleaning counts: other labels lost their rows there",
            field="data.columns.label",
        )
    _warn_of_labels(ctx, tables, trained == 0, "have no row to train on: the model will not know")
    unjudged = (trained > 0) & np.array([name not in sets.strata for name in tables.labels])
    if len(sets.golden):
        _warn_of_labels(
            ctx, tables, unjudged, "have no golden row, so nothing judges what is learned of"
        )
    else:
        ctx.warn(
            f"there is no golden set, so nothing judges the model: each of the {len(sets.train):,}"
            f" rows is the last of one of {count:,} labels, or its group is too large",
            hint="a label needs two rows at least, better ten: merge rare labels, or add rows",
        )


def _warn_of_odd_labels(ctx: PhaseContext, labels: Sequence[str]) -> None:
    """Warn of labels that are hardly meant as labels of their own."""
    none = [name for name in labels if name.strip().lower() in _NO_LABELS]
    others = [name for name in labels if name not in none]
    if none and (none != ["-1"] or all(name.isdecimal() for name in others)):
        ctx.warn(
            f"{', '.join(map(repr, none))} is trained as a label of its own; many datasets write"
            " it where there is none",
            hint="drop these rows, or make the value empty, if it means none",
        )
    folded = Counter(name.casefold() for name in labels)
    alike = [name for name in labels if folded[name.casefold()] > 1]
    if alike:
        ctx.warn(
            f"{len(alike):,} labels differ in upper and lower case alone:"
            f" {', '.join(map(repr, alike[:SHOWN_LABELS]))}",
            hint="write them alike if they mean the same",
        )


def _warn_of_labels(ctx: PhaseContext, tables: Tables, which: Mask, what: str) -> None:
    names = [repr(tables.labels[i]) for i in np.flatnonzero(which)]
    if not names:
        return
    more = f" and {len(names) - SHOWN_LABELS:,} more" if len(names) > SHOWN_LABELS else ""
    ctx.warn(
        f"{len(names):,} of {len(tables.labels):,} labels {what}"
        f" {', '.join(names[:SHOWN_LABELS])}{more}",
        hint="a label needs several rows to be learned and judged; merge or drop the rare ones",
    )
