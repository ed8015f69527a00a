"""The first rows of a split, without fetching the rest of it."""

import itertools
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from ftq_shared.errors import Refused
from ftq_shared.hub import HubClient, RepoRecord
from ftq_shared.sources import (
    READ_KINDS,
    TABLE_SUFFIXES,
    TEXT_SUFFIXES,
    compression,
    data_suffix,
)
from ftq_worker.data import csv_rows, text_rows
from ftq_worker.data.compressed import unpacked_head
from ftq_worker.data.file_formats import read_file
from ftq_worker.data.rows import Row, size_of
from ftq_worker.data.split_sources import columns_by_file, columns_of, open_files
from ftq_worker.data.text_encoding import head_as_utf8

_ROWS = 20
_LATE = 50  # more of them, for columns that begin later
_SCANNED = 10_000  # rows of an own file that are looked at for those
_SCANNED_CHARACTERS = 1 << 26
_HEAD_BYTES = 2**18
# Where a first row is longer than the head (long documents), this much is fetched.
_LONG_HEAD_BYTES = 2**23
_LINES = (".csv", ".tsv", ".txt", ".text")  # of which a part ends with a whole line
_COMPARED = 100  # files whose columns are compared
# What to do about rows of which not one can be read, by the kind of file.
_JSON = "mend the file; each line of a .jsonl file is one JSON object"
_CSV = "mend the file: each row has as many fields as the header, and a field that holds the"
_CSV += " separator or a line end stands in quotes"
_MEND = {".csv": _CSV, ".tsv": _CSV, ".json": _JSON, ".jsonl": _JSON, ".ndjson": _JSON}


@dataclass(frozen=True)
class Head:
    """What the beginning of a split shows."""

    columns: list[str]
    values: list[dict[str, Any]]  # a few rows
    rows_in_split: int | None  # None while unknown
    places: Sequence[Row] = ()  # where they stand, as many; empty where only their order is known
    warnings: Sequence[str] = ()  # what is odd about the files, though they can be read
    whole: bool = False  # these are all rows that can be read


def count(rows: int | None) -> str:
    """Return a number of rows in words."""
    return "rows not counted yet" if rows is None else f"{rows:,} rows"


def read_disk(split: str, paths: Sequence[Path]) -> Head:
    """Return the head of local files; raises Refused when no row of them can be read."""
    table = open_files(split, paths)
    found = telling_rows(row for row in table.read() if not row.problem)
    if not found:
        _refuse_broken(next(iter(table.read()), None))
    warnings = [doubt for path in paths[:_COMPARED] if (doubt := _doubts(path, path.name))]
    warnings += _differing(columns_by_file(paths[:_COMPARED]))
    head = _head(found, table.columns, table.rows if found or table.rows else 0, warnings)
    return replace(head, whole=len(found) < _ROWS)


def _doubts(path: Path, name: str) -> str:
    """Return a warning where a file is hardly what it is taken for, "" where it may well be."""
    kind = data_suffix(path.name)
    if kind in (".csv", ".tsv") and (why := csv_rows.doubts_of(path)):
        return (
            f"{name}: its first row is taken for the names of its columns, but looks like data:"
            f" {why}; where the file has no header, write one as its first line"
        )
    if kind in (".txt", ".text") and (why := text_rows.doubts_of(path)):
        return f"{name}: each of its lines is trained as it is, but {why}"
    return ""


def _differing(columns: Mapping[str, list[str]]) -> list[str]:
    """Return a warning where files of one split have other columns than most; else nothing."""
    groups: dict[frozenset[str], list[str]] = {}
    for name, names in columns.items():
        groups.setdefault(frozenset(names), []).append(name)
    if len(groups) < 2:
        return []
    usual, *others = sorted(groups.values(), key=len, reverse=True)
    told = [f"{usual[0]} has {', '.join(columns[usual[0]])}"]
    told += [f"{names[0]} has {', '.join(columns[names[0]])}" for names in others[:3]]
    return [
        f"the files of the split differ in their columns: {'; '.join(told)}; a row without a column"
        " that is used is left out"
    ]


@dataclass(frozen=True)
class HubSplit:
    """A split of a dataset on the Hub."""

    record: RepoRecord
    config: str | None
    name: str
    paths: Sequence[str]  # its files

    @property
    def first(self) -> str:
        """The first file that holds something."""
        return next((path for path in self.paths if self.record.files[path]), self.paths[0])


