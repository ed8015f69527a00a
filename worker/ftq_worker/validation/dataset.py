"""The dataset: is it there, which config and splits does it have, what do its rows look like?"""

import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from ftq_shared.dataset_files import (
    UNREAD_LIST,
    UnreadFile,
    base_name,
    count_files,
    grouped,
    listed,
    unread_from_json,
)
from ftq_shared.errors import Refused, input_lost
from ftq_shared.hub import HubClient, RepoRecord, layout
from ftq_shared.hub.layout import Split, no_config
from ftq_shared.sources import READ_KINDS, Place, Source, is_data_name
from ftq_shared.spec import JobSpec
from ftq_worker.data.chosen_files import ChosenFiles, choose_files
from ftq_worker.data.split_sources import no_split, split_files
from ftq_worker.host.data_roots import inner_files
from ftq_worker.job.auto import auto_rule
from ftq_worker.job.context import PhaseContext
from ftq_worker.validation import rows

_VALIDATION_NAMES = ("validation", "valid", "val", "dev")
_TEST_NAMES = ("test", "testing")

_HIVE = re.compile(r"([A-Za-z_]\w*)=.*")  # a folder that holds the value of a column
_SHARD = re.compile(r"([^/]*)-\d{5}-of-(\d{5})\b")  # as `datasets` names the parts of a split


@dataclass(frozen=True)
class FoundDataset:
    """A dataset before its rows are looked at."""

    place: Place
    name: str  # Hub id, or where its files lie
    splits: Mapping[str, Sequence[str]]  # files per split: paths in the repo, or on disk
    rows: Mapping[str, int | None]  # per split, where something tells
    size_bytes: int
    config: str | None = None
    record: RepoRecord | None = None  # Hub only
    has_options: bool = False  # the card says how its files are to be read
    columns: tuple[str, ...] = ()  # where the card tells
    files: list[str] = field(default_factory=list)  # on disk: all of them
    unread: list[UnreadFile] = field(default_factory=list)  # files beside them that are not used


@dataclass(frozen=True)
class ChosenSplits:
    """The splits that the job uses."""

    train: str
    validation: str | None  # None: rows are held out
    test: str | None  # None: the golden set comes from the training rows


def find_dataset(ctx: PhaseContext, hub: HubClient, source: Source) -> tuple[FoundDataset, str]:
    """Return the dataset and what to say about it; pins a Hub dataset to its commit.

    Raises Refused when it is not there, empty, of no known format, or needs a config's name.
    """
    if source.place is Place.HUB:
        found, words = _on_hub(hub.dataset_info(source.name, source.revision), source)
    else:
        found, words = _on_disk(ctx, source)
    if found.unread:
        number = count_files(found.unread)
        ctx.warn(
            f"{number:,} file{'s' * (number > 1)} of {found.name} not used: "
            + listed(found.unread),
            hint=f"where rows are in it, convert it to one of {READ_KINDS}"
            if any(file.is_data for file in found.unread)
            else "",
        )
    return found, words


def _on_hub(record: RepoRecord, source: Source) -> tuple[FoundDataset, str]:
    parts = layout(record)
    config = source.config or parts.default
    if not any(parts.configs.values()) or (
        _scripts(record) and not any(map(is_data_name, _paths(parts.configs)))
    ):
        raise _no_data(record)
    if config is None or config not in parts.configs:
        raise no_config(record.id, source.config, parts.names, source.revision)
    splits = parts.configs[config]
    files = {name: split.files for name, split in splits.items()}
    found = FoundDataset(
        place=Place.HUB,
        name=record.id,
        splits=files,
        rows={name: split.rows for name, split in splits.items()},
        size_bytes=sum(record.files[path] for paths in files.values() for path in paths),
        config=config,
        record=record,
        has_options=bool(parts.options.get(config)),
        columns=next((split.columns for split in splits.values()), ()),
        unread=list(parts.unread),
    )
    named = f" config {config}" if len(parts.configs) > 1 else ""
    return found, f"{record.id}{named} at commit {record.sha[:12]}"


def _paths(configs: Mapping[str, Mapping[str, Split]]) -> Iterator[str]:
    """Yield the files of all configs."""
    for splits in configs.values():
        for split in splits.values():
            yield from split.files


def _scripts(record: RepoRecord) -> list[str]:
    return [path for path in record.files if path.endswith(".py") and "/" not in path]


