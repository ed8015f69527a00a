"""The rows of one split on their way from the source to tokens, on disk the whole time.

What is held in memory per row are a few numbers (position, key, length): about 50 bytes.
"""

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc
from datasets import Dataset

from ftq_worker.data import arrow
from ftq_worker.data.arrow import ArrowWriter, Indices, numbers, open_arrow
from ftq_worker.data.cleaning import (
    BAD_ROW,
    EXAMPLES,
    RowProblem,
    Rule,
    Tally,
    bad_row,
    row_example,
    text_key,
)
from ftq_worker.data.examples import Example, Made, make_example
from ftq_worker.data.ledger import Ledger
from ftq_worker.data.records import Encoder, Record
from ftq_worker.data.rows import Row, SplitSource
from ftq_worker.job.context import PhaseContext
from ftq_worker.job.progress import Progress

_BATCH = 500  # rows that are tokenized together
_BATCH_BYTES = 16 << 20  # of their texts; a longer one is tokenized alone

Mask = npt.NDArray[np.bool_]


class _ExampleRow(TypedDict):
    """One row of a file with the schema `arrow.EXAMPLES`."""

    file: str
    line: int | None
    row: int
    example: str
    label: int
    key: int
    group: int


class LabelBook:
    """Numbers labels in the order of their first use, and gives them their ids at the end."""

    def __init__(self, names: list[str] | None = None) -> None:
        self._fixed = names is not None  # the dataset itself lists its labels
        self._numbers = {name: i for i, name in enumerate(names or [])}

    def number(self, label: str) -> int:
        """Return the label's number, a new one where it has none; -1 for "no label"."""
        return self._numbers.setdefault(label, len(self._numbers)) if label else -1

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


@dataclass
class SplitTable:
    """The usable rows of one split. The arrays have one entry per usable row."""

    split: str
    rows: Dataset  # all rows that could be read, as arrow.EXAMPLES
    tally: Tally
    alive: Indices  # positions in `rows`, ascending
    ledger: Ledger = field(default_factory=Ledger)  # what of its rows was not used
    tokens: Dataset | None = None  # one record per row that was usable when it was made
    position: Indices = field(default_factory=lambda: arrow.as_indices([]))  # in `tokens`
    length: Indices = field(default_factory=lambda: arrow.as_indices([]))  # in tokens

    def column(self, name: str) -> Any:
        """Return a column of numbers for the usable rows, shape (rows,)."""
        return numbers(self.rows, name)[self.alive]

    def example(self, i: int) -> Example:
        return Example.from_json(self.rows[int(self.alive[i])]["example"])

    def source_row(self, i: int) -> Row:
        """Return where the i-th usable row came from."""
        record: _ExampleRow = self.rows[int(self.alive[i])]
        return Row(record["file"], record["row"], record["line"])

    def keep(self, mask: Mask) -> None:
        """Drop the usable rows where `mask` is false."""
        self.alive = self.alive[mask]
        if self.tokens is not None:
            self.position, self.length = self.position[mask], self.length[mask]

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
    tally = Tally()
    group_by = ctx.spec.data.group_by
    ledger = Ledger([group_by] if group_by else [])
    total = source.rows if limit is None or source.rows is None else min(source.rows, limit)
    progress = Progress(ctx.emit, ctx.control, f"read {source.split}", "rows", total)
    with ArrowWriter(path, arrow.EXAMPLES) as writer:
        for row in itertools.islice(source.read(), limit):
            progress.advance()
            tally.read += 1
            try:
                made = make_example(row, make)
                ledger.add(row.values, made)
                writer.append(_record(row, made, book, tally, group_by))
            except RowProblem as problem:
                if ctx.spec.data.on_bad_row == "fail" and problem.rule in BAD_ROW:
                    raise bad_row(row, problem) from None
                tally.add(problem.rule, row, problem.field, problem.what)
    progress.finish()
    rows = open_arrow(path)
    return SplitTable(source.split, rows, tally, np.arange(len(rows), dtype=np.int64), ledger)


