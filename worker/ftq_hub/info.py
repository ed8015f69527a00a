"""The JSON that the Hub's info, tree and search endpoints answer with."""

import json
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import NotRequired, TypedDict

from ftq_hub import card, safetensors
from ftq_hub.files import pointer_text
from ftq_hub.records import Commit, FileEntry, Repo, RepoType
from ftq_hub.repo_files import RepoFiles, dir_paths


class _Sibling(TypedDict):
    """A file in the list of an info answer; all but the name only when `blobs` are asked for."""

    rfilename: str
    size: NotRequired[int]
    blobId: NotRequired[str]
    lfs: NotRequired[dict[str, str | int]]  # as `_lfs` makes it


class PathRow(TypedDict):
    """A file or folder as tree and paths-info answer it."""

    type: str  # file or directory
    oid: str
    size: int
    path: str
    lfs: NotRequired[dict[str, str | int]]  # as `_lfs` makes it
    xetHash: NotRequired[str]  # for a large file
    lastCommit: NotRequired[dict[str, str]]  # with `expand`: the commit that last changed the path
    securityFileStatus: NotRequired[dict[str, str | None]]  # with `expand`, for a large file


class RepoInfo:
    """One repo at one commit; every property is computed only when it is asked for.

    A property is what an answer holds under one name: `_PROPERTIES` has them all.
    """

    def __init__(self, repo: Repo, files: RepoFiles, commit: Commit) -> None:
        self.repo, self.files, self.commit = repo, files, commit
        self._card: dict[str, object] | None = None

    def card(self) -> dict[str, object]:
        """Return the README's front matter; empty without one."""
        if self._card is None:
            self._card = _card(self.text("README.md"))
        return self._card

    def text(self, path: str) -> str:
        return self.files.text(self.commit, path)

    def full(self, *, blobs: bool = False) -> dict[str, object]:
        """Return everything that info endpoints answer without `expand`."""
        names = [name for name in _PROPERTIES if name not in _EXPAND_ONLY]
        return self.base() | self._some(names) | {"siblings": self.siblings(blobs)}

    def listed(self, *, full: bool) -> dict[str, object]:
        """Return what a search answers for each repo."""
        names = _LISTED if not full else [*_LISTED, "sha", "lastModified", "cardData", "siblings"]
        return self.base() | self._some(names)

    def expanded(self, names: Iterable[str]) -> dict[str, object]:
        """Return the id and only the properties that were asked for; unknown ones are absent."""
        return self.base() | self._some(names)

    def base(self) -> dict[str, object]:
        model = {"modelId": self.repo.id} if self.repo.type is RepoType.MODEL else {}
        return {"_id": self.commit.sha[:24], "id": self.repo.id, **model}

    def siblings(self, blobs: bool) -> list[_Sibling]:
        """Return the file list, with sizes and hashes when `blobs`."""
        return [_sibling(path, entry, blobs) for path, entry in sorted(self.commit.files.items())]

    def tags(self) -> list[str]:
        """Return the tags a search filters by."""
        tags = card.card_tags(self.card())
        if any(path.endswith(".safetensors") for path in self.commit.files):
            tags.append("safetensors")
        if model_type := self.config().get("model_type"):
            tags.append(str(model_type))
        return list(dict.fromkeys(tags))

    def config(self) -> dict[str, object]:
        """Return the part of config.json that the Hub shows; empty for datasets."""
        try:
            config = json.loads(self.text("config.json") or "{}")
        except ValueError:
            return {}
        keys = ("architectures", "model_type", "auto_map", "quantization_config")
        return {key: config[key] for key in keys if isinstance(config, dict) and key in config}

    def _some(self, names: Iterable[str]) -> dict[str, object]:
        known = [name for name in names if name in _PROPERTIES]
        if self.repo.type is RepoType.DATASET:
            known = [name for name in known if name not in _MODEL_ONLY]
        values = {name: _PROPERTIES[name](self) for name in known}
        return {name: value for name, value in values.items() if value is not None}


@lru_cache(maxsize=1024)
def _card(readme: str) -> dict[str, object]:
    """Every search looks at every card: each is parsed once. Callers must not change it."""
    return card.card_data(readme)


