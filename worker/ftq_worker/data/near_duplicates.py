"""Rows that are nearly equal: found by MinHash and banding, each pair checked on its shingles.

Two rows are nearly equal when the Jaccard similarity of their shingles is `SIMILAR` or more.
Digests are cut into `BANDS` bands, and rows with an equal band are compared (Leskovec, Rajaraman,
Ullman 2020, Mining of Massive Datasets, 3rd ed., section 3.4): a pair of similarity 0.8 is missed
with probability (1 - 0.8^6)^16 = 0.8 %. Each pair is checked on the shingles themselves, so nothing
is called a copy by mistake.

What is compared lies on disk: 224 bytes a row and 8 bytes a word. In memory there are some 60 bytes
a row, of one band at a time.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ftq_worker.data.arrow import Indices
from ftq_worker.data.cleaning import Rule
from ftq_worker.data.examples import Example
from ftq_worker.data.load import Tables
from ftq_worker.data.secret_texts import SecretWatch, kinds_of
from ftq_worker.data.shingles import (
    PERMUTATIONS,
    Hashes,
    Shingles,
    common_shingles,
    shingles,
)
from ftq_worker.data.tables import Mask, SplitTable
from ftq_worker.job.context import PhaseContext
from ftq_worker.job.progress import Progress

SIMILAR = 0.8  # Jaccard similarity of near duplicates
BANDS = 16
BAND = PERMUTATIONS // BANDS  # entries of a digest in one band
# A digest's estimate is off by 0.04 (one standard deviation): below this none is worth a look.
_WORTH_A_LOOK = 0.6
_IN_A_BUCKET = 8  # held-out rows that a row is compared with per band
_BATCH_CHARACTERS = 1_000_000  # of texts that are cut into words together
_COMPARED = 20_000  # digests that are compared at once
_WRITTEN_TOGETHER = 20  # batches of rows, as each goes to many files
# What over a tenth of the rows begin with is a template, not their own text.
_SAMPLE, _COMMON_SHARE, _COMMON_LEAST = 2_000, 0.1, 20

RowPair = tuple[Indices, Indices]
# Of an entry of a digest one byte is kept: those of two rows are equal by chance once in 256 times.
Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Signed:
    """What rows that follow one another are compared by."""

    bands: Hashes  # one number per band that is equal for equal bands; shape (BANDS, rows)
    digests: Bytes  # shape (rows, PERMUTATIONS)
    sets: Shingles

    @classmethod
    def of(cls, sets: Shingles) -> "Signed":
        digests = sets.digests()
        bands = np.repeat(np.arange(BANDS, dtype=np.uint64)[:, None], len(digests), axis=1)
        for place in range(BAND):
            bands = (bands ^ digests[:, place::BAND].T) * np.uint64(0x9E3779B97F4A7C15)
            bands ^= bands >> np.uint64(29)
        return cls(bands, digests.astype(np.uint8), sets)


class Signatures:
    """What rows are compared by, in files; rows are numbered in the order of `add`."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        for path in (folder / "digests", folder / "shingles", *_band_files(folder)):
            path.write_bytes(b"")
        self._ends: list[Indices] = [np.zeros(1, dtype=np.int64)]
        self._waiting: list[Signed] = []

    def add(self, rows: Signed) -> None:
        """Append further rows."""
        self._ends.append(rows.sets.ends + self._ends[-1][-1])
        self._waiting.append(rows)
        if len(self._waiting) == _WRITTEN_TOGETHER:
            self._write()

    def _write(self) -> None:
        rows, self._waiting = self._waiting, []
        bands = enumerate(_band_files(self._folder))
        parts: list[tuple[Path, list[npt.NDArray[Any]]]] = [
            (self._folder / "digests", [one.digests for one in rows]),
            (self._folder / "shingles", [one.sets.values for one in rows]),
            *((path, [one.bands[number] for one in rows]) for number, path in bands),
        ]
        for path, values in parts:
            with path.open("ab") as file:
                file.writelines(value.tobytes() for value in values)

    def open(self) -> "SignedRows":
        """Return all rows."""
        if self._waiting:
            self._write()
        ends = np.concatenate(self._ends[:1] + [e for e in self._ends[1:] if len(e)])
        return SignedRows(self._folder, ends)


def _band_files(folder: Path) -> list[Path]:
    return [folder / f"band-{number}" for number in range(BANDS)]