def read_hub(hub: HubClient, split: HubSplit, known_columns: Sequence[str], *, plain: bool) -> Head:
    """Return the head of a split on the Hub; `plain` is false when the card sets reader options.

    Raises Refused for a format that is not read, or when no row can be read.
    """
    suffix, packed = data_suffix(split.first), compression(split.first)
    if suffix == ".parquet":
        return _parquet_head(hub, split.record, split.first, alone=len(split.paths) == 1)
    if suffix in TABLE_SUFFIXES:
        return _arrow_head(hub, split.record, split.first)
    if suffix in TEXT_SUFFIXES and (plain or packed):
        return _text_head(hub, split, suffix, known_columns)
    if suffix in TEXT_SUFFIXES:
        return _built_head(hub, split)
    if known_columns:
        return Head(list(known_columns), [], None)  # prepare reads it with the datasets library
    raise Refused(
        f"dataset {split.record.id}: {split.first} is of no kind that can be looked into",
        code="data_format",
        hint=f"ftq reads {READ_KINDS}",
        file=split.first,
    )


def _text_head(hub: HubClient, split: HubSplit, suffix: str, known_columns: Sequence[str]) -> Head:
    """Read a file's beginning with the reader that reads the whole file later."""
    for size_bytes in (_HEAD_BYTES, _LONG_HEAD_BYTES):
        content, whole = _fetch(hub, split, size_bytes)
        found, doubt = _rows_of(content, split.first, suffix, whole=whole)
        if found or whole:
            break
    else:
        raise Refused(
            f"dataset {split.record.id}: the first row of {split.first} does not end within"
            f" {_LONG_HEAD_BYTES >> 20} MiB",
            code="bad_row",
            hint="look at the file; bring the dataset with shorter rows, or as parquet",
            file=split.first,
        )
    readable = [row for row in found if not row.problem]
    if not readable and found:
        _refuse_broken(found[0])
    warnings = [doubt] if doubt else []
    head = _head(readable, list(known_columns), None if readable or not whole else 0, warnings)
    whole = whole and len(found) < _ROWS and len(split.paths) == 1
    return replace(head, whole=whole)


def _fetch(hub: HubClient, split: HubSplit, size_bytes: int) -> tuple[bytes, bool]:
    """Return the first file's beginning, and whether that is all of it."""
    record = split.record
    content = hub.read_head("dataset", record.id, split.first, record.sha, size_bytes) or b""
    return content, len(content) < size_bytes


def _built_head(hub: HubClient, split: HubSplit) -> Head:
    """Let the datasets library read a file's beginning as the card says.

    It sees a folder like the repo, in which every other file is empty: their names are all that
    it looks at, since it stops after a few rows of the first.
    """
    from datasets import load_dataset

    record = split.record
    content, whole = _fetch(hub, split, _HEAD_BYTES)
    card = hub.read_text("dataset", record.id, "README.md", record.sha)
    with tempfile.TemporaryDirectory() as folder:
        for path in record.files:
            file = Path(folder) / "repo" / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()
        if card:
            (Path(folder) / "repo" / "README.md").write_text(card)
        text = content if whole else content[: content.rfind(b"\n") + 1]
        (Path(folder) / "repo" / split.first).write_bytes(text)
        name = None if split.config == "default" else split.config
        try:
            data = load_dataset(
                str(Path(folder) / "repo"),
                name,
                split=split.name,
                streaming=True,
                cache_dir=str(Path(folder) / "cache"),
            )
            values = [dict(row) for row in data.take(_ROWS)]
        except Exception as error:  # `datasets` raises what its builders happen to raise
            raise Refused(
                f"dataset {record.id}: {split.first} cannot be read: {error}",
                code="bad_file",
                hint="look at the dataset's own page, or bring it as jsonl or parquet",
                file=split.first,
            ) from error
    columns = list(dict.fromkeys(column for row in values for column in row))
    return Head(columns, values, None)


def _rows_of(content: bytes, path: str, suffix: str, *, whole: bool) -> tuple[list[Row], str]:
    """Read a file's beginning with the reader that reads the whole file later.

    Returns its first rows, and a warning where they are hardly what they are taken for.
    """
    if packed := compression(path):
        content = unpacked_head(content, path, _LONG_HEAD_BYTES)
        whole = whole and len(content) < _LONG_HEAD_BYTES
    content = head_as_utf8(content)
    if not whole and suffix in _LINES:
        content = content[: content.rfind(b"\n") + 1]  # the last line is cut
    name = PurePosixPath(path).name
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / name[: len(name) - len(packed)]
        file.write_bytes(content)
        rows = list(_until_broken(file, whole=whole))
        doubt = _doubts(file, path) if rows else ""
    if not whole and suffix not in _LINES and len(rows) < _ROWS and rows and rows[-1].problem:
        rows.pop()  # it is cut
    return [replace(row, file=name) for row in rows], doubt


