"""Where the trained model stops: what its rows end with becomes what generation ends with.

A base model's eos is often not the token that ends a turn of its chat template (Qwen's base models
have `<|endoftext|>` and ChatML's `<|im_end|>`). Training teaches the template's token; without its
id in the configurations, generation runs on to its limit.
"""

from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa
from datasets import Dataset
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

IGNORED = -100  # the label of a token that the loss does not count


def trained_ends(rows: Dataset) -> list[int]:
    """Return the tokens that the trained parts of `rows` end with, the most frequent first.

    `rows` has `labels`. Empty for rows without labels, such as those of a classification.
    """
    if "labels" not in rows.column_names:
        return []
    counts: Counter[int] = Counter()
    for batch in rows.with_format("arrow").iter(batch_size=1_000):
        counts.update(_last_labels(batch["labels"].combine_chunks()))
    return [token for token, _ in counts.most_common()]


def _last_labels(labels: pa.ListArray) -> list[int]:
    """Return the last label of every row that is not IGNORED; rows without one are left out."""
    flat = labels.values.to_numpy()
    bounds = labels.offsets.to_numpy()
    trained = np.flatnonzero(flat != IGNORED)
    last = np.searchsorted(trained, bounds[1:]) - 1  # [rows], into `trained`
    found = trained[last[last >= 0]]
    return [int(token) for token in flat[found[found >= bounds[:-1][last >= 0]]]]


def stop_at(
    ends: list[int],
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    """Make generation end at any of `ends`; the base's own stops are kept.

    The most frequent becomes the tokenizer's eos, unless the chat template writes the eos itself
    as something else: its text would change.
    """
    if not ends:
        return
    config: GenerationConfig = model.generation_config
    config.eos_token_id = _one_or_list([*ends, *eos_ids(config)])
    _keep_savable(config)
    first = tokenizer.convert_ids_to_tokens(ends[0])
    if first != tokenizer.eos_token and "eos_token" not in _templates(tokenizer):
        tokenizer.eos_token = first
    if tokenizer.eos_token_id is not None:
        model.config.get_text_config().eos_token_id = tokenizer.eos_token_id


def _keep_savable(config: GenerationConfig) -> None:
    """Let a changed configuration be saved that its author has left at odds with itself.

    transformers refuses `temperature` without `do_sample` there, and only warns of it in a
    configuration that nobody changed (Llama 2 has one). Its other settings are not ours to mend.
    """
    try:
        config.validate(strict=True)
    except ValueError:
        config._original_object_hash = hash(config)


def eos_ids(config: GenerationConfig) -> list[int]:
    """Return the tokens at which generation ends."""
    known: Any = config.eos_token_id
    if known is None:
        return []
    tokens = [known] if isinstance(known, int) else known
    return [token for token in tokens if isinstance(token, int)]  # some files hold its text


def _one_or_list(tokens: Iterable[int]) -> int | list[int]:
    """Return the tokens without doubles; a single one as a number, as most models write it."""
    distinct = list(dict.fromkeys(tokens))
    return distinct[0] if len(distinct) == 1 else distinct


def _templates(tokenizer: PreTrainedTokenizerBase) -> str:
    template: Any = tokenizer.chat_template or ""
    return "\n".join(template.values()) if isinstance(template, dict) else template
