"""The first rows of a split, without fetching the rest of it."""

import difflib
import itertools
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from ftq_shared.errors import Refused
from ftq_shared.hub import HubClient, RepoRecord
from ftq_shared.sources import DATA_SUFFIXES
from ftq_worker.data.file_formats import read_file
from ftq_worker.data.rows import Row
from ftq_worker.data.split_sources import columns_of, open_files, sample_rows

_ROWS = 20
_HEAD_BYTES = 2**18
# Where a first row is longer than the head (long documents), this much is fetched.
_LONG_HEAD_BYTES = 2**23
# Text that the datasets library can read from a part of the file.
_BUILT_SUFFIXES = (".csv", ".tsv", ".json", ".jsonl", ".txt")


@dataclass(frozen=True)
class Head:
    """What the beginning of a split shows."""

    columns: list[str]
    values: list[dict[str, Any]]  # a few rows
    rows_in_split: int | None  # None while unknown


def count(rows: int | None) -> str:
    """Return a number of rows in words."""
    return "rows not counted yet" if rows is None else f"{rows:,} rows"


def nearest_name(name: str, names: Sequence[str]) -> str:
    """Return the name of `names` that comes nearest, the first when none does."""
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.3)
    return near[0] if near else names[0]


def read_disk(split: str, paths: Sequence[Path]) -> Head:
    """Return the head of local files; raises Refused when no row of them can be read."""
    table = open_files(split, paths)
    found = sample_rows(table, _ROWS)
    if not found:
        _refuse_broken(next(iter(table.read()), None))
    return _head(found, table.columns, table.rows if found or table.rows else 0)


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
    suffix = _suffix(split.first)
    if suffix == ".parquet":
        return _parquet_head(hub, split.record, split.first, alone=len(split.paths) == 1)
    if suffix in DATA_SUFFIXES and (plain or _is_gz(split.first)):
        return _text_head(hub, split, suffix, known_columns)
    if suffix in _BUILT_SUFFIXES and not _is_gz(split.first):
        return _built_head(hub, split)
    if known_columns:
        return Head(list(known_columns), [], None)  # prepare reads it with the datasets library
    raise Refused(
        f"dataset {split.record.id}: {split.first} is of no kind that can be looked into",
        code="data_format",
        hint=f"ftq reads {', '.join(DATA_SUFFIXES)} (text also as .gz)",
        file=split.first,
    )


def _text_head(hub: HubClient, split: HubSplit, suffix: str, known_columns: Sequence[str]) -> Head:
    """Read a file's beginning with the reader that reads the whole file later."""
    for size_bytes in (_HEAD_BYTES, _LONG_HEAD_BYTES):
        content, whole = _fetch(hub, split, size_bytes)
        found = _rows_of(content, split.first, suffix, whole=whole)
        if found or whole:
            break
    readable = [row for row in found if not row.problem]
    if not readable and found:
        _refuse_broken(found[0])
    return _head(readable, list(known_columns), None if readable or not whole else 0)


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


def _suffix(path: str) -> str:
    return PurePosixPath(path.lower().removesuffix(".gz")).suffix


def _is_gz(path: str) -> bool:
    return path.lower().endswith(".gz")


def _rows_of(content: bytes, path: str, suffix: str, *, whole: bool) -> list[Row]:
    """Read a file's beginning with the reader that reads the whole file later."""
    if _is_gz(path):
        content, whole = _inflated(content), False
    if not whole and suffix != ".json":
        content = content[: content.rfind(b"\n") + 1]  # the last line is cut
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"{PurePosixPath(path).name.removesuffix('.gz')}"
        file.write_bytes(content)
        return list(_until_broken(file, whole=whole))


def _until_broken(file: Path, *, whole: bool) -> Iterator[Row]:
    """Yield rows up to the place where the head was cut off."""
    rows = read_file(file)
    try:
        for _, row in zip(range(_ROWS), rows, strict=False):
            yield row
    except Refused:
        if whole:
            raise


def _inflated(content: bytes) -> bytes:
    try:
        return zlib.decompressobj(wbits=31).decompress(content, _LONG_HEAD_BYTES)
    except zlib.error:
        return b""


def _parquet_head(hub: HubClient, record: RepoRecord, path: str, *, alone: bool) -> Head:
    """Return the head of a parquet file: its footer and the first pages, fetched by range."""
    import pyarrow as pa

    from ftq_worker.data.parquet_rows import bad_parquet, open_parquet, rows_of

    def read() -> Head:
        with hub.open("dataset", record.id, path, record.sha) as raw:
            file = open_parquet(raw, pre_buffer=False)
            columns = list(file.schema_arrow.names)
            rows = itertools.islice(rows_of(file, path, batch_rows=_ROWS), _ROWS)
            values = [dict(row.values) for row in rows if not row.problem]
            total = file.metadata.num_rows
        return Head(columns, values, total if alone else None)

    try:
        return hub.call(read, kind="dataset", repo=record.id, what=f"reading {path}")
    except (pa.ArrowException, ValueError, TypeError, OverflowError) as error:
        hint = "the file is damaged; choose another revision, or tell its owner"
        raise bad_parquet(f"dataset {record.id}: {path}", error, hint) from error


def _head(found: Sequence[Row], columns: Sequence[str], total: int | None) -> Head:
    return Head(list(columns) or columns_of(found), [dict(row.values) for row in found], total)


def _refuse_broken(row: Row | None) -> None:
    """Raise Refused for a row that cannot be read, when not one can."""
    if row is None:
        return
    at = "" if row.line is None else f", line {row.line}"
    raise Refused(
        f"{row.file}{at}: {row.problem}; no row of it can be read",
        code="bad_row",
        hint="mend the file; each line of a .jsonl file is one JSON object",
        **row.where(),
    )
