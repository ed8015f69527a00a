"""Are the weights there, in a format that can be loaded, and how many are they?"""

import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from math import prod
from typing import Any

from ftq_shared.errors import Refused
from ftq_worker.validation.files import ModelFiles, read_json

_SAFETENSORS = "model.safetensors"
_BIN = "pytorch_model.bin"
_LFS_POINTER = b"version https://git-lfs"
_MAX_HEADER_BYTES = 64 * 2**20
_FIRST_BYTES = 128 * 2**10  # hold the header of most files, so that one request is enough
_AT_ONCE = 8  # headers that are read
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


# Kinds that numbers are trained in; another kind is what quantization left, scaled elsewhere.
_FLOATS = ("F64", "F32", "F16", "BF16")


@dataclass(frozen=True)
class Tensor:
    """A tensor as the header of its file describes it."""

    dtype: str  # as safetensors names it: BF16
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Weights:
    """The files that hold a model's weights."""

    files: tuple[str, ...]
    size_bytes: int
    parameters: int | None  # None while unknown
    pickled: bool  # .bin instead of safetensors
    tensors: Mapping[str, Tensor] = field(default_factory=dict)  # empty for .bin
    names: frozenset[str] = frozenset()  # of the tensors; empty where nothing tells them


def read_weights(files: ModelFiles, known_parameters: int | None) -> Weights:
    """Return the weight files, safetensors before .bin.

    Raises Refused when there are none, when one is damaged, and `quantized`.
    """
    for single, pickled in ((_SAFETENSORS, False), (_BIN, True)):
        if found := _weight_files(files, single):
            size = sum(files.sizes[path] for path in found)
            _refuse_pointer(files, found[0])
            if pickled:
                return Weights(tuple(found), size, known_parameters, pickled, names=_named(files))
            # All at once: a Hub answers each in its own time, and some models have 100 shards.
            with ThreadPoolExecutor(_AT_ONCE) as pool:
                parts = list(pool.map(lambda path: _tensors(files, path), found))
            tensors = {name: tensor for part in parts for name, tensor in part.items()}
            _refuse_quantized(files, tensors)
            count = sum(prod(tensor.shape) for tensor in tensors.values())
            return Weights(tuple(found), size, count, pickled, tensors, frozenset(tensors))
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


def _named(files: ModelFiles) -> frozenset[str]:
    """Return the names of the tensors that the index of .bin files gives."""
    return frozenset((read_json(files, f"{_BIN}.index.json") or {}).get("weight_map") or {})


def _refuse_quantized(files: ModelFiles, tensors: Mapping[str, Tensor]) -> None:
    """Refuse weights that are no plain numbers; config.json does not always say so."""
    found = {
        name: tensor.dtype
        for name, tensor in tensors.items()
        if tensor.dtype not in _FLOATS and len(tensor.shape) > 1 and name.endswith("weight")
    }
    if found:
        name, dtype = next(iter(found.items()))
        raise Refused(
            f"{files.name} is quantized: {len(found):,} of its weights are {dtype}, for example "
            f"{name}; they cannot be trained",
            code="quantized",
            hint="name the original model (BF16, F16 or F32); train.method qlora quantizes it "
            "while training",
        )


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


def _tensors(files: ModelFiles, path: str) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file; raises Refused where its header is at odds.

    The header: 8 bytes with its length, then JSON with every tensor's kind, shape and place.
    """
    head = files.head(path, _FIRST_BYTES) or b""
    end = 8 + int.from_bytes(head[:8], "little")
    if not 10 <= end <= _MAX_HEADER_BYTES:
        raise _broken(files, path)
    if len(head) < end:
        head = files.head(path, end) or b""
    try:
        header = json.loads(head[8:end])
        header.pop("__metadata__", None)
        if sum(map(_tensor_bytes, header.values())) != files.sizes[path] - end:
            raise ValueError("the header does not describe the rest of the file")
        return {name: Tensor(it["dtype"], tuple(it["shape"])) for name, it in header.items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _broken(files, path) from error


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
