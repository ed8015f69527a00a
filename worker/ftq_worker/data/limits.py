"""How long a row may be: the rule behind `train.max_length`."""

from dataclasses import dataclass

import numpy as np
from transformers import PreTrainedTokenizerBase

from ftq_shared.errors import max_length_above
from ftq_worker.data.arrow import Indices
from ftq_worker.job.reports import ModelFacts

SOFT_LIMIT = 2048  # tokens; up to here every row is kept
PERCENTILE = 99.5  # of the rows are kept, at least, where some go beyond
_UNSET = 10**6  # transformers writes an enormous number where a tokenizer has no limit


@dataclass(frozen=True)
class MaxLength:
    """The limit that is used, in tokens, and why."""

    tokens: int
    reason: str


def model_limit(model: ModelFacts, tokenizer: PreTrainedTokenizerBase) -> int | None:
    """Return the longest input that the model takes, in tokens; None when nothing says so.

    A RoBERTa has more positions than it takes tokens; its tokenizer knows the right number.
    """
    known = [model.max_positions, tokenizer.model_max_length]
    return min((n for n in known if n and n < _UNSET), default=None)


def max_length(lengths: Indices, asked: int | None, limit: int | None) -> MaxLength:
    """Return the limit for rows of these lengths; `asked` is the spec's value, None for auto.

    Raises Refused (`max_length`) when the spec asks for more than the model takes.
    """
    if asked is not None:
        if limit is not None and asked > limit:
            raise max_length_above(asked, limit)
        return MaxLength(asked, "as asked for")
    choice = _auto(lengths)
    if limit is not None and choice.tokens > limit:
        return MaxLength(limit, f"the model takes at most {limit:,} tokens; {choice.reason}")
    return choice


def _auto(lengths: Indices) -> MaxLength:
    """Return the longest row within the soft limit, or what nearly all rows need."""
    rows, longest = len(lengths), int(lengths.max(initial=1))
    if longest <= SOFT_LIMIT:
        return MaxLength(longest, f"the longest of {rows:,} rows")
    short = lengths[lengths <= SOFT_LIMIT]
    if 100 * len(short) >= PERCENTILE * rows:
        return MaxLength(
            int(short.max()),
            f"the longest of the {len(short):,} rows up to {SOFT_LIMIT:,} tokens;"
            f" {rows - len(short):,} of {rows:,} are longer, up to {longest:,} tokens",
        )
    return MaxLength(
        int(np.percentile(lengths, PERCENTILE, method="higher")),
        f"{PERCENTILE} % of {rows:,} rows fit; the longest has {longest:,} tokens",
    )
