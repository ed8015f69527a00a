"""A quick look at the client's own rows before they leave: their columns, and what is not read.

What the rows mean is decided by the worker; nothing here refuses anything.
"""

import csv
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from ftq_client.transfer.files import OwnFile
from ftq_client.view.format import counted
from ftq_shared.dataset_files import UnreadFile, listed, sort_files, unread_from_json

_LIMIT = 256 * 2**20  # bytes; larger files take too long to read for a glance
_LOOKED_AT = 100  # rows of each file whose values are looked at
_COLUMNS_MAX = 20  # named for people


@dataclass(frozen=True)
class OwnData:
    """What a quick look has found."""

    files: Sequence[str]  # that are read, without their folder
    unread: Sequence[UnreadFile] = ()
    rows: int | None = None  # None for formats, sizes and files that a glance cannot read
    looked_at: int = 0  # rows
    columns: Mapping[str, int] = field(default_factory=dict)  # with the rows that fill each
    first: Sequence[Mapping[str, Any]] = field(default=(), repr=False)  # the rows looked at

    def words(self) -> str:
        """Return rows and columns in words, empty where a glance cannot tell."""
        if self.rows is None:
            return ""
        names = [
            name if rows == self.looked_at else f"{name} (in {rows} of the first {self.looked_at})"
            for name, rows in self.columns.items()
        ]
        more = len(names) - _COLUMNS_MAX
        listing = ", ".join(names[:_COLUMNS_MAX]) + (f" and {more} more" if more > 0 else "")
        return f"{counted(self.rows, 'row')}, columns {listing}"

    def lines(self) -> Iterator[str]:
        """Yield what a person should know before the files leave."""
        named = self.files[0] if len(self.files) == 1 else counted(len(self.files), "file")
        yield f"data: {', '.join(filter(None, (named, self.words())))}"
        if self.unread:
            yield self.unread_words()

    def unread_words(self) -> str:
        """Return which files are not read and why, empty where all are."""
        return f"not read: {listed(self.unread)}" if self.unread else ""

    def as_json(self) -> dict[str, Any]:
        """Return all of it for programs."""
        unread = [{"name": file.name, "reason": file.reason} for file in self.unread]
        told = {name: value for name, value in vars(self).items() if name != "first"}
        return {**told, "files": list(self.files), "unread": unread}


def look_at(files: Sequence[OwnFile]) -> OwnData | None:
    """Return what stands in a dataset's own files, None where none of the files is a dataset's."""
    names = {file.path.removeprefix("dataset/"): file for file in files if _is_data(file)}
    found = sort_files(names)
    if not found.read:
        return None
    lists = [file.content for file in files if _is_data(file) and file.content is not None]
    unread = [entry for content in lists for entry in unread_from_json(content)]
    data = OwnData(found.read, unread or found.unread)
    if sum(names[name].size for name in found.read) > _LIMIT:
        return data
    looked, rows = list[Mapping[str, Any]](), 0
    try:
        for name in found.read:
            first, count = _rows(names[name].source)
            looked += first
            rows += count
    except (ValueError, TypeError, LookupError, OSError, RecursionError, csv.Error):
        return data
    columns = Counter[str]()
    for row in looked:  # of CSV, fields beyond the columns have no name
        columns.update({str(k): v not in (None, "", [], {}) for k, v in row.items() if k})
    if not columns:
        return data
    first = [{str(k): v for k, v in row.items() if k} for row in looked]
    return OwnData(data.files, data.unread, rows, len(looked), columns, first)


def _is_data(file: OwnFile) -> bool:
    return file.path.startswith("dataset/")


def _rows(file: Path) -> tuple[list[Mapping[str, Any]], int]:
    """Return the first rows of a file, and how many it has."""
    kind = file.suffix.lower()
    if kind == ".json":
        whole = json.loads(file.read_text(encoding="utf-8-sig"))
        return [dict(row) for row in whole[:_LOOKED_AT]], len(whole)
    if kind not in (".jsonl", ".ndjson", ".csv", ".tsv", ".txt"):
        raise ValueError(kind)
    with file.open(encoding="utf-8-sig", newline="") as stream:
        if kind in (".csv", ".tsv"):
            table = csv.DictReader(stream, delimiter="\t" if kind == ".tsv" else ",")
            first: list[Mapping[str, Any]] = list(islice(table, _LOOKED_AT))
            return first, len(first) + sum(1 for _ in table)
        lines = (line for line in stream if line.strip())
        texts = list(islice(lines, _LOOKED_AT))
        more = sum(1 for _ in lines)
        rows = [{"text": text} if kind == ".txt" else _parsed(text) for text in texts]
        return [row for row in rows if row is not None], len(texts) + more


def _parsed(line: str) -> dict[str, Any] | None:
    """Return the row of a line of JSON, None where it holds none: prepare names the line."""
    try:
        return dict(json.loads(line))
    except (ValueError, TypeError, RecursionError):
        return None
