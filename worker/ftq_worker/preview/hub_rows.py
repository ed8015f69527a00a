"""The first rows of a dataset on the Hub: of large files only their beginning is fetched."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import pyarrow as pa
import pyarrow.parquet as pq

from ftq_shared.hub import HubClient, RepoRecord
from ftq_worker.data.hub import card_labels, hub_sources
from ftq_worker.data.parquet_rows import bad_parquet
from ftq_worker.data.rows import SplitSource, SplitSources
from ftq_worker.data.split_sources import open_files
from ftq_worker.data.text_encoding import head_as_utf8
from ftq_worker.job.context import PhaseContext
from ftq_worker.job.reports import DatasetFacts
from ftq_worker.validation.dataset import FoundDataset

WHOLE_BYTES = 64 << 20  # a split up to here is downloaded as a whole, as a job would
_HEAD_BYTES = 16 << 20  # of a text file
_LINES = (".jsonl", ".ndjson", ".csv", ".tsv", ".txt", ".text")  # of which a part can be read


@dataclass(frozen=True)
class FirstRows:
    """What opens the splits of a dataset."""

    sources: SplitSources
    cut: frozenset[str]  # splits of which only a beginning is there


def first_rows(
    ctx: PhaseContext,
    hub: HubClient,
    found: FoundDataset,
    facts: DatasetFacts,
    folder: Path,
    rows: int,
) -> FirstRows:
    """Return sources that give at least `rows` rows of each split, or what its first file has.

    A split is downloaded when it is opened. Raises what `hub_sources` raises.
    """
    assert found.record
    whole = hub_sources(ctx, facts, folder)
    if found.has_options:  # read by `datasets`, which takes whole files
        return FirstRows(whole, frozenset())
    cut = frozenset(
        name for name, paths in found.splits.items() if _is_cut(found.record.files, paths)
    )
    labels = card_labels(found.record, str(found.config))
    openers: dict[str, Callable[[], SplitSource]] = {}
    for name in cut:
        openers[name] = _opener(_Split(hub, found.record, name, found.splits[name]), folder, rows)
        openers[name] = _labelled(openers[name], labels)
    return FirstRows(whole | openers, cut)


@dataclass(frozen=True)
class _Split:
    hub: HubClient
    record: RepoRecord
    name: str
    paths: Sequence[str]


def _is_cut(sizes: Mapping[str, int], paths: Sequence[str]) -> bool:
    suffix = PurePosixPath(_first(sizes, paths)).suffix.lower()
    return sum(sizes[path] for path in paths) > WHOLE_BYTES and suffix in (*_LINES, ".parquet")


def _first(sizes: Mapping[str, int], paths: Sequence[str]) -> str:
    """Return the first file that holds something."""
    return next((path for path in paths if sizes[path]), paths[0])


def _labelled(
    opener: Callable[[], SplitSource], labels: Mapping[str, list[str]]
) -> Callable[[], SplitSource]:
    def open_() -> SplitSource:
        source = opener()
        return replace(source, label_names={**labels, **source.label_names})

    return open_


def _opener(split: _Split, folder: Path, rows: int) -> Callable[[], SplitSource]:
    def open_() -> SplitSource:
        path = _first(split.record.files, split.paths)
        # Under its own name: people are told of rows by file and line.
        file = folder / "first" / split.name / PurePosixPath(path).name
        file.parent.mkdir(parents=True, exist_ok=True)
        if file.suffix.lower() == ".parquet":
            _fetch_parquet(split, path, file, rows)
        else:
            _fetch_text(split, path, file)
        return open_files(split.name, [file])

    return open_


def _fetch_text(split: _Split, path: str, file: Path) -> None:
    record = split.record
    head = split.hub.read_head("dataset", record.id, path, record.sha, _HEAD_BYTES) or b""
    content = head_as_utf8(head)
    cut = len(head) >= _HEAD_BYTES
    file.write_bytes(content[: content.rfind(b"\n") + 1] if cut else content)


def _fetch_parquet(split: _Split, path: str, file: Path, rows: int) -> None:
    """Copy the first rows with their schema, fetched by range. Raises Refused (`bad_file`)."""
    record = split.record

    def read() -> None:
        with (
            split.hub.open("dataset", record.id, path, record.sha) as raw,
            pq.ParquetFile(raw, pre_buffer=False, buffer_size=1 << 20) as source,
            pq.ParquetWriter(file, source.schema_arrow) as target,
        ):
            left = rows
            for batch in source.iter_batches(batch_size=1000):
                target.write_batch(batch.slice(0, left))
                left -= batch.num_rows
                if left <= 0:
                    break

    try:
        split.hub.call(read, kind="dataset", repo=record.id, what=f"reading {path}")
    except (pa.ArrowException, ValueError, TypeError, OverflowError) as error:
        hint = "the file is damaged; choose another revision, or tell its owner"
        raise bad_parquet(f"dataset {record.id}: {path}", error, hint) from error
