"""The rows of one split on their way from the source to tokens, on disk the whole time.

What is held in memory per row are a few numbers (position, key, length): about 60 bytes.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ftq_worker.data import arrow
from ftq_worker.data.arrow import ArrowRows, ArrowWriter, Indices
from ftq_worker.data.cleaning import (
    BAD_ROW,
    EXAMPLES,
    RowProblem,
    Rule,
    Tally,
    bad_row,
    key_of,
    normal,
    row_example,
)
from ftq_worker.data.examples import Example, Made, make_example
from ftq_worker.data.json_rows import read_row
from ftq_worker.data.ledger import LOOKED_AT, Ledger
from ftq_worker.data.processes import spread
from ftq_worker.data.records import IGNORED, Encoder
from ftq_worker.data.rows import Row, SplitSource, UnreadRow, size_of
from ftq_worker.job.context import PhaseContext
from ftq_worker.job.progress import Progress

Mask = npt.NDArray[np.bool_]
Keys = npt.NDArray[np.uint64]
# The fields of a row: as a tuple it goes to another process five times as fast.
_RowFields = tuple[str, int, int | None, Mapping[str, Any], str] | tuple[str, int, int, bytes]


class LabelBook:
    """Numbers labels in the order of their first use, and gives them their ids at the end."""

    def __init__(self, names: list[str] | None = None) -> None:
        self._fixed = names is not None  # the dataset itself lists its labels
        self._numbers = {name: i for i, name in enumerate(names or [])}

    def number(self, label: str) -> int:
        """Return the label's number, a new one where it has none; -1 for "no label"."""
        return self._numbers.setdefault(label, len(self._numbers)) if label else -1

    def known(self) -> list[str]:
        """Return the labels in the order of their numbers."""
        return list(self._numbers)

    def names(self, used: Indices) -> list[str]:
        """Return the labels in id order: the dataset's own, else those in `used`, sorted.

        Labels that are whole numbers are sorted as numbers.
        """
        names = list(self._numbers)
        if self._fixed:
            return names
        chosen = [names[number] for number in used if number >= 0]
        whole = all(name.removeprefix("-").isdecimal() for name in chosen)
        return sorted(chosen, key=int) if whole else sorted(chosen)

    def ids(self, names: list[str]) -> Indices:
        """Return the id of every number, -1 where the label is not in `names`."""
        place = {name: i for i, name in enumerate(names)}
        return arrow.as_indices([place.get(name, -1) for name in self._numbers])


@dataclass(frozen=True)
class RowNumbers:
    """What the choice of rows looks at; one entry per row."""

    label: Indices
    key: Keys
    group: Keys

    @classmethod
    def of(cls, parts: Sequence["RowNumbers"]) -> "RowNumbers":
        """Return the numbers of several parts, one after another."""
        none = np.zeros(0, dtype=np.uint64)
        return cls(
            np.concatenate([arrow.as_indices([]), *(part.label for part in parts)]),
            np.concatenate([none, *(part.key for part in parts)]),
            np.concatenate([none, *(part.group for part in parts)]),
        )


@dataclass
class SplitTable:
    """The usable rows of one split. The arrays have one entry per usable row."""

    split: str
    rows: ArrowRows  # all rows that could be read, as arrow.EXAMPLES
    numbers: RowNumbers  # of these rows
    tally: Tally
    alive: Indices  # positions in `rows`, ascending
    ledger: Ledger = field(default_factory=Ledger)  # what of its rows was not used
    tokens: ArrowRows | None = None  # one record per row that was usable when it was made
    position: Indices = field(default_factory=lambda: arrow.as_indices([]))  # in `tokens`
    length: Indices = field(default_factory=lambda: arrow.as_indices([]))  # in tokens
    trained: Indices = field(default_factory=lambda: arrow.as_indices([]))  # tokens of `length`

    @property
    def label(self) -> Indices:
        """Numbers of the label book, -1 without a label."""
        return self.numbers.label[self.alive]

    @property
    def key(self) -> Keys:
        """Equal for equal texts."""
        return self.numbers.key[self.alive]

    @property
    def group(self) -> Keys:
        """Equal for rows that stay on one side of a split."""
        return self.numbers.group[self.alive]

    def example(self, i: int) -> Example:
        return Example.from_json(self.rows.row(int(self.alive[i]))["example"])

    def examples(self, rows: Indices) -> Iterator[list[str]]:
        """Yield the examples of usable rows, which ascend, as JSON, some at a time."""
        alive = self.alive[rows]
        for number, place in self.rows.parts(alive):
            yield self.rows.take(number, alive[place])["example"].to_pylist()

    def source_row(self, i: int) -> Row:
        """Return where the i-th usable row came from."""
        record = self.rows.row(int(self.alive[i]))
        return Row(record["file"], record["row"], record["line"])

    def keep(self, mask: Mask) -> None:
        """Drop the usable rows where `mask` is false."""
        self.alive = self.alive[mask]
        if self.tokens is not None:
            self.position, self.length = self.position[mask], self.length[mask]
            self.trained = self.trained[mask]

    def drop_where(self, rule: Rule, mask: Mask, what: Callable[[int], str]) -> None:
        """Drop and count the usable rows where `mask` is true; `what` describes the i-th."""
        found = np.flatnonzero(mask)
        examples = [row_example(self.source_row(i), "", what(i)) for i in found[:EXAMPLES]]
        self.tally.count(rule, len(found), examples)
        self.keep(~mask)