def _no_data(record: RepoRecord) -> Refused:
    if scripts := _scripts(record):
        return Refused(
            f"dataset {record.id} is a loading script ({scripts[0]}), which is never run",
            code="dataset_script",
            hint="look for a copy with data files (parquet), for example `ftq search datasets "
            f"{record.id.rpartition('/')[2]}`, or revision refs/convert/parquet",
        )
    names = sorted(path for path in record.files if not path.startswith("."))
    found = f"; it has {', '.join(names[:5])}{' ...' * (len(names) > 5)}" if names else ""
    return Refused(
        f"dataset {record.id} holds no data files{found}",
        code="empty_dataset",
        hint=f"ftq reads {READ_KINDS}",
        field="dataset",
    )


def _on_disk(ctx: PhaseContext, source: Source) -> tuple[FoundDataset, str]:
    chosen = find_files(ctx, source)
    paths = chosen.files
    for path in paths:
        if not os.access(path, os.R_OK):
            raise Refused(
                f"dataset: {path.name} cannot be read: permission denied",
                code="unreadable_file",
                hint="the user that runs `ftq worker` must be able to read it",
                file=path.name,
            )
    splits = {name: [str(path) for path in part] for name, part in split_files(paths).items()}
    found = FoundDataset(
        place=source.place,
        name=source.name,
        splits=splits,
        rows=dict.fromkeys(splits),
        size_bytes=sum(path.stat().st_size for path in paths),
        files=[str(path) for path in paths],
        unread=chosen.unread,
    )
    names = ", ".join(path.name for path in paths[:3]) + (" ..." if len(paths) > 3 else "")
    return found, f"{len(paths)} file{'s' * (len(paths) > 1)}: {names}"


def find_files(ctx: PhaseContext, source: Source) -> ChosenFiles:
    """Return the files of a path, folder or glob; raises Refused when none of them is read."""
    if source.place is Place.CLIENT:
        given = inner_files(ctx.paths.inputs / "dataset")
    else:
        given = ctx.data_roots.files(source.name)
    chosen = choose_files(given.files, given.unread)
    if source.place is Place.CLIENT:
        chosen.unread.extend(_left_behind(ctx.paths.inputs / "dataset" / UNREAD_LIST))
    if chosen.files:
        return ChosenFiles(chosen.files, grouped(chosen.unread))
    if given.files or chosen.unread:
        other = ", ".join(sorted({path.suffix or path.name for path in given.files})[:5])
        raise Refused(
            f"dataset: {source.name} holds no file of a kind that ftq reads"
            f" (found {listed(chosen.unread) or other})",
            code="data_format",
            hint=f"convert it to one of {READ_KINDS}",
            field="dataset",
        )
    where = "on this worker" if source.place is Place.WORKER else "among the files that were sent"
    raise Refused(
        f"dataset: there is no {source.name} {where}",
        code="no_such_dataset",
        hint="worker:/path must exist on every worker; without worker: it is a path of yours"
        if source.place is Place.WORKER
        else "check the path, and submit the job again",
        field="dataset",
    )


def _left_behind(path: Path) -> list[UnreadFile]:
    """Return what of the client's folder did not travel. Raises FtqError (`input_lost`)."""
    try:
        return unread_from_json(path.read_bytes())
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        raise input_lost(path.name, f"is damaged: {error}") from error


@auto_rule(
    "data.test", "the dataset's test split, else golden rows are taken from the training rows"
)
def choose_splits(spec: JobSpec, found: FoundDataset) -> tuple[ChosenSplits, str]:
    """Return the splits to use; raises Refused (`no_split`) with those that exist."""
    names = list(found.splits)
    train = _require(names, spec.data.split, "data.split")
    validation = _optional(names, spec.data.validation, "data.validation", _VALIDATION_NAMES, train)
    test = _optional(names, spec.data.test, "data.test", _TEST_NAMES, train)
    listed = ", ".join(f"{name} ({rows.count(found.rows.get(name))})" for name in names)
    uses = f"trains on {train}, validates on {validation or 'held-out rows'}, "
    uses += f"golden set from {test or train}"
    return ChosenSplits(train, validation, test), f"{listed}; {uses}"


