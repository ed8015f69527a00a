"""Ranges of characters become ranges of tokens, by two ways that must agree."""

import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.data_jobs import make_tokenizer
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from ftq_worker.data.token_spans import Span, SpanTokenizer, Tokens, _inside, bytes_of_tokens

# Letters of one to four bytes, one of two code points, merges over blanks, and control tokens.
_PIECES = ["a", "le", " ", "\n", "é", "e\u0301", "日本", "🙂", "12", "apples", "<|im_end|>", "</s>"]
_TEXTS = st.lists(st.sampled_from(_PIECES), max_size=12).map("".join)


def _tokenizer(normalizer: Any = None) -> PreTrainedTokenizerFast:
    tokenizer = make_tokenizer(["a  le \n\n 日本 日本 é é apples 🙂🙂 12"] * 20)
    if normalizer is not None:
        tokenizer.backend_tokenizer.normalizer = normalizer
    return tokenizer


@st.composite
def _cases(draw: st.DrawFn) -> tuple[list[str], list[list[Span]]]:
    texts = draw(st.lists(_TEXTS, min_size=1, max_size=4))
    spans = []
    for text in texts:
        borders = sorted(draw(st.lists(st.integers(0, len(text)), max_size=3).map(lambda b: b * 2)))
        spans.append(list(zip(borders[::2], borders[1::2], strict=True)))
        spans[-1].append((0, len(text)))
    return texts, spans


@pytest.mark.parametrize("normalizer", [None, normalizers.NFC()], ids=["as it is", "NFC"])
@given(case=_cases())
def test_both_ways_find_the_same_tokens(
    normalizer: Any, case: tuple[list[str], list[list[Span]]]
) -> None:
    by_bytes = SpanTokenizer(_tokenizer(normalizer))
    by_offsets = SpanTokenizer(_tokenizer(normalizer))
    assert by_bytes._bytes is not None
    by_offsets._bytes = None
    found, asked = by_bytes(*case), by_offsets(*case)
    assert found.ids.tolist() == asked.ids.tolist()
    assert found.ends.tolist() == asked.ends.tolist()
    # An empty range has a place, and no tokens.
    ours, theirs = ([range(*r) for r in zip(t.low, t.high, strict=True)] for t in (found, asked))
    assert ours == theirs


def test_a_token_is_in_a_range_when_all_its_characters_are() -> None:
    """By the list of all offsets, which is what the short way to a border must agree with."""
    pick = random.Random(4)
    backend = make_tokenizer().backend_tokenizer
    pieces = [
        "a",
        " ",
        "\n",
        "\u00e9",
        "\u4eca",
        "\U0001f600",
        "apples",
        " left",
        "<|im_end|>",
        "12",
    ]
    for _ in range(2000):
        text = "".join(pick.choices(pieces, k=pick.randrange(1, 20)))
        first, last = sorted(pick.randrange(len(text) + 1) for _ in range(2))
        made = backend.encode(text, add_special_tokens=False)
        inside = [i for i, (a, b) in enumerate(made.offsets) if first <= a < last and b <= last]
        assert list(range(*_inside(made, (first, last)))) == inside, (text, first, last)


def test_a_text_whose_tokens_are_not_its_bytes_is_asked_for() -> None:
    tokenizer = _tokenizer(normalizers.NFC())
    # Two code points of three bytes become one of two.
    texts = ["12", "e\u0301a", "12"]
    made = SpanTokenizer(tokenizer)(texts, [[(0, 2)], [(0, 2), (2, 3)], []])
    start, end = made.ends[1:3].tolist()
    assert tokenizer.convert_ids_to_tokens(int(made.ids[end - 1])) == "a"
    assert made.low.tolist() == [0, start, end - 1]
    assert made.high.tolist() == [start, end - 1, end]


def test_which_tokens_lie_in_a_range() -> None:
    ids = np.arange(5, dtype=np.int32)
    made = Tokens(ids, np.array([0, 3, 3, 5]), np.array([0, 2, 4]), np.array([1, 3, 4]))
    assert made.inside().tolist() == [True, False, True, False, False]
    assert made.per_text(made.inside()).tolist() == [2, 0, 0]


def _bytes_of(**parts: Any) -> Any:
    raw = Tokenizer(models.BPE({"a": 0, "Ġa": 1}, []))
    for name, part in parts.items():
        setattr(raw, name, part)
    return bytes_of_tokens(raw)


def test_which_tokenizers_keep_the_bytes() -> None:
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    digits = pre_tokenizers.Sequence([pre_tokenizers.Digits(), byte_level])
    removed = pre_tokenizers.Sequence([pre_tokenizers.Split(" ", "removed"), byte_level])
    assert _bytes_of(pre_tokenizer=byte_level).tolist() == [1, 2]
    assert _bytes_of(pre_tokenizer=digits) is not None
    assert _bytes_of() is None
    assert _bytes_of(pre_tokenizer=removed) is None
    assert _bytes_of(pre_tokenizer=pre_tokenizers.ByteLevel(add_prefix_space=True)) is None
    assert _bytes_of(pre_tokenizer=pre_tokenizers.Metaspace()) is None
    assert _bytes_of(pre_tokenizer=byte_level, normalizer=normalizers.Lowercase()) is None


def test_added_tokens_stand_for_their_text() -> None:
    tokenizer = _tokenizer()
    tokenizer.add_tokens([AddedToken("<ö>", normalized=False)])
    counts = bytes_of_tokens(tokenizer.backend_tokenizer)
    assert counts is not None
    assert counts[tokenizer.convert_tokens_to_ids("<ö>")] == 4
