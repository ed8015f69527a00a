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
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt
from tokenizers import Encoding
from transformers import PreTrainedTokenizerBase

Span = tuple[int, int]  # a range, end not included
Ids = npt.NDArray[np.int32]
Places = npt.NDArray[np.int64]

# Steps before the BPE that take no byte away and put none in.
_KEEPS_BYTES = {"ByteLevel", "Split", "Digits", "Punctuation"}


@dataclass(frozen=True)
class Tokens:
    """The tokens of several texts, behind one another, and those that lie in given ranges."""

    ids: Ids  # shape (tokens,)
    ends: Places  # shape (texts + 1,): the tokens of text i are from ends[i] to ends[i + 1]
    low: Places  # shape (ranges,): the first token of each range, among all tokens
    high: Places  # and the one behind its last

    def inside(self) -> npt.NDArray[np.bool_]:
        """Return which tokens lie in a range."""
        size = len(self.ids) + 1
        opened = np.bincount(self.low, minlength=size) - np.bincount(self.high, minlength=size)
        inside: npt.NDArray[np.bool_] = np.cumsum(opened)[:-1] > 0
        return inside

    def per_text(self, some: npt.NDArray[np.bool_]) -> Places:
        """Return how many of some tokens each text has."""
        return np.diff(np.concatenate(([0], np.cumsum(some)))[self.ends])


class SpanTokenizer:
    """Tokenizes texts without special tokens of its own.

    A token that reaches over the border of a range cannot come out at inference, where the text
    before the border is tokenized alone; it lies in no range.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._backend = tokenizer.backend_tokenizer
        self._bytes = bytes_of_tokens(self._backend)

    def __call__(self, texts: Sequence[str], spans: Sequence[Sequence[Span]]) -> Tokens:
        """Return the tokens of texts; `spans` are the ranges of characters of each."""
        # Without the wrapper of transformers, whose lists for the whole batch take as long again.
        self._backend.no_truncation()
        self._backend.no_padding()
        known = self._bytes is not None
        encode = self._backend.encode_batch_fast if known else self._backend.encode_batch
        made = encode(texts, add_special_tokens=False)
        ids = [one.ids for one in made]
        ends = np.cumsum([0, *map(len, ids)])
        flat = np.fromiter(chain.from_iterable(ids), np.int32, int(ends[-1]))
        firsts = np.cumsum([0, *map(len, spans)])
        low, high = np.zeros((2, int(firsts[-1])), dtype=np.int64)
        others = np.arange(len(texts))
        if self._bytes is not None:
            places = np.concatenate(([0], np.cumsum(self._bytes[flat])))
            low, high = _by_bytes(places, ends, texts, spans)
            others = np.flatnonzero(~_are_bytes(places[ends], texts))
        for i in others.tolist():
            one = self._backend.encode(texts[i], add_special_tokens=False) if known else made[i]
            inside = [_inside(one, span) for span in spans[i]]
            own = slice(firsts[i], firsts[i + 1])
            low[own] = [ends[i] + start for start, _ in inside]
            high[own] = [ends[i] + end for _, end in inside]
        return Tokens(flat, ends, low, high)


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


def _are_bytes(places: Places, texts: Sequence[str]) -> npt.NDArray[np.bool_]:
    """Return of which texts the tokens are the bytes; text i is from places[i] to places[i + 1]."""
    sizes = [len(text) if text.isascii() else len(text.encode()) for text in texts]
    # Letters that are composed first are other bytes than the text has.
    composed = [unicodedata.is_normalized("NFC", text) for text in texts]
    found: npt.NDArray[np.bool_] = (np.diff(places) == sizes) & np.array(composed, dtype=bool)
    return found


def _by_bytes(
    places: Places, ends: Places, texts: Sequence[str], spans: Sequence[Sequence[Span]]
) -> tuple[Places, Places]:
    """Return for each range its first token and the one behind its last.

    Token i has the bytes from places[i] to places[i + 1], counted over all texts.
    """
    borders = [
        start + (border if text.isascii() else len(text[:border].encode()))
        for start, text, ranges in zip(places[ends[:-1]].tolist(), texts, spans, strict=True)
        for span in ranges
        for border in span
    ]
    low = np.searchsorted(places, borders[::2], "left")
    high = np.searchsorted(places, borders[1::2], "right") - 1
    return low, np.maximum(low, high)


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