def _record(
    row: Row,
    made: Made,
    book: LabelBook,
    tally: Tally,
    group_by: str | None,
) -> _ExampleRow:
    if made.damaged:
        tally.add(Rule.CONTROL_CHARACTERS, row, made.damaged, "held control characters")
    key = made.example.key
    # A row without a group stays with those of its prompt.
    group = row.values.get(group_by) if group_by else None
    return {
        "file": row.file,
        "line": row.line,
        "row": row.number,
        "example": made.text,
        "label": book.number(made.example.label),
        "key": key,
        "group": made.example.prompt_key if group is None else text_key("group", str(group)),
    }


def drop_duplicates(table: SplitTable, *, keep: bool) -> int:
    """Drop rows that are equal to an earlier one; returns how many contradict its label.

    With `keep` nothing is dropped. Else a text stays once, whatever its labels: a model cannot
    learn two answers to one text, and nothing here tells which one is right.
    """
    keys, labels = table.column("key"), table.column("label")
    _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    original = first[inverse]  # for each row the first one with its text
    repeated = original != np.arange(len(keys))
    contradicts = repeated & (labels != labels[original])
    conflicts = int(contradicts.sum())
    if keep:
        return conflicts
    row_number = table.column("row")

    def equal(i: int) -> str:
        return f"equal to row {row_number[original[i]]}"

    def other(i: int) -> str:
        return f"equal to row {row_number[original[i]]}, which has another label"

    table.drop_where(Rule.DUPLICATE, repeated & ~contradicts, equal)
    left = ~(repeated & ~contradicts)
    kept = np.flatnonzero(left)
    table.drop_where(Rule.CONFLICT, contradicts[left], lambda i: other(int(kept[i])))
    return conflicts


def tokenize(
    ctx: PhaseContext, table: SplitTable, encoder: Encoder, ids: Indices, path: Path
) -> None:
    """Turn the usable rows into records, dropping those that nothing could be trained on.

    `ids` gives the label id for every number of the label book.
    """
    progress = Progress(ctx.emit, ctx.control, f"tokenize {table.split}", "rows", len(table.alive))
    made = np.zeros(len(table.alive), dtype=bool)
    lengths: list[int] = []
    bad: dict[int, str] = {}
    with ArrowWriter(path, encoder.schema) as writer:
        for i, record in _records(table, encoder, ids, progress):
            if isinstance(record, RowProblem):
                bad[i] = record.what if len(bad) < EXAMPLES else ""
                continue
            made[i] = True
            lengths.append(record["length"])
            writer.append(record)
    progress.finish()
    table.drop_where(Rule.UNTRAINABLE, ~made, lambda i: bad[i])
    table.tokens = open_arrow(path)
    table.length = arrow.as_indices(lengths)
    table.position = np.arange(len(lengths), dtype=np.int64)


def _records(
    table: SplitTable, encoder: Encoder, ids: Indices, progress: Progress
) -> Iterator[tuple[int, Record | RowProblem]]:
    """Yield the number of each usable row with its record, or with what is wrong with it."""
    for start, end in _batches(table):
        batch = table.rows[table.alive[start:end]]
        examples = [Example.from_json(text) for text in batch["example"]]
        labels = [int(ids[label]) if label >= 0 else -1 for label in batch["label"]]
        records = encoder.encode(examples, labels)
        progress.advance(len(records))
        yield from enumerate(records, start)


def _batches(table: SplitTable) -> Iterator[tuple[int, int]]:
    """Yield where batches of usable rows begin and end: of long texts few are held at a time."""
    sizes = pc.binary_length(table.rows.data.column("example")).to_numpy()[table.alive]
    before = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])
    start = 0
    while start < len(sizes):
        fits = int(np.searchsorted(before, before[start] + _BATCH_BYTES, "right")) - 1
        end = min(start + _BATCH, max(start + 1, fits), len(sizes))
        yield start, end
        start = end