@dataclass(frozen=True)
class SignedRows:
    """The signatures of rows, and the search for pairs among them."""

    folder: Path
    ends: Indices  # shape (rows + 1,): the shingles of row i are from ends[i] to ends[i + 1]

    def earlier(self, rows: Indices, progress: Progress) -> Indices:
        """Return for each row the position in `rows` of an earlier near duplicate, or -1."""
        found = np.full(len(rows), -1, dtype=np.int64)
        for band in range(BANDS):
            for later, before in _neighbours(self._band(band, rows)):
                new = found[later] < 0
                later, before = later[new], before[new]
                alike = self.similar(rows[later], rows[before])
                found[later[alike]] = before[alike]
            progress.advance()
        progress.finish()
        return found

    def copies(self, rows: Indices, held: Indices, progress: Progress) -> Mask:
        """Return which of `rows` are near duplicates of one of `held`."""
        found = np.zeros(len(rows), dtype=bool)
        for band in range(BANDS):
            keys = self._band(band, held)
            order = np.argsort(keys, kind="stable")
            wanted = self._band(band, rows)
            maybe = _likely(wanted, keys)
            maybe = maybe[~found[maybe]]
            first = np.searchsorted(keys[order], wanted[maybe], "left")
            last = np.searchsorted(keys[order], wanted[maybe], "right")
            for place in range(_IN_A_BUCKET):
                hit = np.flatnonzero((first + place < last) & ~found[maybe])
                if not len(hit):
                    break
                some = maybe[hit]
                found[some] = self.similar(rows[some], held[order[first[hit] + place]])
            progress.advance()
        progress.finish()
        return found

    def similar(self, some: Indices, others: Indices) -> Mask:
        """Return which of the pairs are near duplicates, by their shingles."""
        alike = np.zeros(len(some), dtype=bool)
        if not self.ends[-1]:
            return alike
        for start in range(0, len(some), _COMPARED):
            part = slice(start, start + _COMPARED)
            # Mapped anew each time: the pages that were looked at leave the memory.
            digests = np.memmap(self.folder / "digests", np.uint8, "r").reshape(-1, PERMUTATIONS)
            equal = (digests[some[part]] == digests[others[part]]).mean(axis=1)
            values = np.asarray(np.memmap(self.folder / "shingles", np.uint64, "r"))
            for i in np.flatnonzero(equal >= _WORTH_A_LOOK) + start:
                alike[i] = self._jaccard(values, some[i], others[i]) >= SIMILAR
        return alike

    def _band(self, band: int, rows: Indices) -> Hashes:
        """Return one number per row that is equal for equal bands; shape (rows,)."""
        keys = np.fromfile(_band_files(self.folder)[band], np.uint64)[rows]
        # Rows without shingles are like nothing.
        empty = self.ends[rows] == self.ends[rows + 1]
        keys[empty] = np.flatnonzero(empty)
        return keys

    def _jaccard(self, values: Hashes, one: int, other: int) -> float:
        # Sets of Python: numpy takes longer to begin with arrays as short as most of these.
        a, b = (set(values[self.ends[row] : self.ends[row + 1]].tolist()) for row in (one, other))
        both = len(a & b)
        return both / max(1, len(a) + len(b) - both)


def _likely(keys: Hashes, among: Hashes) -> Indices:
    """Return which keys may be one of `among`: their first bits tell most apart, unsearched."""
    begins = np.zeros(1 << 16, dtype=bool)
    begins[among >> np.uint64(48)] = True
    return np.flatnonzero(begins[keys >> np.uint64(48)])


def _neighbours(keys: Hashes) -> Iterator[RowPair]:
    """Yield pairs (later, earlier) of equal keys: with the row before, then with the first one."""
    # Only keys that come back need an order of their rows, and sorting alone is far faster.
    ascending = np.sort(keys)
    twice = np.unique(ascending[1:][ascending[1:] == ascending[:-1]])
    some = _likely(keys, twice)
    some = some[np.isin(keys[some], twice)]
    order = some[np.argsort(keys[some], kind="stable")]
    same = keys[order][1:] == keys[order][:-1]
    yield order[1:][same], order[:-1][same]
    places = np.arange(len(order))
    starts = np.concatenate(([True], ~same))[: len(order)]
    first = np.maximum.accumulate(np.where(starts, places, 0))
    far = np.flatnonzero(places - first > 1)
    yield order[far], order[first[far]]


@dataclass(frozen=True)
class NearDuplicates:
    """Knows which rows of a job's tables are nearly equal."""

    ctx: PhaseContext
    signed: SignedRows
    # By split: the number of its first row, and the positions of its rows when they were signed.
    places: dict[str, tuple[int, Indices]]

    def numbers(self, table: SplitTable, rows: Indices) -> Indices:
        """Return the numbers of usable rows among all that were signed."""
        start, alive = self.places[table.split]
        return start + np.searchsorted(alive, table.alive[rows])

    def copies(
        self, table: SplitTable, among: Mask, held: Sequence[tuple[SplitTable, Indices]]
    ) -> Mask:
        """Return which usable rows of a table, `among` some, nearly equal a row of `held`."""
        found = np.zeros(len(among), dtype=bool)
        rows = np.flatnonzero(among)
        numbers = np.concatenate([self.numbers(*part) for part in held])
        progress = _bands(self.ctx, "look for near copies of held-out rows")
        found[rows] = self.signed.copies(self.numbers(table, rows), numbers, progress)
        return found


