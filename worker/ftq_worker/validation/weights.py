"""Are the weights there, in a format that can be loaded, and how many are they?"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from ftq_shared.errors import Refused
from ftq_worker.validation.files import ModelFiles, read_json

_SAFETENSORS = "model.safetensors"
_BIN = "pytorch_model.bin"
_LFS_POINTER = b"version https://git-lfs"
_MAX_HEADER_BYTES = 16 * 2**20
# More shards than this are not opened one by one only to count: the count is then left open.
_MAX_SHARDS = 16
# Per number; another kind is counted by its bytes alone.
_BITS = {"F64": 64, "I64": 64, "U64": 64, "F32": 32, "I32": 32, "U32": 32, "F16": 16, "BF16": 16}
_BITS |= {"I16": 16, "U16": 16, "I8": 8, "U8": 8, "BOOL": 8}
_OTHER_FORMATS = {
    ".gguf": "GGUF",
    ".onnx": "ONNX",
    ".h5": "TensorFlow",
    ".msgpack": "Flax",
    ".pth": "PyTorch checkpoint",
}


@dataclass(frozen=True)
class Weights:
    """The files that hold a model's weights."""

    files: tuple[str, ...]
    size_bytes: int
    parameters: int | None  # None while unknown
    pickled: bool  # .bin instead of safetensors
    names: frozenset[str] = frozenset()  # of the tensors; empty where nothing tells them


def read_weights(files: ModelFiles, known_parameters: int | None) -> Weights:
    """Return the weight files, safetensors before .bin. Raises Refused when there are none."""
    for single, pickled in ((_SAFETENSORS, False), (_BIN, True)):
        if found := _weight_files(files, single):
            size = sum(files.sizes[path] for path in found)
            _refuse_pointer(files, found[0])
            parameters = known_parameters or (None if pickled else _count(files, found))
            names = _names(files, single, found[0], pickled)
            return Weights(tuple(found), size, parameters, pickled, names)
    raise _no_weights(files)


def _weight_files(files: ModelFiles, single: str) -> list[str]:
    """Return the file `single`, or the shards that its index names; raises Refused for a gap."""
    if single in files.sizes:
        return [single]
    index = f"{single}.index.json"
    if index not in files.sizes:
        return []
    named = (read_json(files, index) or {}).get("weight_map") or {}
    if not isinstance(named, dict):
        raise _broken(files, index)
    shards = sorted(set(map(str, named.values())))
    if missing := [shard for shard in shards if shard not in files.sizes]:
        raise Refused(
            f"{files.name}: {index} names {len(missing)} files that are not there: {missing[0]}",
            code="weights_incomplete",
            hint="the upload or download was not finished; get the model again",
            file=missing[0],
        )
    return shards


def _names(files: ModelFiles, single: str, first: str, pickled: bool) -> frozenset[str]:
    """Return the names of the tensors: from the index, else from the header of the only file."""
    index = f"{single}.index.json"
    if single not in files.sizes:
        return frozenset((read_json(files, index) or {}).get("weight_map") or {})
    return frozenset() if pickled else frozenset(_header(files, first)) - {"__metadata__"}


def _refuse_pointer(files: ModelFiles, path: str) -> None:
    head = files.head(path, len(_LFS_POINTER)) or b""
    if head == _LFS_POINTER:
        raise Refused(
            f"{files.name}: {path} is a Git LFS pointer, not the weights",
            code="lfs_pointer",
            hint="fetch them with `git lfs pull`, or `hf download`",
            file=path,
        )


def _no_weights(files: ModelFiles) -> Refused:
    others = {
        name
        for suffix, name in _OTHER_FORMATS.items()
        if any(path.endswith(suffix) for path in files.sizes)
    }
    found = f"only {' and '.join(sorted(others))}" if others else "none"
    return Refused(
        f"{files.name} has no weights that can be loaded ({found} found)",
        code="no_weights",
        hint="ftq loads safetensors (model.safetensors or its shards) and pytorch_model.bin; "
        "name the original model, or convert it",
    )


def _count(files: ModelFiles, shards: Sequence[str]) -> int | None:
    """Return the number of parameters from the files' headers, None when they do not tell."""
    if len(shards) > _MAX_SHARDS:
        return None
    counts = [_count_file(files, shard) for shard in shards]
    return None if None in counts else sum(count for count in counts if count is not None)


def _count_file(files: ModelFiles, path: str) -> int | None:
    header = _header(files, path)
    length = int.from_bytes(files.head(path, 8) or b"", "little")
    try:
        tensors = [entry for name, entry in header.items() if name != "__metadata__"]
        if sum(map(_tensor_bytes, tensors)) != files.sizes[path] - 8 - length:
            raise ValueError("the header does not describe the rest of the file")
        return sum(int(prod(entry["shape"])) for entry in tensors)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _broken(files, path) from error


def _header(files: ModelFiles, path: str) -> dict[str, Any]:
    """Read a safetensors header: 8 bytes with its length, then JSON with every tensor's shape."""
    first = files.head(path, 8) or b""
    length = int.from_bytes(first, "little")
    if len(first) < 8 or not 2 <= length <= _MAX_HEADER_BYTES:
        raise _broken(files, path)
    try:
        header = json.loads((files.head(path, 8 + length) or b"")[8:])
    except (ValueError, RecursionError) as error:
        raise _broken(files, path) from error
    if not isinstance(header, dict):
        raise _broken(files, path)
    return header


def _tensor_bytes(entry: Mapping[str, Any]) -> int:
    """Return how many bytes a tensor takes. Raises ValueError when its header is at odds."""
    start, end = entry["data_offsets"]
    shape = entry["shape"]
    if not all(isinstance(size, int) and size >= 0 for size in (*shape, start, end - start)):
        raise ValueError("a size below nothing")
    bits = _BITS.get(entry["dtype"])
    if bits is not None and prod(shape) * bits != (end - start) * 8:
        raise ValueError("its shape does not fit its bytes")
    return int(end - start)


def _broken(files: ModelFiles, path: str) -> Refused:
    return Refused(
        f"{files.name}: {path} is no safetensors file",
        code="broken_weights",
        hint="the file is damaged or cut off; get the model again",
        file=path,
    )
