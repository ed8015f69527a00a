"""The first rows become examples, so that what cannot be used is told before anything is queued."""

from ftq_shared.errors import Refused
from ftq_shared.spec import JobSpec
from ftq_worker.data.cleaning import RowProblem, Tally, empty_dataset
from ftq_worker.data.columns import ColumnLayout
from ftq_worker.data.examples import example_maker, make_example
from ftq_worker.data.ledger import Ledger, refuse_unused, unused_words
from ftq_worker.data.rows import Row
from ftq_worker.validation.rows import Head


def look_at_examples(
    spec: JobSpec, head: Head, layout: ColumnLayout, split: str
) -> tuple[Tally, str]:
    """Return what became of the first rows.

    Raises Refused: `empty_dataset` when none of them can be used, `unused_columns`.
    """
    tally = Tally()
    ledger = Ledger([spec.data.group_by] if spec.data.group_by else [])
    make = example_maker(layout, spec.data.row_template, head.columns, {})
    rows = head.places or [Row(split, n, None, values) for n, values in enumerate(head.values)]
    for row, values in zip(rows, head.values, strict=True):
        tally.read += 1
        try:
            ledger.add(values, make_example(row, make))
        except RowProblem as problem:
            tally.add(problem.rule, row, problem.field, problem.what)
    if tally.read and not tally.left():
        raise _none_usable(split, tally)
    unused = ledger.unused(layout.columns, layout.task)
    if "unused_columns" not in spec.data.allow and spec.data.row_template is None:
        refuse_unused(unused)
    used = "all" if tally.left() == tally.read else f"{tally.left():,}"
    message = f"{used} of {tally.read:,} rows that were looked at can be used"
    return tally, message + (f"; not used: {unused_words(unused)}" if unused else "")


def _none_usable(split: str, tally: Tally) -> Refused:
    whole = empty_dataset(split, tally)
    return Refused(
        f"none of {tally.read:,} rows of split {split} that were looked at can be used:"
        f" {tally.summary()}",
        code=whole.code,
        hint=whole.hint,
    )