_PROPERTIES: dict[str, Callable[[RepoInfo], object]] = {
    "author": lambda info: info.repo.namespace,
    "cardData": lambda info: info.card() or None,
    "config": lambda info: info.config() or None,
    "createdAt": lambda info: info.repo.created_at,
    "disabled": lambda info: False,
    "downloads": lambda info: info.repo.downloads,
    "downloadsAllTime": lambda info: info.repo.downloads,
    "gated": lambda info: info.repo.gated,
    "lastModified": lambda info: info.commit.date,
    "library_name": lambda info: info.card().get("library_name"),
    "likes": lambda info: 0,
    "pipeline_tag": lambda info: info.card().get("pipeline_tag"),
    "private": lambda info: info.repo.private,
    "safetensors": lambda info: safetensors.parameter_counts(info.files, info.commit),
    "sha": lambda info: info.commit.sha,
    "siblings": lambda info: info.siblings(blobs=False),
    "tags": lambda info: info.tags(),
    "trendingScore": lambda info: 0,
    "usedStorage": lambda info: sum(entry.size for entry in info.commit.files.values()),
}
_MODEL_ONLY = {"config", "library_name", "pipeline_tag", "safetensors"}
_EXPAND_ONLY = {"downloadsAllTime", "trendingScore", "siblings"}
_LISTED = ["author", "createdAt", "downloads", "gated", "lastModified", "library_name", "likes"]
_LISTED += ["pipeline_tag", "private", "tags", "trendingScore"]


def _lfs(entry: FileEntry, key: str) -> dict[str, str | int]:
    pointer = len(pointer_text(entry.sha256, entry.size))
    return {key: entry.sha256, "size": entry.size, "pointerSize": pointer}


def _sibling(path: str, entry: FileEntry, blobs: bool) -> _Sibling:
    if not blobs:
        return {"rfilename": path}
    row: _Sibling = {"rfilename": path, "size": entry.size, "blobId": entry.oid}
    if entry.lfs:
        row["lfs"] = _lfs(entry, "sha256")
    return row


def _file_row(path: str, entry: FileEntry) -> PathRow:
    row: PathRow = {"type": "file", "oid": entry.oid, "size": entry.size, "path": path}
    if entry.lfs:
        row["lfs"] = _lfs(entry, "oid")
        row["xetHash"] = entry.xet_hash
    return row


def path_rows(
    files: RepoFiles, commit: Commit, paths: Iterable[str], *, expand: bool
) -> list[PathRow]:
    """Return files and folders by path; what does not exist is left out."""
    folders = dir_paths(commit.files)
    rows: list[PathRow] = []
    for path in paths:
        if path in commit.files:
            rows.append(_file_row(path, commit.files[path]))
        elif path in folders:  # its id only has to be stable
            rows.append({"type": "directory", "oid": commit.sha, "size": 0, "path": path})
    for row in rows if expand else ():
        _expand(row, files, commit)
    return rows


def tree_paths(commit: Commit, folder: str, recursive: bool) -> list[str] | None:
    """Return the paths below a folder ("" is the root), None when there is no such folder."""
    folders = dir_paths(commit.files)
    if folder and folder not in folders:
        return None
    start = f"{folder}/" if folder else ""
    found = sorted(path for path in (*folders, *commit.files) if path.startswith(start))
    return found if recursive else [path for path in found if "/" not in path[len(start) :]]


def _expand(row: PathRow, files: RepoFiles, commit: Commit) -> None:
    """Add what `expand` asks for: the commit that last changed a path, and a scan result."""
    newest = commit
    for older in files.history(commit.sha):
        if _state(older, row["path"]) != _state(commit, row["path"]):
            break
        newest = older
    row["lastCommit"] = {"id": newest.sha, "title": newest.title, "date": newest.date}
    if "lfs" in row:
        scan = {"status": "unscanned", "avScan": None, "pickleImportScan": None}
        row["securityFileStatus"] = scan


def _state(commit: Commit, path: str) -> object:
    if path in commit.files:
        return commit.files[path]
    start = f"{path}/"
    return {name: entry for name, entry in commit.files.items() if name.startswith(start)}
