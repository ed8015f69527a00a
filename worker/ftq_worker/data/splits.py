"""Choosing the golden and the validation set: pure functions over arrays, one entry per row.

Every choice depends on the seed and the rows' texts alone, neither on the order of the rows nor on
a library's random numbers, so that a set stays what it was.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ftq_shared.errors import Refused
from ftq_worker.data.arrow import Indices
from ftq_worker.job.auto import Resolved, auto_rule

GOLDEN_FROM_TEST = 1000  # rows at most from a test split
GOLDEN_SHARE, GOLDEN_LEAST, GOLDEN_MOST, GOLDEN_CAP = 0.05, 100, 500, 0.10
VALIDATION_SHARE, VALIDATION_LEAST, VALIDATION_MOST = 0.02, 20, 2000
_BUCKETS = ("short", "medium", "long", "longest")  # quarters of the rows by length

Keys = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class Rows:
    """What the choice looks at; all arrays have one entry per row."""

    index: Indices  # row number in the Arrow file, ascending
    key: Keys  # equal for equal texts
    group: Keys  # equal for rows that stay together; the key where there are no groups
    stratum: npt.NDArray[np.int64]  # label, or length bucket

    def take(self, chosen: npt.NDArray[np.bool_]) -> "Rows":
        return Rows(self.index[chosen], self.key[chosen], self.group[chosen], self.stratum[chosen])

    def __len__(self) -> int:
        return len(self.index)


@auto_rule(
    "data.golden.size",
    f"up to {GOLDEN_FROM_TEST:,} from a test split; else {100 * GOLDEN_SHARE:.0f} % of the rows, at"
    f" least {GOLDEN_LEAST}, at most {GOLDEN_MOST}, never above {100 * GOLDEN_CAP:.0f} %",
)
def golden_size_from_test(rows: int, asked: int | None) -> Resolved[int]:
    """Return the size of a golden set that a test split of `rows` gives; raises Refused."""
    if asked is None:
        whole = rows <= GOLDEN_FROM_TEST
        return Resolved(min(rows, GOLDEN_FROM_TEST), "all of it" if whole else "the most")
    if asked > rows:
        raise _too_large(asked, f"the test split has {rows:,} usable rows", rows)
    return Resolved(asked, "as asked for")


def golden_size_from_train(rows: int, asked: int | None) -> Resolved[int]:
    """Return the size of a golden set that is taken from `rows` training rows; raises Refused."""
    if asked is None:
        return _golden_size(rows)
    if asked > rows // 2:
        raise _too_large(
            asked, f"that is more than half of the {rows:,} usable training rows", rows // 2
        )
    return Resolved(asked, "as asked for")


def _golden_size(rows: int) -> Resolved[int]:
    """Return 5 % of the rows within the bounds; in a small set the cap counts most."""
    share, cap = round(rows * GOLDEN_SHARE), max(1, int(rows * GOLDEN_CAP))
    wanted = min(max(share, GOLDEN_LEAST), GOLDEN_MOST)
    if wanted > cap:
        return Resolved(
            cap, f"at most 10 %: the set is small; 5 % would be {share:,}, too few to judge by"
        )
    if wanted == share:
        return Resolved(share, "5 %")
    bound = "least" if wanted > share else "most"
    return Resolved(wanted, f"the {bound}; 5 % would be {share:,}")


def _too_large(asked: int, why: str, most: int) -> Refused:
    return Refused(
        f"data.golden.size is {asked:,}, but {why}",
        code="golden_size",
        hint=f"--set data.golden.size={max(1, most)} or less, or auto",
        field="data.golden.size",
    )


@auto_rule(
    "data.validation",
    f"the dataset's own split, else {100 * VALIDATION_SHARE:.0f} % held out: at least"
    f" {VALIDATION_LEAST} rows, at most {VALIDATION_MOST:,}; below {10 * VALIDATION_LEAST} rows a"
    " tenth",
)
def validation_size(rows: int) -> int:
    """Return how many of `rows` training rows are held out for validation."""
    if rows < 10 * VALIDATION_LEAST:
        return max(1, rows // 10)
    return min(max(round(rows * VALIDATION_SHARE), VALIDATION_LEAST), VALIDATION_MOST)


def length_strata(lengths: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return the length bucket of every row, 0 to 3: quarters of the rows."""
    edges = np.quantile(lengths, (0.25, 0.5, 0.75)) if len(lengths) else np.zeros(3)
    buckets: npt.NDArray[np.int64] = np.searchsorted(edges, lengths)
    return buckets


def stratum_names(labels: list[str]) -> list[str]:
    """Return the names of the strata: the labels, or the length buckets where there are none."""
    return labels or list(_BUCKETS)


def choose(rows: Rows, size: int, seed: int, *, grouped: bool) -> npt.NDArray[np.bool_]:
    """Choose at most `size` rows; returns a mask over `rows`.

    The strata keep their shares, and each one gets a row where `size` allows. With `grouped`,
    whole groups are taken while they fit, and the strata are left to chance.
    """
    if grouped:
        return _choose_groups(rows, size, seed)
    return _choose_rows(_shuffle(rows.key, seed), rows.stratum, size)


def _choose_rows(rank: Keys, strata: npt.NDArray[np.int64], size: int) -> npt.NDArray[np.bool_]:
    mask = np.zeros(len(rank), dtype=bool)
    names, counts = np.unique(strata, return_counts=True)
    for name, quota in zip(names, _quotas(counts, size), strict=True):
        members = np.flatnonzero(strata == name)
        mask[members[np.argsort(rank[members], kind="stable")[:quota]]] = True
    return mask


def _quotas(counts: npt.NDArray[np.int64], size: int) -> npt.NDArray[np.int64]:
    """Share out `size` over strata of `counts` rows: in proportion, at least one where it fits."""
    size = min(size, int(counts.sum()))
    exact = counts * (size / counts.sum())
    quotas: npt.NDArray[np.int64] = np.floor(exact).astype(np.int64)
    least = 1 if size >= len(counts) else 0
    quotas = np.maximum(quotas, least)
    # The largest remainders get what is left; the largest quotas give back what is too much.
    for i in np.argsort(quotas - exact, kind="stable")[: max(0, size - int(quotas.sum()))]:
        quotas[i] += 1
    while quotas.sum() > size:
        quotas[np.argmax(np.where(quotas > least, quotas - exact, -np.inf))] -= 1
    return quotas


def _choose_groups(rows: Rows, size: int, seed: int) -> npt.NDArray[np.bool_]:
    names, members, counts = np.unique(rows.group, return_inverse=True, return_counts=True)
    taken = np.zeros(len(names), dtype=bool)
    left = size
    for i in np.argsort(_shuffle(names, seed), kind="stable"):
        if counts[i] <= left:
            taken[i] = True
            left -= int(counts[i])
    if not taken.any():  # every group is larger than the set: the smallest comes nearest
        taken[np.argmin(counts)] = True
    return taken[members]


def held_out(train: Rows, *sets: Rows) -> npt.NDArray[np.bool_]:
    """Return which training rows share a text or a group with one of the sets."""
    leaks = np.zeros(len(train), dtype=bool)
    for other in sets:
        leaks |= np.isin(train.key, other.key) | np.isin(train.group, other.group)
    return leaks


def _shuffle(keys: Keys, seed: int) -> Keys:
    """Return a pseudo-random rank for each key: the finalizer of splitmix64 over key and seed.

    Steele, Lea, Flood 2014, https://doi.org/10.1145/2714064.2660195
    """
    mixed = keys + np.uint64((seed + 1) * 0x9E3779B97F4A7C15 % 2**64)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))