def check_files(ctx: PhaseContext, found: FoundDataset, used: ChosenSplits) -> tuple[None, str]:
    """Return what of the dataset is not used.

    Raises Refused: `missing_files` where parts of a split are not there, `unread_files` for own
    files.

    A person's own folder is meant as a whole. A repo on the Hub often holds more than one use, and
    so does a saved dataset; a file that became a split by its own name was meant as rows.
    """
    data = ctx.spec.data
    usual = {"validation": _VALIDATION_NAMES, "test": _TEST_NAMES}
    declined = {
        n for field, names in usual.items() if getattr(data, field) == "none" for n in names
    }
    left = set(found.splits) - {used.train, used.validation, used.test} - declined
    files = [path for split in sorted(left) for path in found.splits[split]]
    unread = [file for file in found.unread if file.is_data]
    named = [Path(path).name for path in files if base_name(Path(path).name) in left]
    mine = ", ".join(filter(None, (listed(unread), _some(named))))
    if mine and found.record is None and "unread_files" not in data.allow:
        count = count_files(unread) + len(named)
        raise Refused(
            f"{count:,} of the files of {found.name} would not be used: {mine}",
            code="unread_files",
            hint="name the files that are meant with --dataset, or convert what is not read; to go"
            " on without them: --set data.allow=unread_files",
            field="dataset",
        )
    _tell_missing_shards(ctx, found, used)
    if left:
        ctx.warn(
            f"splits that are not used: {_some(sorted(left))}",
            hint=f"to train on another one: --set data.split={min(left)}",
        )
    return None, f"not used: {mine or _some(sorted(left))}" if mine or left else "all are used"


def _tell_missing_shards(ctx: PhaseContext, found: FoundDataset, used: ChosenSplits) -> None:
    """Raise Refused (`missing_files`), or warn where allowed, of parts that are not there."""
    mine = [name for name in found.splits if name in (used.train, used.validation, used.test)]
    parts = [_SHARD.search(path) for split in mine for path in found.splits[split]]
    there = Counter((part[1], int(part[2])) for part in parts if part)
    missing = [f"{count} of {total} parts of {name}" for (name, total), count in there.items()
               if count < total]  # fmt: skip
    if not missing:
        return
    what = f"only {_some(missing)} are there"
    if "unread_files" not in ctx.spec.data.allow:
        how = "add the other files" if found.record is None else "choose another revision"
        raise Refused(
            f"{found.name}: {what}",
            code="missing_files",
            hint=f"{how}; to go on without them: --set data.allow=unread_files",
            field="dataset",
        )
    ctx.warn(what)


def _some(names: Sequence[str], most: int = 5) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most:,} more" if names[most:] else "")


def _require(names: list[str], name: str, field_name: str) -> str:
    if name in names:
        return name
    raise no_split(name, names, field_name)


def _optional(
    names: list[str], wanted: str, field_name: str, usual: tuple[str, ...], train: str
) -> str | None:
    if wanted == "none":
        return None
    if wanted != "auto":
        return _require(names, wanted, field_name)
    return next((name for name in usual if name in names and name != train), None)


def look_at_rows(hub: HubClient, found: FoundDataset, split: str) -> tuple[rows.Head, str]:
    """Return the first rows of a split; raises Refused when there are none that can be read."""
    if found.record is not None:
        part = rows.HubSplit(found.record, found.config, split, found.splits[split])
        head = rows.read_hub(hub, part, found.columns, plain=not found.has_options)
    else:
        head = rows.read_disk(split, [Path(path) for path in found.splits[split]])
    if head.rows_in_split == 0 or not (head.values or head.columns):
        raise Refused(
            f"the split {split} of {found.name} is empty",
            code="empty_dataset",
            hint="check the file, or name another split with data.split",
            field="data.split",
        )
    return head, f"columns {', '.join(head.columns)}"


def refuse_folder_labels(found: FoundDataset, split: str) -> None:
    """Raise Refused (`folder_labels`) where the names of folders seem to be the labels of texts.

    `pos/1.txt` beside `neg/2.txt`, or `label=pos/part.parquet`: no reader writes them into rows.
    """
    paths = [PurePosixPath(path) for path in found.splits[split]]
    names = sorted({path.parent.name for path in paths})
    kinds = {re.sub(r"\d+", "", name) for name in names}  # part1 and part2 are of one kind
    if len(kinds) < 2 or len({len(path.parts) for path in paths}) > 1:
        return
    raise Refused(
        f"the files lie in folders named {_some(names)}: are these the labels of their texts? Names"
        " of folders are not read",
        code="folder_labels",
        hint="write them into the rows, for example as .jsonl with text and label; to train the"
        " texts alone: --set task=text",
        field="dataset",
    )


def unread_folder_columns(found: FoundDataset, split: str, columns: Sequence[str]) -> list[str]:
    """Return the columns that only names of folders hold, as in `lang=en/part.parquet`."""
    parts = {part for path in found.splits[split] for part in PurePosixPath(path).parent.parts}
    named = [match for part in parts if (match := _HIVE.fullmatch(part))]
    values = Counter(match[1] for match in named)
    return sorted(name for name, count in values.items() if count > 1 and name not in columns)


def total_rows(found: FoundDataset, split: str, head: rows.Head) -> dict[str, int | None]:
    """Return the rows per split, as far as they are known without reading everything."""
    known = dict(found.rows)
    if known.get(split) is None:
        known[split] = head.rows_in_split
    return known
