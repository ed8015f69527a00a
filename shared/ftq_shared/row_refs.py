"""Which row of a dataset is meant: as the data report names it, by its file and its number."""

import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

ROWS_MAX = 10_000  # that one job may leave out of its training by name
_FILE_MAX = 4096  # characters of a file's name
_ROW_MAX = 10**12


@dataclass(frozen=True, order=True)
class RowRef:
    """One row of the split that is trained on."""

    file: str  # its name, without folders
    row: int  # position in the split, from 0

    def __str__(self) -> str:
        return f"{self.file} row {self.row}"


def dump_refs(rows: Iterable[RowRef]) -> str:
    """Return rows as JSON, each file's name once."""
    by_file: dict[str, list[int]] = defaultdict(list)
    for ref in sorted(set(rows)):
        by_file[ref.file].append(ref.row)
    return json.dumps(by_file, separators=(",", ":"), ensure_ascii=False)


def load_refs(text: str) -> tuple[RowRef, ...]:
    """Read what `dump_refs` wrote, in order. Raises ValueError for anything else."""
    raw = json.loads(text or "{}")
    if not isinstance(raw, dict):
        raise ValueError("no table of rows by file")
    found = [RowRef(file, row) for file, rows in raw.items() for row in _numbers(file, rows)]
    if len(found) > ROWS_MAX:
        raise ValueError(f"more than {ROWS_MAX} rows")
    return tuple(sorted(set(found)))


def _numbers(file: str, rows: object) -> list[int]:
    if len(file) > _FILE_MAX or not isinstance(rows, list):
        raise ValueError("no list of rows by file")
    if not all(type(row) is int and 0 <= row <= _ROW_MAX for row in rows):
        raise ValueError("a row is no number from 0")
    return rows
