"""Is there room for the job?"""

import shutil
from collections.abc import Mapping
from pathlib import Path

from ftq_shared.errors import Refused
from ftq_shared.spec import JobSpec
from ftq_worker.validation.dataset import FoundDataset
from ftq_worker.validation.weights import Weights

# Prepared data: Arrow with texts and token ids, for the sets before and after cleaning.
_PREPARED = 3
# A checkpoint of a full fine-tune holds weights and both Adam moments in float32: two are kept
# while a third is written, and of the best evaluation the weights, the old beside the new.
_FULL_CHECKPOINTS_BYTES = 3 * 12 + 2 * 4
# An adapter and its optimizer stay below this share of the weights.
_LORA_SHARE = 0.2
_GB = 1e9


def space_needed(
    spec: JobSpec, weights: Weights, data: FoundDataset, full: bool
) -> tuple[int, int]:
    """Return the bytes that the storage and the Hub cache will take, an estimate."""
    parameters = weights.parameters or weights.size_bytes // 2
    checkpoints = (
        parameters * _FULL_CHECKPOINTS_BYTES if full else int(weights.size_bytes * _LORA_SHARE)
    )
    result = parameters * 4 if full or spec.publish.format == "merged" else 0
    return data.size_bytes * _PREPARED + checkpoints + result, weights.size_bytes + data.size_bytes


def check_disk(needs: Mapping[Path, int]) -> tuple[None, str]:
    """Return a message when every place has room; places on one disk are added up.

    Raises Refused (`disk_full`) with what is free and what is needed.
    """
    by_disk: dict[int, tuple[Path, int]] = {}
    for path, size_bytes in needs.items():
        at = _existing(path)
        first, sum_bytes = by_disk.get(at.stat().st_dev, (at, 0))
        by_disk[at.stat().st_dev] = (first, sum_bytes + size_bytes)
    said = []
    for path, size_bytes in by_disk.values():
        free = shutil.disk_usage(path).free
        said.append(f"{free / _GB:.1f} GB free, about {size_bytes / _GB:.2f} GB needed")
        if free < size_bytes:
            raise Refused(
                f"too little room at {path}: {said[-1]}",
                code="disk_full",
                hint="make room on the host (`ftq prune --dry-run` shows what can go), or set "
                "FTQ_STORAGE or HF_HOME to a larger disk",
            )
    return None, "; ".join(said)


def _existing(path: Path) -> Path:
    while not path.exists():
        path = path.parent
    return path
