"""What a dataset repo consists of: configs, their splits, the files of each.

Follows the rules of the datasets library (the card's `configs`, else splits by the names of
folders and files), from the file list alone: no download, and no import of datasets.
"""

import difflib
import re
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import PurePosixPath

from ftq_shared.dataset_files import RECORDS, UnreadFile, sort_files
from ftq_shared.errors import Refused
from ftq_shared.hub.records import RepoRecord

DEFAULT = "default"
_KEYWORDS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "dev", "val"),
    "test": ("test", "testing", "eval", "evaluation"),
}
# Keys of a config that say where its files are; the others say how they are read (sep, field ...).
_PLACE_KEYS = frozenset({"config_name", "data_files", "data_dir", "default", "drop_labels"})
_NOT_DATA_SUFFIXES = (".md", ".py", ".yaml", ".yml", ".gitattributes", ".gitignore", ".lock")
_SAVED = "dataset_dict.json"  # what `DatasetDict.save_to_disk` writes beside a folder a split
_SHARD = re.compile(r"^data/(?P<split>\w+(?:\.\w+)*)-\d{5}-of-\d{5}(?:-\w+)?\.\w+$")


@dataclass(frozen=True)
class Split:
    """One split of one config."""

    files: tuple[str, ...]  # paths in the repo, in order
    rows: int | None = None  # where the card tells
    columns: tuple[str, ...] = ()  # where the card tells


@dataclass(frozen=True)
class Layout:
    """All configs of a dataset."""

    configs: Mapping[str, Mapping[str, Split]] = field(default_factory=dict)
    options: Mapping[str, Mapping[str, object]] = field(default_factory=dict)  # of the file reader
    default: str | None = None  # what is meant without a name; None: a name is needed
    unread: tuple[UnreadFile, ...] = ()  # files that are in no split of any config

    @property
    def names(self) -> list[str]:
        return list(self.configs)


def layout(dataset: RepoRecord) -> Layout:
    """Return the configs and splits of a dataset; no configs when it holds no data files."""
    paths = [path for path in sorted(dataset.files) if _is_data(path)]
    entries = [entry for entry in _listed(dataset.card.get("configs")) if entry.get("config_name")]
    infos = _infos(dataset.card)
    if not entries and _SAVED in dataset.files:
        splits = _described(_saved(paths), infos.get(DEFAULT, {}))
        return Layout({DEFAULT: splits}, default=DEFAULT, unread=_unread(dataset, [splits]))
    if not entries:
        # Without `configs` in the card the folder is one config, named by a lone dataset_info.
        name = next(iter(infos)) if len(infos) == 1 else DEFAULT
        splits = _described(_by_name(paths), infos.get(name, {}))
        unread = _unread(dataset, [splits])
        if not splits:
            return Layout(unread=unread)
        return Layout({name: splits}, default=name, unread=unread)
    configs, options = {}, {}
    for entry in entries:
        name = str(entry["config_name"])
        configs[name] = _described(_of_config(entry, paths), infos.get(name, {}))
        options[name] = {key: entry[key] for key in entry.keys() - _PLACE_KEYS}
    unread = _unread(dataset, list(configs.values()))
    return Layout(configs, options, _default(entries), unread)


def no_config(repo: str, asked: str | None, names: list[str], revision: str | None) -> Refused:
    """Return the refusal of a config that is not there, or that has to be named.

    `nearest` holds values of `dataset`, as they are to be written.
    """
    at = f"@{revision}" if revision else ""
    near = difflib.get_close_matches(asked, names, n=1, cutoff=0.3) if asked else []
    values = [f"{repo}:{name}{at}" for name in [*near, *(n for n in names if n not in near)]]
    listed = ", ".join(names)
    if asked is None:
        message = f"dataset {repo} has {len(names)} configs and none is named: {listed}"
    else:
        message = f"dataset {repo} has no config {asked!r}; it has {listed or 'none'}"
    return Refused(
        message,
        code="config_missing" if asked is None else "no_such_config",
        hint=f"choose one, for example --set dataset={shlex.quote(values[0])}" if values else "",
        field="dataset",
        nearest=values,
    )


def _unread(dataset: RepoRecord, configs: Iterable[Mapping[str, Split]]) -> tuple[UnreadFile, ...]:
    """Return the files that no config uses and that are not known to stand beside data."""
    used = {path for splits in configs for split in splits.values() for path in split.files}
    rest = sort_files([path for path in dataset.files if path not in used])
    unused = [UnreadFile(path, "is in no split", is_data=True) for path in rest.read if used]
    return (*unused, *rest.unread)


def _saved(paths: list[str]) -> dict[str, tuple[str, ...]]:
    """Return the files of a saved DatasetDict: each split has a folder of its name."""
    splits: dict[str, list[str]] = {}
    for path in paths:
        if path.endswith(".arrow") and path.count("/") == 1 and "/data-" in path:
            splits.setdefault(path.split("/")[0], []).append(path)
    return _ordered(splits)


def _default(entries: list[dict[str, object]]) -> str | None:
    named = [str(entry["config_name"]) for entry in entries]
    marked = [str(entry["config_name"]) for entry in entries if entry.get("default")]
    if marked:
        return marked[0]
    if len(named) == 1:
        return named[0]
    return DEFAULT if DEFAULT in named else None


