"""The client's own files that a spec names, and where each lies among the job's inputs."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from glob import glob
from pathlib import Path
from typing import TYPE_CHECKING

from ftq_shared.dataset_files import sort_files
from ftq_shared.errors import UsageError
from ftq_shared.sources import READ_KINDS, Place, parse_source

_NAMES_MAX = 100  # of files that are not read: a folder of pictures has thousands

if TYPE_CHECKING:  # the schema takes 0.2 s to import: a fetch does without it
    from ftq_shared.spec import JobSpec


@dataclass(frozen=True)
class OwnFile:
    """One file on this machine and its place in the job's inputs."""

    source: Path
    path: str  # relative to the inputs folder
    size: int  # bytes
    name_only: bool = False  # an empty file goes in its place: the worker tells that it is not read


_NAME_MAX = 255  # bytes of one part of a path, on every usual file system


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
    """Return the files of one path: a file, a folder or a glob.

    Of a dataset's files that are not read only the name goes along. `what` is model or dataset.
    Raises UsageError when there is none.
    """
    path = Path(name)
    if any(len(os.fsencode(part)) > _NAME_MAX for part in path.parts):
        raise _no_file(what, f"{name[:80]}...")  # the system refuses to look
    if path.is_dir():
        top = path
        files = sorted(p for p in path.rglob("*") if p.is_file() and not p.name.startswith("."))
    else:
        found = [path] if path.is_file() else [Path(p) for p in sorted(glob(name, recursive=True))]
        files = [p for p in found if p.is_file()]
        # From the folder that all share: two files of one name in two folders stay two files.
        top = Path(os.path.commonpath([file.parent for file in files])) if files else path
    goes = {file: f"{what}/{file.relative_to(top).as_posix()}" for file in files}
    if what == "dataset":
        return _of_dataset(name, goes)
    if not files:
        raise _no_file(what, name)
    return [OwnFile(file, path, file.stat().st_size) for file, path in goes.items()]


def _of_dataset(name: str, goes: Mapping[Path, str]) -> list[OwnFile]:
    """Return the files with rows, then the names of those that are not read.

    Raises UsageError when no file has rows.
    """
    at = {path: file for file, path in goes.items()}
    found = sort_files(at)
    if not found.read:
        raise (
            _no_rows(name, [file.name for file in found.unread])
            if at
            else _no_file("dataset", name)
        )
    sent = [OwnFile(at[path], path, at[path].stat().st_size) for path in found.read + found.records]
    return sorted(sent, key=lambda file: file.path) + [
        OwnFile(at[file.name], file.name, 0, name_only=True) for file in found.unread[:_NAMES_MAX]
    ]


def size_of(files: Sequence[OwnFile]) -> int:
    """Return the size of all files together, in bytes."""
    return sum(file.size for file in files)


def _no_rows(name: str, unread: Sequence[str]) -> UsageError:
    kinds = ", ".join(sorted({Path(path).suffix or Path(path).name for path in unread})[:5])
    found = f" (found {kinds})" if kinds else ""
    return UsageError(
        f"dataset: there is no file at {name} of a kind that ftq reads{found}",
        code="no_such_file",
        hint=f"convert it to one of {READ_KINDS}",
        field="dataset",
    )


def _no_file(what: str, name: str) -> UsageError:
    return UsageError(
        f"{what}: there is no file at {name}",
        code="no_such_file",
        hint=f"looked from {Path.cwd()}; a Hub id has no leading ./",
        field=what,
    )
