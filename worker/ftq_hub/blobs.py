"""The content of one repo's files, each named by its sha256."""

import hashlib
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from ftq_hub.errors import BadRequest
from ftq_hub.files import CHUNK_BYTES, check_sha256, temp_beside


class BlobWriter:
    """Takes the chunks of one file; `commit` gives it its name."""

    def __init__(self, handle: BinaryIO, temp: Path, folder: Path) -> None:
        self._handle, self._temp, self._folder = handle, temp, folder
        self._digest = hashlib.sha256()
        self.size = 0

    def write(self, chunk: bytes) -> None:
        self._handle.write(chunk)
        self._digest.update(chunk)
        self.size += len(chunk)

    def commit(self, *, expected: str | None = None) -> str:
        """Name the blob and return its sha256; raises BadRequest when it is not `expected`."""
        sha256 = self._digest.hexdigest()
        if expected is not None and sha256 != expected:
            raise BadRequest(f"the content hashes to {sha256}, not to {expected}")
        self._handle.close()
        os.replace(self._temp, self._folder / sha256)
        return sha256


class Blobs:
    """A folder of blobs. A blob appears whole or not at all, and is never changed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def path(self, sha256: str) -> Path:
        """Return where the blob is, or would be; raises BadRequest for what is no sha256."""
        return self._folder / check_sha256(sha256)

    def has(self, sha256: str) -> bool:
        return self.path(sha256).is_file()

    @contextmanager
    def writer(self) -> Iterator[BlobWriter]:
        """Yield a writer; what is not committed is removed."""
        with temp_beside(self._folder / "x") as temp, temp.open("wb") as handle:
            yield BlobWriter(handle, temp, self._folder)

    def add(self, chunks: Iterable[bytes]) -> str:
        with self.writer() as writer:
            for chunk in chunks:
                writer.write(chunk)
            return writer.commit()

    def add_file(self, source: Path) -> str:
        """Store a copy of a file and return its sha256."""
        with source.open("rb") as handle:
            return self.add(iter(lambda: handle.read(CHUNK_BYTES), b""))
