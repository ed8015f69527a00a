"""Opening a dataset: which files belong to which split, and what reads the rows of one.

Rows come one at a time from files or from Arrow on disk, so memory does not grow with the dataset.
"""

import difflib
import itertools
import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from ftq_shared.dataset_files import base_name
from ftq_shared.errors import Refused
from ftq_worker.data.arrow_values import Schema
from ftq_worker.data.file_formats import read_file, read_later, schema_of_file
from ftq_worker.data.json_rows import read_row
from ftq_worker.data.rows import Row, SplitSource, SplitSources, UnreadRow
from ftq_worker.data.saved_dataset import saved_split

_FIRST_ROWS = 20  # that tell the columns of a text file
_SLICE = re.compile(r"(\w[\w.-]*)\[(.*)\]")  # `train[:10]`, as `datasets` writes it
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
    else a file that is named otherwise is a split of its own name. What `save_to_disk` wrote knows
    its splits.
    """
    paths = sorted(Path(file) for file in files)
    if len(paths) <= 1:
        return {"train": paths} if paths else {}
    root = Path(os.path.commonpath([path.parent for path in paths]))
    names = [saved_split(path) or _split_name(path.relative_to(root)) for path in paths]
    if not any(names):
        return {"train": paths}
    splits: dict[str, list[Path]] = {}
    for path, name in zip(paths, names, strict=True):
        splits.setdefault(name or base_name(path.name), []).append(path)
    return splits


def _split_name(path: Path) -> str:
    """Return the split that a file's name or folder means, "" when neither does."""
    for part in (base_name(path.name), *reversed(path.parent.parts)):
        for word in re.split(r"[^a-z]+", part.lower()):
            if word in _SPLIT_NAMES:
                return _SPLIT_NAMES[word]
    return ""


def open_files(split: str, paths: Sequence[Path]) -> SplitSource:
    """Return a source over files, one after another; raises Refused (`bad_file`)."""
    schemas = [schema_of_file(path) for path in paths]
    known = [schema for schema in schemas if schema is not None]
    if len(known) < len(paths):  # text tells its columns row by row
        return SplitSource(
            split,
            [],
            lambda: map(read_row, _chain(paths)),
            None,
            _labels(known),
            lambda: _chain(paths),
        )
    counts = [schema.rows for schema in known]
    rows = None if None in counts else sum(count or 0 for count in counts)
    columns = list(dict.fromkeys(column for schema in known for column in schema.columns))
    return SplitSource(split, columns, lambda: map(read_row, _chain(paths)), rows, _labels(known))


def _labels(schemas: Sequence[Schema]) -> dict[str, list[str]]:
    """Return the label names of all files; raises Refused where two files number them otherwise."""
    labels: dict[str, list[str]] = {}
    for schema in schemas:
        for column, names in schema.labels.items():
            if labels.setdefault(column, names) != names:
                raise Refused(
                    f"the files of the dataset name the labels of {column!r} differently:"
                    f" {', '.join(labels[column][:5])} and {', '.join(names[:5])}",
                    code="bad_file",
                    hint="write them with one ClassLabel feature, or give one file",
                    field="data.columns.label",
                )
    return labels


def columns_by_file(paths: Sequence[Path]) -> dict[str, list[str]]:
    """Return the columns of each file by its name, of text those of its first rows.

    Files without rows are left out. Raises Refused for a file that cannot be read.
    """
    found: dict[str, list[str]] = {}
    for path in paths:
        schema = schema_of_file(path)
        first = itertools.islice(read_file(path), _FIRST_ROWS) if schema is None else ()
        columns = schema.columns if schema else columns_of(list(first))
        if columns:
            found[path.name] = columns
    return found


def _chain(paths: Sequence[Path]) -> Iterator[Row | UnreadRow]:
    number = 0
    for path in paths:
        for row in read_later(path, number):
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
        raise no_split(split, list(sources), field)
    return sources[split]()


def no_split(name: str, known: Sequence[str], field: str = "data.split") -> Refused:
    """Return the refusal of a split that is not there, with the next command that works."""
    if (slice_ := _SLICE.fullmatch(name)) and slice_[1] in known:
        return _no_slice(slice_[1], slice_[2], field)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.3) or [*known, "train"]
    return Refused(
        f"the dataset has no split {name!r}; it has {', '.join(known) or 'none'}",
        code="no_split",
        hint=f"--set {field}={near[0]}",
        field=field,
        nearest=list(known),
    )


def _no_slice(split: str, part: str, field: str) -> Refused:
    """Return the refusal of a slice: ftq reads the first rows of a split, or all."""
    first = re.fullmatch(r":(\d+)", part)
    how = f" --set data.max_rows={first[1]}" if first and field == "data.split" else ""
    rest = "" if how else "; data.max_rows=NUMBER reads the first rows of the training split only"
    return Refused(
        f"{field}: {split}[{part}] is a slice, which is not read; name a split",
        code="no_split",
        hint=f"--set {field}={split}{how}{rest}",
        field=field,
    )


def file_sources(files: Sequence[str | Path]) -> SplitSources:
    """Return what opens each split of a dataset that consists of files."""

    def opener(split: str, paths: Sequence[Path]) -> Callable[[], SplitSource]:
        return lambda: open_files(split, paths)

    return {split: opener(split, paths) for split, paths in split_files(files).items()}