def _until_broken(file: Path, *, whole: bool) -> Iterator[Row]:
    """Yield rows up to the place where the head was cut off."""
    try:
        yield from telling_rows(read_file(file, cut=not whole))
    except Refused as error:
        if whole or error.code == "bad_encoding":
            raise


def _parquet_head(hub: HubClient, record: RepoRecord, path: str, *, alone: bool) -> Head:
    """Return the head of a parquet file: its footer and the pages looked at, fetched by range."""
    import pyarrow as pa

    from ftq_worker.data.arrow_values import Meter
    from ftq_worker.data.parquet_rows import bad_parquet, open_parquet, rows_of

    def read() -> Head:
        with hub.open("dataset", record.id, path, record.sha) as raw:
            # Without a buffer it fetches whole columns of a row group.
            file = open_parquet(raw, pre_buffer=False, buffer_size=_HEAD_BYTES)
            meter = Meter(path, record.files[path])
            found = _looked_at(raw, rows_of(file, path, meter, batch_rows=_ROWS))
            total = file.metadata.num_rows if alone else None
            return _head(found, file.schema_arrow.names, total, [])

    try:
        return hub.call(read, kind="dataset", repo=record.id, what=f"reading {path}")
    except (pa.ArrowException, ValueError, TypeError, OverflowError) as error:
        hint = "the file is damaged; choose another revision, or tell its owner"
        raise bad_parquet(f"dataset {record.id}: {path}", error, hint) from error


def _arrow_head(hub: HubClient, record: RepoRecord, path: str) -> Head:
    """Return the head of an Arrow file: its schema and first batches, fetched by range."""
    import pyarrow as pa

    from ftq_worker.data.arrow_rows import bad_arrow, batch_rows, open_arrow_file
    from ftq_worker.data.arrow_values import Meter

    def read() -> Head:
        with (
            hub.open("dataset", record.id, path, record.sha) as raw,
            open_arrow_file(raw) as reader,
        ):
            found = _looked_at(raw, batch_rows(reader, path, Meter(path, record.files[path])))
            return _head(found, reader.schema.names, None, [])

    try:
        return hub.call(read, kind="dataset", repo=record.id, what=f"reading {path}")
    except (pa.ArrowException, ValueError, TypeError, OverflowError) as error:
        hint = "the file is damaged; choose another revision, or tell its owner"
        raise bad_arrow(f"dataset {record.id}: {path}", error, hint) from error


def _looked_at(raw: Any, rows: Iterator[Row]) -> list[Row]:
    """Return the telling rows of a table on the Hub; no more of it is fetched than of a text."""

    def near() -> Iterator[Row]:
        for number in itertools.count():
            if number >= _ROWS and raw.cache.total_requested_bytes > _LONG_HEAD_BYTES:
                return
            row = next(rows, None)
            if row is None:
                return
            if not row.problem:
                yield row

    return telling_rows(near())


def telling_rows(rows: Iterable[Row]) -> list[Row]:
    """Return the first rows, and later ones that hold something in a column for the first time.

    A column may begin anywhere; _SCANNED rows are looked at, with up to _SCANNED_CHARACTERS.
    """
    found: list[Row] = []
    known: set[str] = set()
    left = _SCANNED_CHARACTERS
    for row in itertools.islice(rows, _SCANNED):
        left -= size_of(row.values)
        held = {name for name, value in row.values.items() if value not in (None, "", [], {})}
        if len(found) < _ROWS or not held <= known:
            found.append(row)
            known |= held
        if len(found) >= _ROWS + _LATE or left < 0:
            break
    return found


def _head(
    found: Sequence[Row], columns: Sequence[str], total: int | None, warnings: Sequence[str]
) -> Head:
    names = list(columns) or columns_of(found)
    return Head(names, [dict(row.values) for row in found], total, found, warnings)


def _refuse_broken(row: Row | None) -> None:
    """Raise Refused for a row that cannot be read, when not one can."""
    if row is None:
        return
    at = "" if row.line is None else f", line {row.line}"
    hint = _MEND.get(data_suffix(row.file), "mend the file")
    if row.problem.startswith("is a list"):
        hint = 'write each row as an object; a conversation as {"messages": [...]}'
    if row.problem.startswith("not UTF-8"):
        hint = "save the file as UTF-8: `iconv -f WINDOWS-1252 -t UTF-8 OLD > NEW`, with the"
        hint += " encoding that it has"
    raise Refused(
        f"{row.file}{at}: {row.problem}; no row of it can be read",
        code="bad_row",
        hint=hint,
        **row.where(),
    )
