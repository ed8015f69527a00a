"""The two binary forms of xet: xorbs (packed chunks) and shards (which file has which).

A xorb is a row of chunks, each with a header of 8 bytes: version, packed size (3 bytes), scheme,
size (3 bytes). A shard lists files; a file is a row of segments, each a range of chunks of one
xorb. What follows the file list in a shard (an index over the xorbs) is not needed here.
"""

import hashlib
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from ftq_hub.errors import BadRequest

_ROW = 48  # bytes of a shard's header and of every entry in it
_SHARD_MAGIC = b"HFRepoMetaData\0"
_LAST_FILE = b"\xff" * 32
_HAS_VERIFICATION, _HAS_SHA256 = 1 << 31, 1 << 30
_CHUNK_HEADER = 8
_XORB_FOOTER = b"XETBLOB"  # older clients append an index behind the chunks
_PLAIN, _LZ4, _GROUPED_LZ4 = 0, 1, 2
_MAX_CHUNKS = 16_384  # of one xorb; clients stop at half of it
CHUNK_SIZE, _CHUNKS = 64 << 10, 512  # of the xorbs that are made for downloads


@dataclass(frozen=True)
class Segment:
    """A range of chunks of one xorb."""

    xorb: str  # its hash, as it was uploaded
    first: int  # index of the first chunk
    stop: int  # index behind the last chunk


@dataclass(frozen=True)
class ShardFile:
    """One file of a shard."""

    sha256: str | None  # of the content, where the client gave it
    segments: tuple[Segment, ...]


@dataclass(frozen=True)
class Chunk:
    """Where one chunk lies in a xorb file, and how it is packed."""

    offset: int
    packed: int  # bytes on disk
    scheme: int
    size: int  # bytes when unpacked


def hash_text(raw: bytes) -> str:
    """Return a hash in the form xet writes it: four little-endian numbers of 8 bytes, in hex."""
    return "".join(f"{number:016x}" for number in struct.unpack("<4Q", raw))


def parse_shard(data: bytes) -> list[ShardFile]:
    """Return the files of a shard; raises BadRequest when it is none."""
    if not data.startswith(_SHARD_MAGIC):
        raise BadRequest("this is not an xet shard")
    try:
        return list(_shard_files(data))
    except struct.error as error:
        raise BadRequest(f"the xet shard ends early: {error}") from error


def _shard_files(data: bytes) -> Iterator[ShardFile]:
    position = _ROW
    while (head := data[position : position + 32]) != _LAST_FILE:
        flags, count = struct.unpack_from("<II", data, position + len(head))
        position += _ROW
        rows = [_segment(data, position + index * _ROW) for index in range(count)]
        # Verification rows are as many as segments; they prove ownership, which the token did.
        position += _ROW * count * (2 if flags & _HAS_VERIFICATION else 1)
        sha256 = None
        if flags & _HAS_SHA256:
            sha256 = hash_text(data[position : position + 32])
            position += _ROW
        yield ShardFile(sha256, tuple(rows))


def _segment(data: bytes, position: int) -> Segment:
    raw, _, _, first, stop = struct.unpack_from("<32s4I", data, position)
    return Segment(hash_text(raw), first, stop)


@lru_cache(maxsize=16)  # a file may take hundreds of segments from one xorb
def chunk_index(xorb: Path) -> list[Chunk]:
    """Return where the chunks of a xorb lie; raises BadRequest for a cut or foreign file."""
    chunks: list[Chunk] = []
    end = xorb.stat().st_size
    with xorb.open("rb") as handle:
        while len(head := handle.read(_CHUNK_HEADER)) == _CHUNK_HEADER:
            if head.startswith(_XORB_FOOTER):
                break
            packed, size = (int.from_bytes(head[at : at + 3], "little") for at in (1, 5))
            chunk = Chunk(handle.tell(), packed, head[4], size)
            if head[0] != 0 or chunk.offset + packed > end:
                raise BadRequest(f"{xorb.name} is not an xet xorb")
            chunks.append(chunk)
            if len(chunks) > _MAX_CHUNKS:
                raise BadRequest(f"{xorb.name} has more than {_MAX_CHUNKS} chunks")
            handle.seek(packed, 1)
    return chunks


