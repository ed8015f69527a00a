"""The first rows become examples, so that what cannot be used is told before anything is queued."""

from collections.abc import Sequence

from ftq_shared.errors import Refused
from ftq_shared.spec import JobSpec
from ftq_worker.data.cleaning import RowProblem, Rule, Tally, empty_dataset
from ftq_worker.data.columns import ColumnLayout
from ftq_worker.data.examples import example_maker, make_example
from ftq_worker.data.formatted_text import MOST
from ftq_worker.data.ledger import LIMIT, MENDS, Ledger, refuse_dropped, refuse_unused, unused_words
from ftq_worker.data.rows import Row
from ftq_worker.validation.rows import Head


def look_at_examples(
    spec: JobSpec, head: Head, layout: ColumnLayout, split: str, known_rows: int | None = None
) -> tuple[Tally, str]:
    """Return what became of the first rows; `known_rows` is how many the split has, if known.

    Raises Refused: `empty_dataset` when none of them can be used, `unused_columns`, and
    `dropped_rows` where the first rows alone lose more than the split may.
    """
    tally = Tally()
    ledger = Ledger([spec.data.group_by] if spec.data.group_by else [])
    make = example_maker(layout, spec.data.row_template, head.columns, {})
    rows = head.places or [Row(split, n, None, values) for n, values in enumerate(head.values)]
    mends = dict[str, str]()  # what to do, and the first field that needs it
    for row, values in zip(rows, head.values, strict=True):
        tally.read += 1
        try:
            ledger.add(values, make_example(row, make))
        except RowProblem as problem:
            tally.add(problem.rule, row, problem.field, problem.bare)
            mends.setdefault(problem.mend, problem.field)
    if tally.read and not tally.left():
        raise _none_usable(split, tally, [f"{at}: {mend}" for mend, at in mends.items() if mend])
    if "dropped_rows" not in spec.data.allow:
        # Where the rows are not counted, they would have to be many to make up for most of these.
        known_rows = tally.read if head.whole else known_rows
        most = MOST * tally.read if known_rows is None else LIMIT * known_rows
        refuse_dropped(tally, split, at_least=most)
    unused = ledger.unused(layout.columns, layout.task)
    if "unused_columns" not in spec.data.allow and spec.data.row_template is None:
        refuse_unused(unused)
    used = "all" if tally.left() == tally.read else f"{tally.left():,}"
    message = f"{used} of {tally.read:,} rows that were looked at can be used"
    return tally, message + (f"; not used: {unused_words(unused)}" if unused else "")


def _none_usable(split: str, tally: Tally, mends: Sequence[str]) -> Refused:
    """Return the refusal, with the first row of each kind and what to do about it."""
    whole = empty_dataset(split, tally)
    found = f"none of {tally.read:,} rows of split {split} that were looked at can be used:"
    found += f" {tally.summary()}"
    if not mends:
        usual = dict.fromkeys(MENDS[rule] for rule in MENDS if tally.dropped(rule))
        return Refused(found, code=whole.code, hint="; ".join([*usual, whole.hint]))
    words = filter(None, map(tally.example_words, Rule))
    return Refused(f"{found}; {'; '.join(words)}", code=whole.code, hint="; ".join(mends[:2]))
