"""What every reader yields: a row with the place it came from, or what is wrong with it."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ftq_shared.errors import Where


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a source; either `values` or `problem` is filled."""

    file: str  # its name, without folders
    number: int  # position in its split, from 0
    line: int | None  # line of the file, from 1; None where the format has no lines
    values: Mapping[str, Any] = field(default_factory=dict)
    problem: str = ""  # why it cannot be read

    def where(self) -> Where:
        where: Where = {"file": self.file, "row": self.number}
        if self.line is not None:
            where["line"] = self.line
        return where


@dataclass(frozen=True)
class SplitSource:
    """One split of a dataset. Reading it again starts at its first row."""

    split: str
    columns: list[str]  # empty while unknown: a jsonl file says it row by row
    read: Callable[[], Iterator[Row]]
    rows: int | None = None  # None while unknown
    label_names: Mapping[str, list[str]] = field(default_factory=dict)  # ClassLabel columns


SplitSources = dict[str, Callable[[], SplitSource]]  # by split: what opens it
