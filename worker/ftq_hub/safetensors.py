"""Parameter counts from the headers of safetensors files, read without the weights."""

import json
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import TypedDict

from ftq_hub.records import Commit
from ftq_hub.repo_files import RepoFiles

_SINGLE, _INDEX = "model.safetensors", "model.safetensors.index.json"
_MAX_HEADER_BYTES = 100_000_000  # what the format itself allows


class ParameterCounts(TypedDict):
    """What an info answer says of a model's weights."""

    parameters: dict[str, int]  # by dtype
    total: int


class _Tensor(TypedDict):
    """What the header of a safetensors file says of one tensor."""

    dtype: str
    shape: list[int]


@lru_cache(maxsize=1024)
def _header_counts(blob: Path) -> tuple[tuple[str, int], ...]:
    """Return parameters per dtype; nothing for a file that is not safetensors."""
    with blob.open("rb") as handle:
        length = int.from_bytes(handle.read(8), "little")
        if not 0 < length <= _MAX_HEADER_BYTES:
            return ()
        try:
            header: dict[str, _Tensor] = json.loads(handle.read(length))
        except ValueError:
            return ()
    counts: dict[str, int] = {}
    for name, tensor in header.items():
        if name != "__metadata__":
            counts[tensor["dtype"]] = counts.get(tensor["dtype"], 0) + prod(tensor["shape"])
    return tuple(sorted(counts.items()))


def parameter_counts(files: RepoFiles, commit: Commit) -> ParameterCounts | None:
    """Return how many parameters a model has, None without safetensors."""
    counts: dict[str, int] = {}
    for path in _weight_files(files, commit):
        if entry := commit.files.get(path):
            for dtype, count in _header_counts(files.blobs.path(entry.sha256)):
                counts[dtype] = counts.get(dtype, 0) + count
    return {"parameters": counts, "total": sum(counts.values())} if counts else None


def _weight_files(files: RepoFiles, commit: Commit) -> list[str]:
    if _SINGLE in commit.files:
        return [_SINGLE]
    if _INDEX not in commit.files:
        return ["adapter_model.safetensors"]
    blob = files.blobs.path(commit.files[_INDEX].sha256)
    try:
        index = json.loads(blob.read_text(encoding="utf-8"))
        return sorted(set(index["weight_map"].values()))
    except (ValueError, KeyError, AttributeError):
        return []
