"""What the prepare phase tells its watchers about the data."""

from typing import Any

from ftq_shared.events import EventType
from ftq_worker.data.cleaning import Rule
from ftq_worker.data.load import Pools
from ftq_worker.data.sets import RowSet, RowSets
from ftq_worker.data.tokenizing import Encoder
from ftq_worker.job.context import PhaseContext
from ftq_worker.job.reports import Validated

SHOWN_ROWS = 3  # samples of the training set, and of the validation set one less
_CUT = 2000  # characters of a sample

# Rules that can only be counted once rows are tokens.
LATE_RULES = (Rule.UNTRAINABLE, Rule.TOO_LONG, Rule.HELD_OUT)
EARLY_RULES = tuple(rule for rule in Rule if rule not in LATE_RULES)


def emit_dataset(
    ctx: PhaseContext, validated: Validated, pools: Pools, tokens: dict[str, int] | None = None
) -> None:
    """Send what the dataset looks like; `tokens` once they are counted."""
    facts: dict[str, Any] = {
        "rows": pools.train.tally.read,
        "columns": validated.dataset.columns,
        "splits": {pool.split: pool.tally.read for _, pool in pools.roles()},
        "shape": validated.shape,
        "task": str(validated.task),
        "source": validated.dataset.name,
    }
    if pools.labels:
        facts["labels"] = len(pools.labels)
    if tokens:
        facts["tokens"] = {k: v for k, v in tokens.items() if k != "total"}
    ctx.emit(EventType.DATASET, **facts)


def emit_cleaning(ctx: PhaseContext, pools: Pools, rules: tuple[Rule, ...]) -> None:
    """Send the counts of some rules for the training rows."""
    pools.train.tally.emit(ctx.emit, rules)


def emit_held_out_cleaning(ctx: PhaseContext, pools: Pools) -> None:
    """Send one count for each held-out split that lost rows."""
    for role, pool in pools.roles():
        if role == "train" or pool.tally.left() == pool.tally.read:
            continue
        ctx.emit(
            EventType.CLEANING,
            rule=f"unusable in {pool.split}",
            rows_in=pool.tally.read,
            rows_out=pool.tally.left(),
            examples=pool.tally.examples(),
            reason=f"the same rules, for the {role} split: {pool.tally.summary()}",
        )


def emit_damage(ctx: PhaseContext, pools: Pools) -> None:
    """Warn of texts that were repaired: there may be more wrong with them."""
    changed = pools.train.tally.changed(Rule.CONTROL_CHARACTERS)
    if changed:
        ctx.warn(
            f"{changed:,} rows held control characters or broken code points; these were taken out",
            hint="look at how the file was made: the rest of these texts may be damaged as well",
        )


def emit_sets(ctx: PhaseContext, sets: RowSets, encoder: Encoder) -> list[dict[str, Any]]:
    """Send the golden event and the samples; returns the samples."""
    ctx.emit(
        EventType.GOLDEN,
        rows=len(sets.golden),
        source=sets.golden.pool.split,
        sha256=sets.sha256,
        reason=sets.reason,
        strata=sets.strata,
        validation_rows=len(sets.validation),
        removed_from_train=sets.leaked,
    )
    samples = [
        *_samples(sets.train, "train", SHOWN_ROWS, encoder),
        *_samples(sets.validation, "validation", 1, encoder),
        *_samples(sets.golden, "golden", 1, encoder),
    ]
    for sample in samples:
        ctx.emit(EventType.SAMPLE, **sample)
    return samples


def _samples(chosen: RowSet, name: str, count: int, encoder: Encoder) -> list[dict[str, Any]]:
    """Return rows from the beginning, the middle and the end of a set."""
    picked = dict.fromkeys(i * (len(chosen) - 1) // max(1, count - 1) for i in range(count))
    return [_sample(chosen, int(chosen.rows[i]), name, encoder) for i in picked if len(chosen)]


def _sample(chosen: RowSet, row: int, name: str, encoder: Encoder) -> dict[str, Any]:
    shown = encoder.show(chosen.pool.example(row))
    return {
        "row": chosen.pool.source_row(row).number,
        "tokens": int(chosen.pool.length[row]),
        "set": name,
        **{key: value[:_CUT] for key, value in shown.items()},
    }