def read_chunks(xorb: Path, first: int, stop: int) -> Iterator[bytes]:
    """Yield the content of a range of chunks; raises BadRequest when they are not there."""
    chunks = chunk_index(xorb)
    if not 0 <= first < stop <= len(chunks):
        raise BadRequest(f"{xorb.name} has no chunks {first} to {stop}")
    with xorb.open("rb") as handle:
        for chunk in chunks[first:stop]:
            handle.seek(chunk.offset)
            yield _unpack(handle.read(chunk.packed), chunk)


def _unpack(data: bytes, chunk: Chunk) -> bytes:
    if chunk.scheme == _PLAIN:
        return data
    if chunk.scheme not in (_LZ4, _GROUPED_LZ4):
        raise BadRequest(f"unknown packing of an xet chunk: {chunk.scheme}")
    import pyarrow  # comes with datasets; needed only for this

    try:
        plain: bytes = pyarrow.Codec("lz4").decompress(data, chunk.size, asbytes=True)
    except OSError as error:
        raise BadRequest(f"an xet chunk cannot be unpacked: {error}") from error
    return plain if chunk.scheme == _LZ4 else _ungroup(plain)


def _ungroup(plain: bytes) -> bytes:
    """Undo the grouping of bytes by their place in a 4-byte number, which packs floats better."""
    out = bytearray(len(plain))
    start = 0
    for place in range(4):
        count = len(out[place::4])
        out[place::4] = plain[start : start + count]
        start += count
    return bytes(out)


@dataclass(frozen=True)
class VirtualXorb:
    """A piece of a blob as a xorb of unpacked chunks of one size, made while it is read."""

    blob: Path
    number: int  # which piece

    @property
    def name(self) -> str:
        """What a client calls it, and keeps it by."""
        return hashlib.sha256(f"{self.blob.name}/{self.number}".encode()).hexdigest()

    @property
    def _content(self) -> int:
        """How many bytes of the blob are in it."""
        whole = CHUNK_SIZE * _CHUNKS
        return max(0, min(whole, self.blob.stat().st_size - self.number * whole))

    @property
    def size(self) -> int:
        """Its length in bytes, headers included."""
        return self._content + _CHUNK_HEADER * -(-self._content // CHUNK_SIZE)

    def length(self, first: int, stop: int) -> int:
        """Return how many bytes of content a range of its chunks holds."""
        return min(stop * CHUNK_SIZE, self._content) - first * CHUNK_SIZE

    def span(self, first: int, stop: int) -> tuple[int, int]:
        """Return where in it a range of its chunks begins, and where it is over."""
        step = CHUNK_SIZE + _CHUNK_HEADER
        return first * step, min(stop * step, self.size)

    def read(self, offset: int, count: int) -> bytes:
        """Return some of its bytes."""
        step = CHUNK_SIZE + _CHUNK_HEADER
        first, stop = offset // step, -(-(offset + count) // step)
        made = bytearray()
        with self.blob.open("rb") as handle:
            handle.seek((self.number * _CHUNKS + first) * CHUNK_SIZE)
            for index in range(first, stop):
                size = self.length(index, index + 1)
                made += struct.pack("<Q", size << 40 | _PLAIN << 32 | size << 8)
                made += handle.read(size)
        start = offset - first * step
        return bytes(made[start : start + count])


def xorb_ranges(blob: Path, first: int, last: int) -> Iterator[tuple[VirtualXorb, int, int]]:
    """Yield the xorbs, each with a range of chunks, that hold the bytes `first` to `last`."""
    start, stop = first // CHUNK_SIZE, last // CHUNK_SIZE + 1
    for number in range(start // _CHUNKS, -(-stop // _CHUNKS)):
        begin = number * _CHUNKS
        yield VirtualXorb(blob, number), max(start - begin, 0), min(stop - begin, _CHUNKS)
