"""Opening a dataset: which files belong to which split, and what reads the rows of one.

Rows come one at a time from files or from Arrow on disk, so memory does not grow with the dataset.
"""

import itertools
import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from ftq_shared.errors import Refused
from ftq_worker.data.file_formats import read_file
from ftq_worker.data.parquet_rows import parquet_schema
from ftq_worker.data.rows import Row, SplitSource, SplitSources

_SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
}


def split_files(files: Sequence[str | Path]) -> dict[str, list[Path]]:
    """Return the files of every split, in the order of their names.

    train.jsonl, test-00000.csv, or a folder of such a name, say which split they are. A single
    file is `train` whatever its name; where no file is named after a split, all are `train`;
    else a file that is named otherwise is a split of its own name.
    """
    paths = sorted(Path(file) for file in files)
    if len(paths) <= 1:
        return {"train": paths} if paths else {}
    root = Path(os.path.commonpath([path.parent for path in paths]))
    names = [_split_name(path.relative_to(root)) for path in paths]
    if not any(names):
        return {"train": paths}
    splits: dict[str, list[Path]] = {}
    for path, name in zip(paths, names, strict=True):
        splits.setdefault(name or path.stem, []).append(path)
    return splits


def _split_name(path: Path) -> str:
    """Return the split that a file's name or folder means, "" when neither does."""
    for part in (path.stem, *reversed(path.parent.parts)):
        for word in re.split(r"[^a-z]+", part.lower()):
            if word in _SPLIT_NAMES:
                return _SPLIT_NAMES[word]
    return ""


def open_files(split: str, paths: Sequence[Path]) -> SplitSource:
    """Return a source over files, one after another; raises Refused (`bad_file`)."""
    rows, columns, labels = None, [], {}
    if paths and all(path.suffix.lower() == ".parquet" for path in paths):
        schemas = [parquet_schema(path) for path in paths]
        rows = sum(schema[0] for schema in schemas)
        columns, labels = schemas[0][1], schemas[0][2]
    return SplitSource(split, columns, lambda: _chain(paths), rows, labels)


def _chain(paths: Sequence[Path]) -> Iterator[Row]:
    number = 0
    for path in paths:
        for row in read_file(path, number):
            yield row
            number = row.number + 1


def sample_rows(source: SplitSource, count: int = 100) -> list[Row]:
    """Return the first `count` rows that can be read, for recognising layouts."""
    return list(itertools.islice((row for row in source.read() if not row.problem), count))


def columns_of(rows: Sequence[Row]) -> list[str]:
    """Return the columns that the rows have, in the order of their first use."""
    return list(dict.fromkeys(column for row in rows for column in row.values))


def pick_split(sources: SplitSources, split: str, field: str = "data.split") -> SplitSource:
    """Open a split by name; raises Refused (`no_split`) with the splits that exist."""
    if split not in sources:
        raise Refused(
            f"the dataset has no split {split!r}; it has {', '.join(sources) or 'none'}",
            code="no_split",
            hint=f"--set {field}={next(iter(sources), 'train')}",
            field=field,
            nearest=list(sources),
        )
    return sources[split]()


def file_sources(files: Sequence[str | Path]) -> SplitSources:
    """Return what opens each split of a dataset that consists of files."""

    def opener(split: str, paths: Sequence[Path]) -> Callable[[], SplitSource]:
        return lambda: open_files(split, paths)

    return {split: opener(split, paths) for split, paths in split_files(files).items()}
