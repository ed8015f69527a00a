"""Which files of a dataset on disk are read, and which are not and why."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ftq_shared.dataset_files import UnreadFile, sort_files, unread_entry
from ftq_worker.data.saved_dataset import STATE, saved_files


@dataclass(frozen=True)
class ChosenFiles:
    """The files of a dataset on disk."""

    files: list[Path]  # that are read, in the order of their paths
    unread: list[UnreadFile]  # that are not, without those that need no word


def choose_files(given: Sequence[Path], others: Sequence[tuple[Path, str]] = ()) -> ChosenFiles:
    """Sort the files of a folder, glob or path; of `others` it is known why they are not read.

    Raises Refused (`bad_file`) for a folder of `save_to_disk` that is not whole.
    """
    if not given:
        return ChosenFiles([], [unread_entry(path.name, reason) for path, reason in others])
    root = Path(os.path.commonpath([path.parent for path in given]))
    found = sort_files(path.relative_to(root).as_posix() for path in given)
    files, unread = [], list(found.unread)
    unread += [unread_entry(_below(root, path), reason) for path, reason in others]
    saved = {
        folder: set(saved_files(folder))
        for folder in {(root / name).parent for name in found.records}
        if (folder / STATE).is_file()
    }
    for name in found.read:
        path = root / name
        if path.suffix == ".arrow" and path not in saved.get(path.parent, {path}):
            unread.append(UnreadFile(name, "is no part of the saved dataset", is_data=False))
        elif path.stat().st_size == 0 and len(found.read) > 1:
            unread.append(UnreadFile(name, "is empty", is_data=True))
        else:
            files.append(path)
    return ChosenFiles(files or [root / name for name in found.read], unread)


def _below(root: Path, path: Path) -> str:
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name
