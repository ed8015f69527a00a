"""Folders that `Dataset.save_to_disk` and `DatasetDict.save_to_disk` write.

data-00000-of-00001.arrow, state.json, dataset_info.json      one dataset
dataset_dict.json, SPLIT/data-....arrow, SPLIT/state.json     several, by their splits
"""

import json
from pathlib import Path
from typing import Any

from ftq_shared.errors import Refused
from ftq_shared.redaction import one_line

STATE, DICT = "state.json", "dataset_dict.json"


def saved_split(path: Path) -> str:
    """Return the split of an Arrow file of such a folder, "" for any other file."""
    if path.suffix != ".arrow" or not (path.parent / STATE).is_file():
        return ""
    return path.parent.name if (path.parent.parent / DICT).is_file() else "train"


def saved_files(folder: Path) -> list[Path]:
    """Return the Arrow files that a folder with a state.json consists of, in order.

    Raises Refused (`bad_file`) when the state cannot be read or a file of it is missing.
    """
    try:
        state: Any = json.loads((folder / STATE).read_text())
        names = [str(entry["filename"]) for entry in state["_data_files"]]
        chosen = state.get("_indices_data_files")
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise _bad(folder, f"{STATE} cannot be read: {one_line(error)}") from error
    if chosen:  # written by `datasets` 1: which rows are meant stands in another file
        raise _bad(folder, "it was saved by datasets 1, with its rows in another order")
    files = [folder / name for name in names]
    missing = [name for name, file in zip(names, files, strict=True) if not file.is_file()]
    if missing or any(Path(name).name != name for name in names):
        raise _bad(folder, f"its {STATE} names {', '.join(missing or names)}, which is not there")
    return files


def _bad(folder: Path, what: str) -> Refused:
    return Refused(
        f"the saved dataset {folder.name}: {what}",
        code="bad_file",
        hint="save it again with Dataset.save_to_disk, or write it with Dataset.to_parquet",
        file=STATE,
    )
