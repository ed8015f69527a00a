"""The client's own files that a spec names, and where each lies among the job's inputs."""

import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from glob import glob
from pathlib import Path
from typing import IO, TYPE_CHECKING

from ftq_shared.dataset_files import (
    UNREAD_LIST,
    UnreadFile,
    listed,
    sort_files,
    unread_entry,
    unread_to_json,
    walk,
    why_not,
)
from ftq_shared.errors import UsageError
from ftq_shared.sources import READ_KINDS, Place, parse_source

if TYPE_CHECKING:  # the schema takes 0.2 s to import: a fetch does without it
    from ftq_shared.spec import JobSpec


@dataclass(frozen=True)
class OwnFile:
    """One file on this machine and its place in the job's inputs."""

    source: Path
    path: str  # relative to the inputs folder
    size: int  # bytes
    content: bytes | None = None  # of a file that lies nowhere here

    def open(self) -> IO[bytes]:
        """Open what travels, for reading."""
        return self.source.open("rb") if self.content is None else io.BytesIO(self.content)


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

    Of what a dataset's folder holds besides, the names go along, with why it is not read. `what` is
    model or dataset. Raises UsageError when there is none, or one cannot be read.
    """
    path = Path(name)
    if any(len(os.fsencode(part)) > _NAME_MAX for part in path.parts):
        raise _no_file(what, f"{name[:80]}...")  # the system refuses to look
    if path.is_dir():
        top, found = path, sorted(walk(path))
    else:
        given = [path] if path.exists() else [Path(p) for p in sorted(glob(name, recursive=True))]
        # A glob names folders as well; what lies in them has been found if it was meant.
        found = [(p, why_not(p)) for p in given if not p.is_dir()]
        # From the folder that all share: two files of one name in two folders stay two files.
        top = Path(os.path.commonpath([p.parent for p, _ in found])) if found else path
    goes = {f"{what}/{p.relative_to(top).as_posix()}": p for p, reason in found if not reason}
    unread = [unread_entry(p.relative_to(top).as_posix(), reason) for p, reason in found if reason]
    if what == "dataset":
        return _of_dataset(name, goes, unread)
    locked = [file for file in unread if "cannot be read" in file.reason]
    if not goes or locked:
        raise _no_file(what, name, locked)
    return [OwnFile(file, path, file.stat().st_size) for path, file in goes.items()]


def _of_dataset(name: str, at: Mapping[str, Path], unread: Sequence[UnreadFile]) -> list[OwnFile]:
    """Return the files with rows, then a list of what is not read.

    Raises UsageError when no file has rows.
    """
    found = sort_files(at)
    other = [replace(file, name=file.name.removeprefix("dataset/")) for file in found.unread]
    unread = [*other, *unread]
    if not found.read:
        raise _no_rows(name, unread) if unread else _no_file("dataset", name)
    sent = [OwnFile(at[path], path, at[path].stat().st_size) for path in found.read + found.records]
    return sorted(sent, key=lambda file: file.path) + ([_list_of(unread)] if unread else [])


def _list_of(unread: Sequence[UnreadFile]) -> OwnFile:
    content = unread_to_json(unread)
    return OwnFile(Path(UNREAD_LIST), f"dataset/{UNREAD_LIST}", len(content), content)


def size_of(files: Sequence[OwnFile]) -> int:
    """Return the size of all files together, in bytes."""
    return sum(file.size for file in files)


def _no_rows(name: str, unread: Sequence[UnreadFile]) -> UsageError:
    return UsageError(
        f"dataset: there is no file at {name} of a kind that ftq reads (found {listed(unread)})",
        code="no_such_file",
        hint=f"convert it to one of {READ_KINDS}",
        field="dataset",
    )


def _no_file(what: str, name: str, unread: Sequence[UnreadFile] = ()) -> UsageError:
    found = f" that can be sent: {listed(unread)}" if unread else ""
    return UsageError(
        f"{what}: there is no file at {name}{found}",
        code="no_such_file",
        hint="put the files themselves there, readable for you"
        if unread
        else f"looked from {Path.cwd()}; a Hub id has no leading ./",
        field=what,
    )
