"""Texts as sets of hashed shingles, and the MinHash digests of such sets.

Broder 1997, "On the resemblance and containment of documents": the resemblance of two texts is the
Jaccard similarity of their shingles, and the share of equal entries in two digests estimates it.
The digests are rensa's.
"""

import itertools
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import rensa

from ftq_worker.data.arrow import Indices

WORDS = 3  # of a shingle
PERMUTATIONS = 96  # entries of a digest
_SEED = 42
# Texts of one call. From 256 on rensa would start threads, and a process that is forked has none.
_TOGETHER = 100

# Scripts that write no blanks between words: each of their letters is a word.
_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af"
)
# Signs are words as well: 3 + 4 is not 3 - 4.
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+|[^\w\s]")
_MIX = [np.uint64(k) for k in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)]

Hashes = npt.NDArray[np.uint64]
Digests = npt.NDArray[np.uint32]  # shape (texts, PERMUTATIONS)


@dataclass(frozen=True)
class Shingles:
    """The sets of several texts behind one another, each sorted and without doubles."""

    values: Hashes  # shape (shingles,)
    ends: Indices  # where the set of each text ends, shape (texts,)

    def digests(self) -> Digests:
        """Return one digest per text; that of an empty set is like no other's by chance only."""
        ends = np.concatenate(([0], self.ends)).astype(np.uint64)
        rows: list[list[int]] = []
        for first in range(0, len(self.ends), _TOGETHER):
            part = ends[first : first + _TOGETHER + 1]
            matrix = rensa.RMinHash.digest_matrix_from_flat_token_hashes(
                self.values[part[0] : part[-1]], part - part[0], PERMUTATIONS, _SEED
            )
            rows += matrix.to_rows()
        return np.array(rows, dtype=np.uint32).reshape(len(self.ends), PERMUTATIONS)

    def without(self, common: Hashes) -> "Shingles":
        """Return the sets without the shingles in `common`, which is sorted."""
        if not len(common):
            return self
        place = np.minimum(np.searchsorted(common, self.values), len(common) - 1)
        own = common[place] != self.values
        kept = np.concatenate(([0], np.cumsum(own)))
        return Shingles(self.values[own], kept[self.ends])


def shingles(texts: Iterable[str]) -> Shingles:
    """Return the shingles of each text: hashes of every three words in a row, case set aside.

    A text of fewer words has one shingle, of all of them.
    """
    words = [_padded(_WORD.findall(unicodedata.normalize("NFKC", t).casefold())) for t in texts]
    counts = np.fromiter(map(len, words), dtype=np.int64, count=len(words))
    hashed = itertools.chain.from_iterable(rensa.RMinHash.hash_token_sets(words))
    flat = np.fromiter(hashed, dtype=np.uint64, count=int(counts.sum()))
    ends = np.cumsum(counts)
    whole = np.ones(len(flat), dtype=bool)  # a shingle that begins here stays in its text
    for back in range(1, WORDS):
        whole[ends - back] = False
    values = np.zeros(max(0, len(flat) - WORDS + 1), dtype=np.uint64)
    for place, factor in enumerate(_MIX):
        values += flat[place : place + len(values)] * factor
    values ^= values >> np.uint64(31)
    return _distinct(values[whole[: len(values)]], counts - WORDS + 1)


def _padded(words: list[str]) -> list[str]:
    return words + [""] * (WORDS - len(words))


def _distinct(values: Hashes, counts: Indices) -> Shingles:
    text = np.repeat(np.arange(len(counts)), counts)
    order = np.lexsort((values, text))
    values, text = values[order], text[order]
    first = np.ones(len(values), dtype=bool)
    first[1:] = (values[1:] != values[:-1]) | (text[1:] != text[:-1])
    return Shingles(values[first], np.cumsum(np.bincount(text[first], minlength=len(counts))))


def common_shingles(sample: Iterable[str], share: float, least: int) -> Hashes:
    """Return, sorted, the shingles that at least `least` and over `share` of the texts hold.

    An instruction that opens thousands of rows would make all of them look alike.
    """
    found = shingles(sample)
    values, counts = np.unique(found.values, return_counts=True)
    common: Hashes = values[(counts >= least) & (counts > share * len(found.ends))]
    return common
