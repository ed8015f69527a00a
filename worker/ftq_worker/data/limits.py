"""How long a row may be: the rule behind `train.max_length`."""

import numpy as np
from transformers import PreTrainedTokenizerBase

from ftq_shared.errors import max_length_above
from ftq_worker.data.arrow import Indices
from ftq_worker.job.auto import Resolved, auto_rule
from ftq_worker.job.reports import ModelFacts

SOFT_LIMIT = 2048  # tokens; up to here every row is kept
PERCENTILE = 99.5  # of the rows are kept, at least, where some go beyond
_UNSET = 10**6  # transformers writes an enormous number where a tokenizer has no limit


def model_limit(model: ModelFacts, tokenizer: PreTrainedTokenizerBase) -> int | None:
    """Return the longest input that the model takes, in tokens; None when nothing says so.

    A RoBERTa has more positions than it takes tokens; its tokenizer knows the right number.
    """
    known = [model.max_positions, tokenizer.model_max_length]
    return min((n for n in known if n and n < _UNSET), default=None)


@auto_rule(
    "train.max_length",
    f"the longest row; where some have more than {SOFT_LIMIT:,} tokens, the longest row below that,"
    f" or the {PERCENTILE}th percentile if more than {100 - PERCENTILE} % are longer; never above"
    " what the model takes",
)
def max_length(lengths: Indices, asked: int | None, limit: int | None) -> Resolved[int]:
    """Return the limit for rows of these lengths; `asked` is the spec's value, None for auto.

    Raises Refused (`max_length`) when the spec asks for more than the model takes.
    """
    if asked is not None:
        if limit is not None and asked > limit:
            raise max_length_above(asked, limit)
        return Resolved(asked, "as asked for")
    choice = _auto(lengths)
    if limit is not None and choice.value > limit:
        return Resolved(limit, f"the model takes at most {limit:,} tokens; {choice.reason}")
    return choice


def _auto(lengths: Indices) -> Resolved[int]:
    """Return the longest row within the soft limit, or what nearly all rows need."""
    rows, longest = len(lengths), int(lengths.max(initial=1))
    if longest <= SOFT_LIMIT:
        return Resolved(longest, f"the longest of {rows:,} rows")
    short = lengths[lengths <= SOFT_LIMIT]
    if 100 * len(short) >= PERCENTILE * rows:
        return Resolved(
            int(short.max()),
            f"the longest of the {len(short):,} rows up to {SOFT_LIMIT:,} tokens;"
            f" {rows - len(short):,} of {rows:,} are longer, up to {longest:,} tokens",
        )
    return Resolved(
        int(np.percentile(lengths, PERCENTILE, method="higher")),
        f"{PERCENTILE} % of {rows:,} rows fit; the longest has {longest:,} tokens",
    )
