"""What a few tokenized rows must show before a model is trained on them."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from transformers import PreTrainedTokenizerBase

from ftq_shared.errors import Refused
from ftq_worker.data import arrow
from ftq_worker.data.cleaning import RowProblem
from ftq_worker.data.examples import Example
from ftq_worker.data.records import IGNORED, Encoder


def check_ids(
    tokenizer: PreTrainedTokenizerBase, ids: npt.NDArray[np.int32], vocab_size: int
) -> None:
    """Raise Refused (`token_beyond_embedding`) for a token that the model has no weights for."""
    if (worst := int(ids.max(initial=0))) < vocab_size:
        return
    raise Refused(
        f"a row holds the token {tokenizer.convert_ids_to_tokens(worst)!r} with the number "
        f"{worst:,}, but the model's embedding has only {vocab_size:,} rows: the tokenizer has "
        "tokens that the model was never given",
        code="token_beyond_embedding",
        hint="take the tokenizer files of the original model, or enlarge the model with "
        "model.resize_token_embeddings(len(tokenizer)) and save it again",
        field="model",
    )


def check_eos(
    tokenizer: PreTrainedTokenizerBase, encoder: Encoder, sample: Sequence[Example]
) -> None:
    """Refuse (`no_eos`) when the trained part of a sample row does not end the turn.

    A model that is trained on such rows never learns to stop.
    """
    if encoder.schema is not arrow.SEQUENCES:
        return
    # Every control token may end a turn, not the eos alone.
    stops = {tokenizer.eos_token_id, *tokenizer.added_tokens_decoder}
    for record in encoder.records(sample, [-1] * len(sample)):
        if isinstance(record, RowProblem) or "labels" not in record:
            continue
        last = next(label for label in reversed(record["labels"]) if label != IGNORED)
        if last not in stops:
            raise _no_eos(encoder.format, tokenizer.decode([last]))


def _no_eos(format_: str, last: str) -> Refused:
    hints = {
        "chat": "--set data.format=plain, or give a data.chat_template whose assistant turns end"
        " with the eos token (inside {% generation %} where it has that mark)",
        "plain": "the tokenizer has no usable eos token: choose another model, or one with a"
        " chat template",
    }
    return Refused(
        f"the trained part of a row ends with {last!r}, not with an end-of-turn token:"
        " the model would never learn to stop",
        code="no_eos",
        hint=hints[format_],
        field="data.format",
    )
