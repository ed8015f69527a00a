"""The sets that prepare leaves in `prepared/`, for the phases after it to read."""

from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
from datasets import Dataset, load_from_disk

from ftq_shared.errors import TrainingFailed
from ftq_shared.paths import JobPaths
from ftq_worker.job.reports import Prepared, lost

# What `load_from_disk` raises for damaged files: it depends on the damage.
_DAMAGED = (OSError, ValueError, LookupError, TypeError, AttributeError, pa.ArrowException)


@dataclass(frozen=True)
class PreparedSets:
    """The prepared rows; a set without rows is None."""

    train: Dataset
    validation: Dataset | None
    golden: Dataset | None


def load_sets(paths: JobPaths, prepared: Prepared) -> PreparedSets:
    """Return the prepared sets, mapped from disk.

    Raises TrainingFailed (code `no_rows`) when there is nothing to train on, FtqError (code
    `damaged_data`) when the folder is not what prepare has reported.
    """

    def read(name: str) -> Dataset | None:
        expected = prepared.rows.get(name, 0)
        return _load(paths.prepared, name, expected) if expected else None

    train = read("train")
    if train is None:
        raise TrainingFailed(
            "no rows are left to train on",
            code="no_rows",
            hint="look at the cleaning counts of the prepare phase",
        )
    return PreparedSets(train, read("validation"), read("golden"))


def _load(folder: Path, name: str, expected: int) -> Dataset:
    """Return one set. Raises FtqError (code `damaged_data`)."""
    try:
        rows = load_from_disk(str(folder / name))
    except _DAMAGED as error:
        words = (str(error).splitlines() or [type(error).__name__])[0]
        raise lost(folder, "damaged_data", f"is damaged: {name}: {words}") from error
    if len(rows) != expected:
        what = f"is damaged: {name} has {len(rows)} rows instead of {expected}"
        raise lost(folder, "damaged_data", what)
    return rows