def collect(
    ctx: PhaseContext,
    source: SplitSource,
    make: Callable[[Mapping[str, Any]], Made],
    book: LabelBook,
    path: Path,
    limit: int | None,
) -> SplitTable:
    """Read a split into an Arrow file, leaving out rows that cannot be used.

    Raises Refused (`bad_row`) at the first such row under `data.on_bad_row: fail`.
    """
    group_by = ctx.spec.data.group_by
    fail = ctx.spec.data.on_bad_row == "fail"
    tally, ledger = Tally(), Ledger()
    found: list[RowNumbers] = []

    def read(rows: list[_RowFields]) -> _Batch:
        return _read(rows, make, group_by, fail, ledger.rows)

    def take_in(part: _Batch) -> None:
        tally.take_in(part.tally)
        ledger.take_in(part.ledger)
        numbers = arrow.as_indices([book.number(label) for label in part.labels])
        label = _entries(numbers, part.numbers.label)
        found.append(RowNumbers(label, part.numbers.key, part.numbers.group))
        writer.write(part.rows)

    total = source.rows if limit is None or source.rows is None else min(source.rows, limit)
    progress = Progress(ctx.emit, ctx.control, f"read {source.split}", "rows", total)
    coming = (source.read_later or source.read)()
    batches = _batches(itertools.islice(coming, limit), progress)
    with ArrowWriter(path, arrow.EXAMPLES) as writer:
        for batch in batches:
            take_in(read(batch))
            if ledger.rows >= LOOKED_AT:  # the others are counted alone, in any process
                break
        for part in spread(ctx, read, batches):
            take_in(part)
    progress.finish()
    rows = writer.rows()
    alive = np.arange(len(rows), dtype=np.int64)
    return SplitTable(source.split, rows, RowNumbers.of(found), tally, alive, ledger)


def _batches(rows: Iterable[Row | UnreadRow], progress: Progress) -> Iterator[list[_RowFields]]:
    batch: list[_RowFields] = []
    size = 0
    for row in rows:
        if isinstance(row, UnreadRow):
            batch.append((row.file, row.number, row.line, row.json))
            size += len(row.json)
        else:
            batch.append((row.file, row.number, row.line, row.values, row.problem))
            size += size_of(row.values)
        if len(batch) == arrow.BATCH or size >= arrow.BATCH_SIZE:
            progress.advance(len(batch))
            yield batch
            batch, size = [], 0
    progress.advance(len(batch))
    if batch:
        yield batch


@dataclass(frozen=True)
class _Batch:
    """What became of rows that follow one another."""

    rows: pa.RecordBatch
    numbers: RowNumbers  # their labels count in `labels`
    labels: list[str]  # in the order of their first use
    tally: Tally
    ledger: Ledger


def _read(
    rows: list[_RowFields],
    make: Callable[[Mapping[str, Any]], Made],
    group_by: str | None,
    fail: bool,
    before: int,
) -> _Batch:
    """Make examples of rows, of which `before` stood before them; raises Refused (`bad_row`)."""
    tally = Tally()
    tally.read = len(rows)
    ledger = Ledger([group_by] if group_by else [], before)
    book = LabelBook()
    kept: list[tuple[str, int | None, int, str]] = []
    numbers: list[tuple[int, int, int]] = []
    for fields in rows:
        row = read_row(UnreadRow(*fields) if len(fields) == 4 else Row(*fields))
        try:
            made = make_example(row, make)
            ledger.add(row.values, made)
            if made.damaged:
                tally.add(Rule.CONTROL_CHARACTERS, row, made.damaged, "held control characters")
            numbers.append(_numbers(row, made.example, book, group_by))
            kept.append((row.file, row.line, row.number, made.text))
        except RowProblem as problem:
            if fail and problem.rule in BAD_ROW:
                raise bad_row(row, problem) from None
            tally.add(problem.rule, row, problem.field, problem.what)
    columns = zip(*kept, strict=True) if kept else [[]] * len(arrow.EXAMPLES)
    arrays = [pa.array(c, f.type) for c, f in zip(columns, arrow.EXAMPLES, strict=True)]
    label, key, group = zip(*numbers, strict=True) if numbers else ((), (), ())
    return _Batch(
        pa.RecordBatch.from_arrays(arrays, schema=arrow.EXAMPLES),
        RowNumbers(arrow.as_indices(label), np.array(key, np.uint64), np.array(group, np.uint64)),
        book.known(),
        tally,
        ledger,
    )


