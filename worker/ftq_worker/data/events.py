"""The events of the prepare phase."""

from collections.abc import Sequence

from ftq_shared.events import EventType
from ftq_shared.spec import Task
from ftq_worker.data.cleaning import Rule
from ftq_worker.data.examples import Example
from ftq_worker.data.formatted_text import refuse_marked
from ftq_worker.data.ledger import refuse_unused, unused_words
from ftq_worker.data.load import Tables
from ftq_worker.data.odd_texts import OddTexts
from ftq_worker.data.records import Encoder
from ftq_worker.data.secret_texts import hide
from ftq_worker.data.sets import RowSet, RowSets
from ftq_worker.job.context import PhaseContext
from ftq_worker.job.reports import Sample, Shown, Unused, Validated

SHOWN_ROWS = 3  # samples of the training set; the others show one

# Rules that can only be counted once rows are tokens.
LATE_RULES = (Rule.UNTRAINABLE, Rule.TOO_LONG, Rule.NEAR_DUPLICATE, Rule.HELD_OUT)
EARLY_RULES = tuple(rule for rule in Rule if rule not in LATE_RULES)


def emit_dataset(
    ctx: PhaseContext, validated: Validated, tables: Tables, tokens: dict[str, int] | None = None
) -> None:
    """Emit what the dataset looks like; `tokens` once they are counted."""
    labels = {"labels": len(tables.labels)} if tables.labels else {}
    sums = ("total", "trained")
    lengths = {"tokens": {k: v for k, v in tokens.items() if k not in sums}} if tokens else {}
    ctx.emit(
        EventType.DATASET,
        rows=tables.train.tally.read,
        columns=validated.dataset.columns,
        splits={table.split: table.tally.read for _, table in tables.roles()},
        shape=validated.shape,
        task=str(validated.task),
        source=validated.dataset.name,
        **labels,
        **lengths,
    )


def tell_unused(ctx: PhaseContext, unused: Sequence[Unused]) -> None:
    """Warn of what was not used; raises Refused (`unused_columns`) where it weighs too much."""
    if "unused_columns" not in ctx.spec.data.allow and ctx.spec.data.row_template is None:
        refuse_unused(unused)
    if unused:
        usable = next((one for one in unused if one["use"]), None)
        hint = f"to use {usable['name']}: {usable['use']}" if usable else ""
        ctx.warn(f"not used: {unused_words(unused)}", hint=hint)


def tell_odd_texts(ctx: PhaseContext, odd: OddTexts, task: Task, format_: str) -> None:
    """Warn of texts that are hardly what they seem.

    Raises Refused (`formatted_text`) where a chat template would write most of the rows again.
    """
    if format_ == "chat" and "formatted_text" not in ctx.spec.data.allow:
        refuse_marked(odd.marked, odd.rows, odd.mark)
    for message, hint in odd.warnings(task, format_):
        ctx.warn(message, hint=hint)


def emit_held_out_cleaning(ctx: PhaseContext, tables: Tables) -> None:
    """Emit one count for each held-out split that lost rows."""
    for role, table in tables.roles():
        if role == "train" or table.tally.left() == table.tally.read:
            continue
        ctx.emit(
            EventType.CLEANING,
            rule=f"unusable in {table.split}",
            rows_in=table.tally.read,
            rows_out=table.tally.left(),
            examples=table.tally.examples(),
            reason=f"the same rules, for the {role} split: {table.tally.summary()}",
        )


def emit_damage(ctx: PhaseContext, tables: Tables) -> None:
    """Warn of texts that were repaired: there may be more wrong with them."""
    changed = tables.train.tally.changed(Rule.CONTROL_CHARACTERS)
    if changed:
        ctx.warn(
            f"{changed:,} rows held control characters or broken code points; these were taken out",
            hint="look at how the file was made: the rest of these texts may be damaged as well",
        )


def emit_sets(ctx: PhaseContext, sets: RowSets, encoder: Encoder) -> list[Sample]:
    """Emit the golden event and the samples; returns the samples."""
    ctx.emit(
        EventType.GOLDEN,
        rows=len(sets.golden),
        source=sets.golden.table.split,
        sha256=sets.sha256,
        reason=sets.reason,
        strata=sets.strata,
        validation_rows=len(sets.validation),
        train_rows=len(sets.train),
        removed_from_train=sets.leaked,
    )
    samples = [
        sample
        for name, chosen in sets.items()
        for sample in _samples(chosen, name, SHOWN_ROWS if name == "train" else 1, encoder)
    ]
    for sample in samples:
        ctx.emit(EventType.SAMPLE, **sample)
    return samples


def _samples(chosen: RowSet, name: str, count: int, encoder: Encoder) -> list[Sample]:
    """Return rows from the beginning, the middle and the end of a set."""
    picked = dict.fromkeys(i * (len(chosen) - 1) // max(1, count - 1) for i in range(count))
    return [_sample(chosen, int(chosen.rows[i]), name, encoder) for i in picked if len(chosen)]


def _sample(chosen: RowSet, row: int, name: str, encoder: Encoder) -> Sample:
    return {
        "row": chosen.table.source_row(row).number,
        "tokens": int(chosen.table.length[row]),
        "set": name,
        **_shown(chosen.table.example(row), encoder),
    }


def _shown(example: Example, encoder: Encoder) -> Shown:
    """Return a row as the model sees it, its secrets hidden: samples stand in the card."""
    shown = encoder.show(example)
    hidden: Shown = {**shown, "text": hide(shown["text"])}
    if "trained" in shown:
        hidden["trained"] = hide(shown["trained"])
    return hidden
