"""Folders that are whole or absent: written aside, synced, moved into place.

A claim writes only below `attempts/<claim>` and moves what it has finished out of there. The next
claim removes what it has not: a job that is killed in every save would fill the disk otherwise.
"""

import os
import shutil
from pathlib import Path

from ftq_shared.paths import JobPaths

PART = ".part"  # below `checkpoints`: where a checkpoint is written
# Below a claim's folder: what is of use to this claim alone.
SCRATCH = ("prepare", "model", "publish", "card", f"checkpoints/{PART}")


def sync(path: Path) -> None:
    """Make a file, or the names in a folder, survive a power loss."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def swap_in(new: Path, target: Path) -> None:
    """Put a finished folder in the place of `target`, and remove the one that was there.

    A folder that is not empty cannot be replaced in one step: between the two renames there is
    none. A phase that is killed there has not reported success, so it runs again.
    """
    for entry in (*new.rglob("*"), new):
        sync(entry)
    old = new.with_name(f"{new.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():
        target.replace(old)
    new.replace(target)
    sync(target.parent)
    shutil.rmtree(old, ignore_errors=True)


def sweep(paths: JobPaths, token_number: int) -> None:
    """Remove what the dead claims before `token_number` left unfinished.

    Their events, output and whole checkpoints stay.
    """
    for claim in paths.root.glob("attempts/*"):
        number = claim.name.split("-")[0]
        if not number.isdigit() or int(number) >= token_number:
            continue
        for name in SCRATCH:
            shutil.rmtree(claim / name, ignore_errors=True)
            shutil.rmtree(claim / f"{name}.old", ignore_errors=True)