def _numbers(
    row: Row, example: Example, book: LabelBook, group_by: str | None
) -> tuple[int, int, int]:
    # A row without a group stays with those of its prompt.
    group = row.values.get(group_by) if group_by else None
    whole, together = example.keys()
    if group is not None:
        together = key_of(("group", normal(str(group))))
    return book.number(example.label), whole, together


def _entries(values: Indices, numbers: Indices) -> Indices:
    """Return the value of each number, and -1 where it is -1."""
    return np.append(values, -1)[numbers]


def drop_duplicates(table: SplitTable, *, keep: bool) -> int:
    """Drop rows that are equal to an earlier one; returns how many contradict its label.

    With `keep` nothing is dropped. Else a text stays once, whatever its labels: a model cannot
    learn two answers to one text, and nothing here tells which one is right.
    """
    keys, labels = table.key, table.label
    _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    original = first[inverse]  # for each row the first one with its text
    repeated = original != np.arange(len(keys))
    contradicts = repeated & (labels != labels[original])
    conflicts = int(contradicts.sum())
    if keep:
        return conflicts
    rows, alive = table.rows, table.alive

    def equal(i: int) -> str:
        return f"equal to row {rows.row(int(alive[original[i]]))['row']}"

    def other(i: int) -> str:
        return f"{equal(i)}, which has another label"

    table.drop_where(Rule.DUPLICATE, repeated & ~contradicts, equal)
    left = ~(repeated & ~contradicts)
    kept = np.flatnonzero(left)
    table.drop_where(Rule.CONFLICT, contradicts[left], lambda i: other(int(kept[i])))
    return conflicts


class Beside(Protocol):
    """What else is done with the rows of a table while they are tokenized."""

    def look(self, examples: Sequence[Example]) -> Any:
        """Return what is found of rows that follow one another; in any process."""

    def add(self, table: SplitTable, found: Any) -> None:
        """Keep what was found of the next rows."""


def tokenize(
    ctx: PhaseContext, table: SplitTable, encoder: Encoder, ids: Indices, path: Path, beside: Beside
) -> None:
    """Turn the usable rows into records, dropping those that nothing could be trained on.

    `ids` gives the label id for every number of the label book.
    """
    progress = Progress(ctx.emit, ctx.control, f"tokenize {table.split}", "rows", len(table.alive))
    labels = _entries(ids, table.label)

    def encode(part: tuple[int, slice]) -> tuple[_Tokens, Any]:
        number, place = part
        texts = table.rows.take(number, table.alive[place])["example"].to_pylist()
        examples = list(map(Example.from_json, texts))
        return _encode(encoder, examples, labels[place].tolist()), beside.look(examples)

    found: list[_Tokens] = []
    bad: dict[int, str] = {}
    with ArrowWriter(path, encoder.schema) as writer:
        for part, seen in spread(ctx, encode, table.rows.parts(table.alive)):
            beside.add(table, seen)
            bad |= {progress.done + i: what for i, what in part.bad.items()}
            writer.write(part.records)
            progress.advance(len(part.made))
            found.append(replace(part, records=None))
    progress.finish()
    made = np.concatenate([np.zeros(0, dtype=bool), *(part.made for part in found)])
    table.drop_where(Rule.UNTRAINABLE, ~made, bad.__getitem__)
    table.tokens = writer.rows()
    none = arrow.as_indices([])
    table.length = np.concatenate([none, *(part.length for part in found)])
    table.trained = np.concatenate([none, *(part.trained for part in found)])
    table.position = np.arange(len(table.length), dtype=np.int64)


@dataclass(frozen=True)
class _Tokens:
    """Records, and which rows gave none."""

    records: Any  # a record batch, None once it is written
    made: Mask  # shape (rows,)
    length: Indices  # in tokens, shape (records,)
    trained: Indices  # tokens, shape (records,)
    bad: dict[int, str]  # the first rows that gave none, and why


def _encode(encoder: Encoder, examples: list[Example], labels: list[int]) -> _Tokens:
    encoded = encoder.encode(examples, labels)
    batch, problems = encoded.batch, sorted(encoded.problems.items())
    made = np.ones(len(examples), dtype=bool)
    made[list(encoded.problems)] = False
    length = batch["length"].to_numpy()
    trained = np.zeros(len(length), dtype=np.int64)
    if "labels" in batch.schema.names:
        counted = np.concatenate(([0], np.cumsum(batch["labels"].values.to_numpy() != IGNORED)))
        trained = np.diff(counted[batch["labels"].offsets.to_numpy()])
    some = {i: problem.what for i, problem in problems[:EXAMPLES]}
    return _Tokens(batch, made, length, trained, some)