def _is_data(path: str) -> bool:
    parts = PurePosixPath(path).parts
    hidden = any(part.startswith((".", "__")) for part in parts)
    return not hidden and parts[-1] not in RECORDS and not path.endswith(_NOT_DATA_SUFFIXES)


def _listed(value: object) -> list[dict[str, object]]:
    """Return a card's value as a list of mappings, whatever it was written as."""
    items = value if isinstance(value, list) else [value]
    return [dict(item) for item in items if isinstance(item, Mapping)]


def _infos(card: Mapping[str, object]) -> dict[str, dict[str, object]]:
    return {
        str(info.get("config_name", DEFAULT)): info for info in _listed(card.get("dataset_info"))
    }


def _described(
    files: Mapping[str, tuple[str, ...]], info: Mapping[str, object]
) -> dict[str, Split]:
    rows = {
        str(split.get("name")): count
        for split in _listed(info.get("splits"))
        if isinstance(count := split.get("num_examples"), int)
    }
    columns = tuple(
        str(feature["name"]) for feature in _listed(info.get("features")) if "name" in feature
    )
    return {name: Split(paths, rows.get(name), columns) for name, paths in files.items()}


def _of_config(entry: Mapping[str, object], paths: list[str]) -> dict[str, tuple[str, ...]]:
    """Return the files per split of one entry of the card's `configs`."""
    base = str(entry.get("data_dir") or "").strip("./")
    data_files = entry.get("data_files")
    if data_files is None:
        inside = [path for path in paths if path.startswith(f"{base}/")] if base else paths
        return _by_name(inside, base)
    splits: dict[str, list[str]] = {}
    for split, pattern in _patterns(data_files):
        full = f"{base}/{pattern}" if base else pattern
        for path in _matching(full, paths):
            if path not in splits.setdefault(split, []):
                splits[split].append(path)
    return {split: _readable(found) for split, found in splits.items() if found}


def _readable(paths: list[str]) -> tuple[str, ...]:
    """Return the files that ftq reads, in order; where there are none, all."""
    read = set(sort_files(paths).read)
    return tuple(path for path in paths if path in read or not read)


def _patterns(data_files: object) -> Iterable[tuple[str, str]]:
    """Yield (split, pattern) of every way in which the card may write data_files."""
    items = data_files if isinstance(data_files, list) else [data_files]
    for item in items:
        if isinstance(item, str):
            yield "train", item
        elif isinstance(item, Mapping) and "path" in item:
            given = item["path"] if isinstance(item["path"], list) else [item["path"]]
            yield from ((str(item.get("split", "train")), str(pattern)) for pattern in given)
        elif isinstance(item, Mapping):
            for split, pattern in item.items():
                for one in pattern if isinstance(pattern, list) else [pattern]:
                    yield str(split), str(one)


def _matching(pattern: str, paths: list[str]) -> list[str]:
    fits = _glob(pattern.removeprefix("./"))
    return [path for path in paths if fits.match(path)]


@lru_cache(maxsize=256)
def _glob(pattern: str) -> re.Pattern[str]:
    """Translate a glob: `**` crosses folders, `*` and `?` do not."""
    words = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    parts = re.split(r"(\*\*/|\*\*|\*|\?|\[[^\]]+\])", pattern)
    text = "".join(
        words.get(part, part if part.startswith("[") else re.escape(part)) for part in parts
    )
    return re.compile(rf"^{text}$")


def _by_name(paths: list[str], base: str = "") -> dict[str, tuple[str, ...]]:
    """Return the splits that names tell: shards, then folders, then files, else all is train.

    Of kinds that ftq does not read there are only files where nothing else is.
    """
    paths = sort_files(paths).read or paths
    inner = {path: path.removeprefix(f"{base}/") if base else path for path in paths}
    sharded: dict[str, list[str]] = {}
    for path, name in inner.items():
        if shard := _SHARD.match(name):
            sharded.setdefault(shard["split"], []).append(path)
    if sharded:
        return _ordered(sharded)
    for look in (_folder_split, _file_split):
        found: dict[str, list[str]] = {}
        for path, name in inner.items():
            if split := look(name):
                found.setdefault(split, []).append(path)
        if found:
            return _ordered(found)
    return {"train": tuple(paths)} if paths else {}


def _ordered(splits: Mapping[str, list[str]]) -> dict[str, tuple[str, ...]]:
    """Return train, validation and test first, as people expect them."""
    names = [name for name in _KEYWORDS if name in splits]
    names += [name for name in splits if name not in names]
    return {name: tuple(sorted(splits[name])) for name in names}


def _folder_split(path: str) -> str | None:
    for part in PurePosixPath(path).parts[:-1]:
        if split := _keyword(part):
            return split
    return None


def _file_split(path: str) -> str | None:
    return _keyword(PurePosixPath(path).name)


def _keyword(name: str) -> str | None:
    """Return the split whose keyword stands in a name as a word of its own."""
    words = re.split(r"[-._ 0-9]+", name.lower())
    for split, keywords in _KEYWORDS.items():
        if any(keyword in words for keyword in keywords):
            return split
    return None
