"""Choosing the golden and the validation set: pure functions over arrays, one entry per row.

Every choice depends on the seed and the rows' texts alone, neither on the order of the rows nor on
a library's random numbers, so that a set stays what it was.
"""

from dataclasses import dataclass, replace

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
    group: Keys  # equal for rows that stay together: of one prompt, or of one value of a column
    stratum: npt.NDArray[np.int64]  # label, or length bucket

    def take(self, chosen: npt.NDArray[np.bool_]) -> "Rows":
        return Rows(self.index[chosen], self.key[chosen], self.group[chosen], self.stratum[chosen])

    def alone(self) -> "Rows":
        """Return the same rows, grouped by nothing but their whole text."""
        return replace(self, group=self.key)

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


def choose(rows: Rows, size: int, seed: int, spare: Indices | None = None) -> npt.NDArray[np.bool_]:
    """Choose about `size` rows in whole groups; returns a mask over `rows`.

    The strata keep their shares, and each one gets a row where `size` allows. `spare`, of shape
    (strata,), holds how many rows of each stratum may be taken at most; None: all of them. Where
    every group is larger than `size`, the smallest one is taken if it has at most half of the
    rows; the mask is empty where nothing may be taken.
    """
    if not len(rows):
        return np.zeros(0, dtype=bool)
    counts = np.bincount(rows.stratum)
    room = counts if spare is None else np.clip(spare[: len(counts)], 0, counts)
    groups = _Groups.of(rows, seed)
    taken = _Taken(rows, groups, size, room)
    quotas = _quotas(counts, room, size)
    at_home = groups.by_home(len(quotas))
    for stratum in np.argsort(quotas, kind="stable"):
        taken.fill(at_home[stratum], int(quotas[stratum]))
    if taken.left:  # groups were too large for the quotas
        taken.fill(groups.order, size)
    if not taken.chosen.any():
        taken.fill_with_one(len(rows) // 2)
    return taken.chosen[groups.member]


def _quotas(counts: Indices, room: Indices, size: int) -> Indices:
    """Share out `size` over strata: in proportion to `counts`, at least one, at most `room`."""
    size = min(size, int(room.sum()))
    exact = counts * (size / counts.sum())
    least = np.minimum(room, 1) if size >= (room > 0).sum() else np.zeros_like(room)
    quotas: Indices = np.clip(np.floor(exact).astype(np.int64), least, room)
    # The largest remainders get what is left; the largest quotas give back what is too much.
    while quotas.sum() < size:
        quotas[np.argmax(np.where(quotas < room, exact - quotas, -np.inf))] += 1
    while quotas.sum() > size:
        quotas[np.argmax(np.where(quotas > least, quotas - exact, -np.inf))] -= 1
    return quotas


@dataclass(frozen=True)
class _Groups:
    """The groups of some rows; the arrays have one entry per group, `member` one per row."""

    member: Indices  # the group of each row
    counts: Indices  # rows of each group
    home: Indices  # the rarest stratum of its rows
    order: Indices  # the groups, shuffled

    def by_home(self, strata: int) -> list[Indices]:
        """Return for each stratum its groups, shuffled."""
        homes = self.home[self.order]
        ends = np.cumsum(np.bincount(homes, minlength=strata))
        return np.split(self.order[np.argsort(homes, kind="stable")], ends[:-1])

    @classmethod
    def of(cls, rows: Rows, seed: int) -> "_Groups":
        names, first, member, counts = np.unique(
            rows.group, return_index=True, return_inverse=True, return_counts=True
        )
        # A row that is alone is ranked by its own text: how others are grouped changes nothing.
        rank = _shuffle(np.where(counts == 1, rows.key[first], names), seed)
        by_rarity = np.argsort(np.bincount(rows.stratum), kind="stable")
        rarity = np.argsort(by_rarity)
        rarest = np.full(len(names), len(rarity))
        np.minimum.at(rarest, member, rarity[rows.stratum])
        return cls(member, counts, by_rarity[rarest], np.argsort(rank, kind="stable"))


class _Taken:
    """What was chosen so far, and the room that is left."""

    def __init__(self, rows: Rows, groups: _Groups, size: int, room: Indices) -> None:
        self.left = size
        self.chosen = np.zeros(len(groups.counts), dtype=bool)
        self._room = room.copy()
        self._groups = groups
        self._stratum = rows.stratum[np.argsort(groups.member, kind="stable")]  # group by group
        self._ends = np.cumsum(groups.counts)

    def fill(self, candidates: Indices, size: int) -> None:
        """Take up to `size` rows: each candidate, in order, that fits."""
        left = min(size, self.left)
        for group in candidates:
            if left <= 0:
                return
            count = int(self._groups.counts[group])
            if count <= left and not self.chosen[group] and self._has_room(group):
                self._take(group)
                left -= count

    def fill_with_one(self, most: int) -> None:
        """Take the smallest group for which there is room, of at most `most` rows."""
        for group in np.argsort(self._groups.counts, kind="stable"):
            if self._groups.counts[group] > most:
                return
            if self._has_room(group):
                self._take(group)
                return

    def _strata(self, group: int) -> Indices:
        end = self._ends[group]
        return self._stratum[end - self._groups.counts[group] : end]

    def _has_room(self, group: int) -> bool:
        names, counts = np.unique(self._strata(group), return_counts=True)
        return bool((counts <= self._room[names]).all())

    def _take(self, group: int) -> None:
        self.chosen[group] = True
        self.left -= int(self._groups.counts[group])
        np.subtract.at(self._room, self._strata(group), 1)


def held_out(train: Rows, *sets: Rows) -> npt.NDArray[np.bool_]:
    """Return which training rows share a text or a group with one of the sets."""
    leaks = np.zeros(len(train), dtype=bool)
    for other in sets:
        leaks |= np.isin(train.key, other.key) | np.isin(train.group, other.group)
    return leaks


def last_of_their_label(
    train: Rows, away: npt.NDArray[np.bool_], chosen: npt.NDArray[np.bool_]
) -> npt.NDArray[np.bool_]:
    """Return which rows must stay although `away`: their label would lose all its rows.

    Rows that were `chosen` into a set do not stay. The strata of `train` are labels.
    """
    lost = np.setdiff1d(train.stratum, train.stratum[~away])
    return np.isin(train.stratum, lost) & ~chosen


def _shuffle(keys: Keys, seed: int) -> Keys:
    """Return a pseudo-random rank for each key: the finalizer of splitmix64 over key and seed.

    Steele, Lea, Flood 2014, https://doi.org/10.1145/2714064.2660195
    """
    mixed = keys + np.uint64((seed + 1) * 0x9E3779B97F4A7C15 % 2**64)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))
