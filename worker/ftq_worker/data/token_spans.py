"""Texts become tokens, and ranges of their characters ranges of their tokens.

Of a byte-level BPE (Radford et al. 2019, "Language models are unsupervised multitask learners",
section 2.2) the tokens of a text, one after another, are its bytes: where a token stands follows
from how many bytes those before it have. Asking the tokenizer for it takes half as long again as
all its other work, and is left to the texts of other tokenizers.
"""

import json
import unicodedata
from bisect import bisect_left
from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt
from tokenizers import Encoding
from transformers import PreTrainedTokenizerBase

Span = tuple[int, int]  # a range, end not included
Tokens = tuple[list[int], list[Span]]  # ids, and for each range of characters its range of tokens

# Steps before the BPE that take no byte away and put none in.
_KEEPS_BYTES = {"ByteLevel", "Split", "Digits", "Punctuation"}


class SpanTokenizer:
    """Tokenizes texts without special tokens of its own.

    A token that reaches over the border of a range cannot come out at inference, where the text
    before the border is tokenized alone; it lies in no range.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._backend = tokenizer.backend_tokenizer
        self._bytes = bytes_of_tokens(self._backend)

    def __call__(self, texts: Sequence[str], spans: Sequence[Sequence[Span]]) -> list[Tokens]:
        """Return the tokens of each text; `spans` are its ranges of characters."""
        if not texts:
            return []
        # Without the wrapper of transformers, whose lists for the whole batch take as long again.
        self._backend.no_truncation()
        self._backend.no_padding()
        found: list[Tokens | None] = [None] * len(texts)
        if self._bytes is not None:
            found = _by_bytes(self._backend, self._bytes, texts, spans)
        others = [i for i, one in enumerate(found) if one is None]
        asked = self._backend.encode_batch([texts[i] for i in others], add_special_tokens=False)
        for i, made in zip(others, asked, strict=True):
            found[i] = made.ids, [_inside(made, span) for span in spans[i]]
        return [one for one in found if one is not None]


def bytes_of_tokens(backend: Any) -> npt.NDArray[np.int64] | None:
    """Return how many bytes of a text each token stands for, by id.

    None where the tokens of a text need not be its bytes.
    """
    if backend.normalizer is not None and _steps(backend.normalizer) != [{"type": "NFC"}]:
        return None
    steps = _steps(backend.pre_tokenizer) if backend.pre_tokenizer is not None else []
    kinds = {step["type"] for step in steps}
    changed = any(
        step.get("add_prefix_space") or step.get("behavior") == "Removed" for step in steps
    )
    if changed or "ByteLevel" not in kinds or not kinds <= _KEEPS_BYTES:
        return None
    lengths = {i: len(token) for token, i in backend.get_vocab(with_added_tokens=False).items()}
    for i, token in backend.get_added_tokens_decoder().items():
        lengths[i] = len(token.content.encode())
    counts = np.zeros(max(lengths, default=-1) + 1, dtype=np.int64)
    counts[list(lengths)] = list(lengths.values())
    return counts


def _steps(component: Any) -> list[dict[str, Any]]:
    """Return the parts of a normalizer or pre-tokenizer, as tokenizer.json has them."""
    state = json.loads(component.__getstate__())
    return list(state.get("pretokenizers") or state.get("normalizers") or [state])


def _by_bytes(
    backend: Any,
    counts: npt.NDArray[np.int64],
    texts: Sequence[str],
    spans: Sequence[Sequence[Span]],
) -> list[Tokens | None]:
    """Return the tokens of each text; None where they are not its bytes, one after another."""
    ids = [made.ids for made in backend.encode_batch_fast(texts, add_special_tokens=False)]
    flat = np.fromiter(chain.from_iterable(ids), np.int64, sum(map(len, ids)))
    places = np.concatenate(([0], np.cumsum(counts[flat])))  # in the bytes of all texts
    ends = np.cumsum([len(each) for each in ids])
    starts = np.concatenate(([0], ends))[:-1]
    at = places[starts].tolist()
    sizes = [len(text) if text.isascii() else len(text.encode()) for text in texts]
    whole = (places[ends] - places[starts] == sizes).tolist()
    borders = [
        start + (border if size == len(text) else len(text[:border].encode()))
        for start, size, text, ranges in zip(at, sizes, texts, spans, strict=True)
        for span in ranges
        for border in span
    ]
    # Token i is from places[i] to places[i + 1].
    low = iter(np.searchsorted(places, borders[::2], "left").tolist())
    high = iter((np.searchsorted(places, borders[1::2], "right") - 1).tolist())
    found: list[Tokens | None] = []
    for text, each, ranges, first, is_whole in zip(
        texts, ids, spans, starts.tolist(), whole, strict=True
    ):
        inside = [(next(low) - first, next(high) - first) for _ in ranges]
        # Letters that are composed first are other bytes than the text has.
        usable = is_whole and unicodedata.is_normalized("NFC", text)
        found.append((each, [(a, max(a, b)) for a, b in inside]) if usable else None)
    return found


def _inside(made: Encoding, span: Span) -> Span:
    """Return the range of tokens whose characters all lie in a span."""
    first, last = span
    low, high = (_tokens_before(made, place) for place in span)
    if low is not None and high is not None:
        return low, high
    # Offsets ascend, so a range of characters is a range of tokens. All of them together are a long
    # list, which is why they are asked for only where a border is within a token or in a gap.
    offsets = made.offsets
    low = bisect_left(offsets, (first,))
    high = bisect_left(offsets, (last,))
    while high > low and offsets[high - 1][1] > last:
        high -= 1
    return low, high


def _tokens_before(made: Encoding, place: int) -> int | None:
    """Return how many tokens stand before a character; None where one reaches over it, or nearly.

    That is: where no token begins exactly there, unless it is the end of the text.
    """
    if place == 0:
        return 0
    token = made.char_to_token(place)
    if token is None:
        token = len(made)
    elif (made.token_to_chars(token) or (-1,))[0] != place:
        return None
    if token == 0:
        return 0
    start, end = made.token_to_chars(token - 1) or (place, place)
    return token if start < place and end <= place else None
