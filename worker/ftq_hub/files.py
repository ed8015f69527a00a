"""Files on disk: atomic writes, locks, hashes, and which names are allowed."""

import fcntl
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from ftq_hub.errors import BadRequest, Unprocessable
from ftq_hub.records import FileEntry, from_json

T = TypeVar("T")

CHUNK_BYTES = 1 << 20  # large files pass through in pieces of this size, both ways
_REPO_ID = re.compile(r"[A-Za-z0-9](?:[\w.-]*[\w])?/[A-Za-z0-9_](?:[\w.-]*[\w])?", re.ASCII)
_REF_NAME = re.compile(r"[\w][\w./-]{0,199}", re.ASCII)
_LIKE_SHA = re.compile(r"[0-9a-f]{7,40}")
_MAX_PATH_BYTES, _MAX_NAME_BYTES = 1024, 255  # a client's file system must hold it too
_SHA256 = re.compile(r"[0-9a-f]{64}")


def check_repo_id(repo_id: str) -> str:
    """Return `namespace/name`, or raise BadRequest; it becomes a folder name."""
    if len(repo_id) > 192 or ".." in repo_id or not _REPO_ID.fullmatch(repo_id):
        raise BadRequest(f"{repo_id!r} is not a repo id of the form namespace/name")
    return repo_id


def check_path(path: str) -> str:
    """Return a path inside a repo, or raise Unprocessable; clients make file names of it."""
    parts = path.split("/")
    odd = not path.isprintable() or any(part in ("", ".", "..", ".git") for part in parts)
    if odd or path.startswith("..\\"):  # a way out of the folder, on Windows
        raise Unprocessable(f"{path[:200]!r} is not a path inside a repo")
    longest = max(len(part.encode()) for part in parts)
    if len(path.encode()) > _MAX_PATH_BYTES or longest > _MAX_NAME_BYTES:
        raise Unprocessable(f"the path {path[:200]!r}... is too long")
    return path


def check_ref(name: str) -> str:
    """Return a branch or tag name, or raise BadRequest; one like a commit's id would hide that."""
    if ".." in name or not _REF_NAME.fullmatch(name) or _LIKE_SHA.fullmatch(name):
        raise BadRequest(f"{name[:200]!r} is not a branch or tag name")
    return name


def check_sha256(oid: str) -> str:
    """Return a sha256 in hex, or raise BadRequest; it becomes a file name."""
    if not _SHA256.fullmatch(oid):
        raise BadRequest(f"{oid!r} is not a sha256")
    return oid


def write_json(path: Path, data: object, *, mode: int = 0o644) -> None:
    """Replace a file with JSON in one step; readers see the old or the new one."""
    with temp_beside(path) as temp:
        temp.write_text(json.dumps(data, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        temp.chmod(mode)
        os.replace(temp, path)


def read_json(path: Path, kind: type[T]) -> T | None:
    """Return what a JSON file holds; None when there is no such file, ValueError for a bad one."""
    try:
        return from_json(kind, path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None


@contextmanager
def temp_beside(path: Path) -> Iterator[Path]:
    """Yield a new empty file in the same folder; it is removed unless it was renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=".tmp-", dir=path.parent)
    os.close(handle)
    try:
        yield Path(name)
    finally:
        Path(name).unlink(missing_ok=True)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on a file, against other threads and other processes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _git_sha1(size: int) -> "hashlib._Hash":
    """Return the hash of a git blob, before its content."""
    return hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)


def git_blob_oid(path: Path) -> str:
    """Return git's id of a file's content."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, lambda: _git_sha1(path.stat().st_size)).hexdigest()


def pointer_text(sha256: str, size: int) -> str:
    """Return the LFS pointer that git would hold in place of the file."""
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n"


def file_entry(blob: Path, sha256: str, *, lfs: bool) -> FileEntry:
    """Describe a stored blob as a file of a commit."""
    size = blob.stat().st_size
    if not lfs:
        return FileEntry(sha256, size, git_blob_oid(blob), lfs=False)
    pointer = pointer_text(sha256, size).encode()
    digest = _git_sha1(len(pointer))
    digest.update(pointer)
    return FileEntry(sha256, size, digest.hexdigest(), lfs=True)
