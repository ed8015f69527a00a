"""A quick look at the client's own rows, for people: how many there are, and their columns.

What the rows mean is decided by the worker; nothing here refuses anything.
"""

import csv
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

_LIMIT = 256 * 2**20  # bytes; larger files take too long to read for a glance


@dataclass(frozen=True)
class Glance:
    """What a quick look has found."""

    rows: int
    columns: Sequence[str]


def look_at(files: Sequence[Path]) -> Glance | None:
    """Return rows and columns; None for formats, sizes and files that a glance cannot read."""
    if sum(file.stat().st_size for file in files) > _LIMIT:
        return None
    try:
        tables = [_columns_and_rows(file) for file in files]
    except (ValueError, TypeError, LookupError, OSError, RecursionError, csv.Error):
        return None
    columns = list(dict.fromkeys(chain.from_iterable(names for names, _ in tables)))
    return Glance(sum(rows for _, rows in tables), columns) if columns else None


def _columns_and_rows(file: Path) -> tuple[list[str], int]:
    if file.suffix == ".json":
        rows = json.loads(file.read_text(encoding="utf-8-sig"))
        return list(rows[0]), len(rows)
    if file.suffix not in (".jsonl", ".csv", ".txt"):
        raise ValueError(file.suffix)
    with file.open(encoding="utf-8-sig", newline="") as stream:
        if file.suffix == ".csv":
            table = csv.reader(stream)
            return next(table, []), sum(1 for row in table if row)
        lines = _filled(stream)
        first = list(islice(lines, 1))
        names = list(json.loads(first[0])) if first and file.suffix == ".jsonl" else ["text"]
        return names, len(first) + sum(1 for _ in lines)


def _filled(lines: Iterator[str]) -> Iterator[str]:
    return (line for line in lines if line.strip())
