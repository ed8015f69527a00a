"""The client's own files that a spec names, and where each lies among the job's inputs."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from glob import glob
from pathlib import Path
from typing import TYPE_CHECKING

from ftq_shared.errors import UsageError
from ftq_shared.sources import DATA_SUFFIXES, Place, parse_source

if TYPE_CHECKING:  # the schema takes 0.2 s to import: a fetch does without it
    from ftq_shared.spec import JobSpec


@dataclass(frozen=True)
class OwnFile:
    """One file on this machine and its place in the job's inputs."""

    source: Path
    path: str  # relative to the inputs folder
    size: int  # bytes


def own_files(spec: "JobSpec") -> list[OwnFile]:
    """Return the client's own files that a spec names, nothing when all is elsewhere.

    Raises UsageError for a path of this machine without a file.
    """
    return own_files_of("model", spec.model) + own_files_of("dataset", spec.dataset)


def own_files_of(what: str, text: str) -> list[OwnFile]:
    """Return the client's own files that one field names; `what` is model or dataset."""
    source = parse_source(text, what=what)
    return files_of(what, source.name) if source.place is Place.CLIENT else []


def files_of(what: str, name: str) -> list[OwnFile]:
    """Return the files of one path: a file, a folder or a glob; of a dataset those with rows.

    `what` is model or dataset. Raises UsageError when there is none.
    """
    path = Path(name)
    if path.is_dir():
        top = path
        files = sorted(p for p in path.rglob("*") if p.is_file() and not p.name.startswith("."))
    else:
        found = [path] if path.is_file() else [Path(p) for p in sorted(glob(name, recursive=True))]
        files = [p for p in found if p.is_file()]
        # From the folder that all share: two files of one name in two folders stay two files.
        top = Path(os.path.commonpath([file.parent for file in files])) if files else path
    if what == "dataset":
        files = [file for file in files if file.suffix in DATA_SUFFIXES]
    if not files:
        raise _no_file(what, name)
    return [
        OwnFile(file, f"{what}/{file.relative_to(top).as_posix()}", file.stat().st_size)
        for file in files
    ]


def size_of(files: Sequence[OwnFile]) -> int:
    """Return the size of all files together, in bytes."""
    return sum(file.size for file in files)


def _no_file(what: str, name: str) -> UsageError:
    kinds = f" with {', '.join(DATA_SUFFIXES)}" if what == "dataset" else ""
    return UsageError(
        f"{what}: there is no file{kinds} at {name}",
        code="no_such_file",
        hint=f"looked from {Path.cwd()}; a Hub id has no leading ./",
        field=what,
    )
