"""The body of a commit: one JSON object a line, of which a `file` line can be gigabytes long.

The body is spooled to disk first. A long line is then read in pieces: base64 holds no quote and
no backslash, so its content runs from `"content": "` to the next quote, and what stands around
it is a small JSON object.
"""

import base64
import binascii
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Annotated

from pydantic import Field

from ftq_hub.blobs import Blobs, BlobWriter
from ftq_hub.errors import BadRequest, EntryNotFound, Unprocessable
from ftq_hub.files import CHUNK_BYTES, check_path, check_sha256, file_entry
from ftq_hub.gitrules import LFS_MIN_BYTES
from ftq_hub.records import FileEntry, from_json
from ftq_hub.repo_files import dir_paths

_CONTENT = b'"content": "'
Tree = dict[str, FileEntry]
Edit = Callable[[Tree], None]


@dataclass(frozen=True)
class Header:
    """The value of the `header` line."""

    summary: str  # the commit's title
    description: str = ""
    parent: Annotated[str | None, Field(alias="parentCommit")] = None  # None: any head will do


@dataclass(frozen=True)
class _Change:
    """The value of every other line: what happens to one path."""

    path: str
    content: str = ""  # file
    encoding: str = "utf-8"  # file: how the content is written here, else base64
    oid: str = ""  # lfsFile: the sha256 of an object that was uploaded before


@dataclass(frozen=True)
class _Line:
    """One line of the body."""

    key: str  # header, file, lfsFile, deletedFile or deletedFolder
    value: Header | _Change


@dataclass(frozen=True)
class CommitBody:
    """A parsed body: the header, and the edits in their order. File contents are stored."""

    header: Header
    edits: list[Edit] = field(default_factory=list)
    readme: str = ""  # the text of a README.md that it brings

    def apply(self, tree: Tree) -> None:
        """Make all edits.

        Raises EntryNotFound when something to delete is not there, Unprocessable when a file would
        lie where a folder is.
        """
        for edit in self.edits:
            edit(tree)
        if both := dir_paths(tree) & tree.keys():
            raise Unprocessable(f"{min(both)} would be a file and a folder")


def parse(spool: Path, blobs: Blobs) -> CommitBody:
    """Read a spooled body; raises BadRequest for what it cannot be."""
    body = CommitBody(Header(""))
    with spool.open("rb") as handle:
        for line, sha256 in _lines(handle, blobs):
            if isinstance(line.value, Header) and line.key == "header":
                body = replace(body, header=line.value)
            elif isinstance(line.value, Header) or line.key == "header":
                raise BadRequest(f"a line of the commit is malformed: {line.key}")
            else:
                body.edits.append(_edit(line.key, line.value, sha256, blobs))
                if line.value.path == "README.md" and sha256 is not None:
                    text = blobs.path(sha256).read_text("utf-8", errors="replace")
                    body = replace(body, readme=text)
    if not body.header.summary.strip():
        raise BadRequest("the commit has no summary")
    return body


def _edit(key: str, value: _Change, sha256: str | None, blobs: Blobs) -> Edit:
    path = value.path
    if key == "deletedFolder":
        return lambda tree: _delete_folder(tree, check_path(path.strip("/")))
    check_path(path)
    if key == "deletedFile":
        return lambda tree: _delete_file(tree, path)
    if key == "lfsFile":
        sha256 = check_sha256(value.oid)
        if not blobs.has(sha256):
            raise BadRequest(f"{path}: no LFS object {sha256} was uploaded to this repo")
    if sha256 is None:
        raise BadRequest(f"unknown kind of line in the commit: {key!r}")
    entry = file_entry(blobs.path(sha256), sha256, lfs=key == "lfsFile")
    if not entry.lfs and entry.size > LFS_MIN_BYTES:
        raise BadRequest(f"{path} is larger than 10 MiB: it must be uploaded as a large file")
    return lambda tree: tree.__setitem__(path, entry)


def _delete_file(tree: Tree, path: str) -> None:
    if tree.pop(path, None) is None:
        _delete_folder(tree, path)  # clients do not always know which it is


def _delete_folder(tree: Tree, folder: str) -> None:
    found = [path for path in tree if path.startswith(f"{folder}/")]
    if not found:
        raise EntryNotFound(f"A file with this name doesn't exist: {folder}")
    for path in found:
        del tree[path]


def _lines(handle: IO[bytes], blobs: Blobs) -> Iterator[tuple[_Line, str | None]]:
    """Yield each line and the sha256 of its content, where it carries one."""
    while start := handle.readline(CHUNK_BYTES):
        if start.endswith(b"\n") or len(start) < CHUNK_BYTES:
            text, sha256 = start, None
        else:
            text, sha256 = _long_line(start, handle, blobs)
        if text.strip():
            yield _line(text, sha256, blobs)


def _line(text: bytes, sha256: str | None, blobs: Blobs) -> tuple[_Line, str | None]:
    try:
        line = from_json(_Line, text)
        if line.key == "file" and sha256 is None and isinstance(line.value, _Change):
            sha256 = blobs.add([_decode(line.value)])
    except ValueError as error:
        raise BadRequest(f"a line of the commit is malformed: {error}") from error
    return line, sha256


def _decode(value: _Change) -> bytes:
    if value.encoding == "base64":
        return base64.b64decode(value.content, validate=True)
    return value.content.encode()


def _long_line(start: bytes, handle: IO[bytes], blobs: Blobs) -> tuple[bytes, str]:
    """Store the content of a long `file` line; return the line without it, and its sha256."""
    before, mark, content = start.partition(_CONTENT)
    if not mark:
        raise BadRequest("a line of the commit is too long and has no content at its start")
    with blobs.writer() as writer:
        after = _copy_base64(content, handle, writer)
        sha256 = writer.commit()
    return before + _CONTENT + b'"' + after, sha256


def _copy_base64(piece: bytes, handle: IO[bytes], writer: BlobWriter) -> bytes:
    """Decode up to the closing quote; return what stands behind it on the line."""
    carry = b""
    while True:
        text, quote, after = (carry + piece).partition(b'"')
        whole = len(text) if quote else len(text) - len(text) % 4
        try:
            writer.write(binascii.a2b_base64(text[:whole], strict_mode=True))
        except binascii.Error as error:
            raise BadRequest(f"the content of a file is not base64: {error}") from error
        if quote:
            return after if after.endswith(b"\n") else after + handle.readline(CHUNK_BYTES)
        carry, piece = text[whole:], handle.readline(CHUNK_BYTES)
        if not piece:
            raise BadRequest("the commit ends inside the content of a file")