@dataclass(frozen=True)
class LookedAt:
    """What the texts of some rows gave."""

    rows: int
    signed: list[Signed]
    secrets: dict[int, list[str]]  # kinds, by row


class RowSigner:
    """Signs the rows of all tables while they are tokenized, so that each text is read once.

    Looks for secrets in them on the way. `folder` is for files that are no longer needed after the
    sets are chosen.
    """

    def __init__(self, ctx: PhaseContext, tables: Tables, folder: Path) -> None:
        self._ctx, self._tables = ctx, tables
        self._common = common_shingles(_sample(tables.train), _COMMON_SHARE, _COMMON_LEAST)
        self._files = Signatures(folder)
        self._places: dict[str, tuple[int, Indices]] = {}
        self._rows = 0
        self._secrets = SecretWatch()

    def look(self, examples: Sequence[Example]) -> LookedAt:
        """Return what rows that follow one another are compared by; in any process."""
        texts = list(map(_text, examples))
        secrets = {i: kinds for i, text in enumerate(texts) if (kinds := kinds_of(text))}
        signed = [Signed.of(shingles(some).without(self._common)) for some in _bounded(texts)]
        return LookedAt(len(texts), signed, secrets)

    def add(self, table: SplitTable, found: LookedAt) -> None:
        """Keep what was found of the next usable rows of a table; none is dropped in between."""
        first, _ = self._places.setdefault(table.split, (self._rows, table.alive))
        for signed in found.signed:
            self._files.add(signed)
        for i, kinds in found.secrets.items():
            self._secrets.add(table, self._rows - first + i, kinds)
        self._rows += found.rows

    def near_duplicates(self) -> NearDuplicates:
        """Tell what is nearly equal in training, or drop it; warn of secrets."""
        self._secrets.warn(self._ctx)
        near = NearDuplicates(self._ctx, self._files.open(), self._places)
        if self._ctx.spec.data.dedupe != "none":
            _in_training(self._ctx, self._tables.train, near)
        return near


def _in_training(ctx: PhaseContext, train: SplitTable, near: NearDuplicates) -> None:
    """Tell of near duplicates within the training rows, or drop them where the spec says so."""
    numbers = near.numbers(train, np.arange(len(train.alive)))
    progress = _bands(ctx, "look for near duplicates in the training rows")
    earlier = near.signed.earlier(numbers, progress)
    labels = train.label
    # A text that nearly equals one of another label shows what makes the difference.
    copies = (earlier >= 0) & (labels == labels[earlier])
    if not copies.any():
        return
    rows, alive = train.rows, train.alive

    def row_number(i: int) -> int:
        return int(rows.row(int(alive[i]))["row"])

    def what(i: int) -> str:
        return f"nearly equal to row {row_number(earlier[i])}"

    if ctx.spec.data.dedupe == "near":
        train.drop_where(Rule.NEAR_DUPLICATE, copies, what)
        return
    some = np.flatnonzero(copies)[:3]
    ctx.warn(
        f"{copies.sum():,} of {len(copies):,} training rows are nearly equal to an earlier one and"
        f" are kept: {', '.join(f'row {row_number(i)} is {what(i)}' for i in some)}",
        hint="--set data.dedupe=near leaves them out",
    )


def _bands(ctx: PhaseContext, task: str) -> Progress:
    return Progress(ctx.emit, ctx.control, task, "bands", BANDS, after_s=1.0)


def _sample(table: SplitTable) -> list[str]:
    rows = np.unique(np.linspace(0, len(table.alive) - 1, _SAMPLE).astype(np.int64))
    texts = [text for part in table.examples(rows) for text in part]
    return [_text(Example.from_json(text)) for text in texts]


def _bounded(texts: Sequence[str]) -> Iterator[Sequence[str]]:
    """Yield the texts in parts of bounded size."""
    ends = np.cumsum([len(text) for text in texts]) // _BATCH_CHARACTERS
    cuts = [0, *(np.flatnonzero(np.diff(ends)) + 1).tolist(), len(texts)]
    return (texts[start:end] for start, end in pairwise(cuts))


def _text(made: Example) -> str:
    turns = [str(message.get("content") or "") for message in made.messages]
    calls = [json.dumps(m["tool_calls"], default=str) for m in made.messages if "tool_calls" in m]
    return "\n".join([*turns, *calls, made.text, made.text_pair, made.chosen, made.rejected])
