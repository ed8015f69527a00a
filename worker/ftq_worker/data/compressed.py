"""Files as they lie on disk, unpacked as they are read.

A small file may stand for terabytes, so what comes out is counted against what text can be.
"""

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import pyarrow as pa

from ftq_shared.errors import Refused
from ftq_shared.redaction import one_line
from ftq_shared.sources import compression
from ftq_worker.data.rows import BUFFER

_ALWAYS = 1 << 30  # bytes that any file may unpack to
_RATIO = 200  # text shrinks to a tenth, rarely to a fiftieth
_STEP = 1 << 16  # bytes of a head at a time: what comes before the cut is kept
_DAMAGED = (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError, pa.ArrowException)


def _zstd(file: IO[bytes]) -> Any:
    # pyarrow is there anyway, and reads several frames and the long windows of `zstd --long`.
    return pa.CompressedInputStream(pa.PythonFile(file, mode="r"), "zstd")


_UNPACK: dict[str, Callable[[IO[bytes]], Any]] = {
    ".gz": lambda file: gzip.GzipFile(fileobj=file),
    ".bz2": bz2.BZ2File,
    ".xz": lzma.LZMAFile,
    ".zst": _zstd,
}


def open_unpacked(path: Path) -> IO[bytes]:
    """Open a file for reading, unpacked when its name ends with one of COMPRESSIONS.

    Raises OSError when it cannot be opened. Reading raises Refused (`bad_file`) for a file that is
    damaged, is not what its name says, or stands for far more than text ever does.
    """
    file = path.open("rb")
    if not (packed := compression(path.name)):
        return file
    most = max(_ALWAYS, path.stat().st_size * _RATIO)
    return io.BufferedReader(_Unpacked(file, packed, path.name, most), BUFFER)


def refuse_bomb(path: Path) -> None:
    """Read a compressed file to its end. Raises Refused as `open_unpacked` does."""
    if compression(path.name):
        with open_unpacked(path) as file:
            while file.read(BUFFER):
                pass


def unpacked_head(content: bytes, name: str, most: int) -> bytes:
    """Return up to `most` bytes of what the beginning of a file unpacks to, as far as it goes."""
    parts: list[bytes] = []
    left = most
    try:
        with _Unpacked(io.BytesIO(content), compression(name), name, most) as file:
            while left > 0 and (part := file.read(min(left, _STEP))):
                parts.append(part)
                left -= len(part)
    except Refused:  # it is cut, or no such file: its reader will say so
        pass
    return b"".join(parts)


class _Unpacked(io.RawIOBase):
    """What a compressed file holds, up to `most` bytes."""

    def __init__(self, file: IO[bytes], packed: str, name: str, most: int) -> None:
        self._file, self._name, self._most = file, name, most
        self._packed, self._count = packed, 0
        self._inner: Any = None  # opened at the first read: a bad header is a damaged file as well

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            self._inner = self._inner or _UNPACK[self._packed](self._file)
            # What is there at once: of a damaged file what comes before the damage.
            count = int(getattr(self._inner, "readinto1", self._inner.readinto)(buffer))
        except _DAMAGED as error:
            raise self._refused(f"cannot be unpacked: {one_line(error)}") from error
        self._count += count
        if self._count > self._most:
            raise self._refused(f"unpacks to more than {self._most / 1e9:.1f} GB")
        return count

    def close(self) -> None:
        if not self.closed:
            if self._inner is not None:
                with suppress(*_DAMAGED):  # it complains again of what reading has told
                    self._inner.close()
            self._file.close()
        super().close()

    def _refused(self, what: str) -> Refused:
        return Refused(
            f"{self._name} {what}",
            code="bad_file",
            hint=f"check that it is whole and really {self._packed}; or unpack it yourself and give"
            " the file that comes out",
            file=self._name,
        )
