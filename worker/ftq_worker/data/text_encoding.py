"""Text files as UTF-8, whatever they were saved in; what cannot be known is refused, never guessed.

A byte order mark tells UTF-8, UTF-16 and UTF-32. Without one a file is UTF-8, with single broken
rows at most: eight-bit encodings (Windows-1252 and its kin) cannot be told apart by their bytes, so
such a file is refused with the line that shows it and the command that converts it.
`charset-normalizer` was tried for a guess: it takes French and English for Polish (cp1250).
"""

import codecs
import io
import itertools
import shlex
from pathlib import Path
from typing import IO, Any

from ftq_shared.errors import Refused
from ftq_shared.sources import compression
from ftq_worker.data.compressed import open_unpacked
from ftq_worker.data.content_kind import HEAD, refuse_other_kind
from ftq_worker.data.rows import BUFFER

_SAMPLE = BUFFER  # bytes that are looked at before a file is read
_UTF8_MARK = codecs.BOM_UTF8
# UTF-32 first: its little-endian mark begins with that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_NULS = 0.02  # share of NUL bytes above which it is no UTF-8 text
_TEXT = 0.95  # share of printable characters in what is text after all
_EIGHT_BIT = "windows-1252"  # of Western Europe; the one that is proposed
_SHOWN = 60  # characters of a line in a message


def open_text(path: Path) -> IO[bytes]:
    """Open a text file; what is read is UTF-8 without a mark, its lines end with a newline.

    Raises OSError, and Refused (`bad_encoding`) for another encoding, `bad_file` for one that is
    damaged.
    """
    with open_unpacked(path) as file:
        sample = file.read(_SAMPLE)
    encoding, mark = _marked(sample)
    refuse_other_kind(path.name, sample[mark : mark + HEAD])
    if encoding == "utf-8":
        _refuse_foreign(path, sample[mark:], whole=len(sample) < _SAMPLE)
    raw = open_unpacked(path)
    raw.read(mark)
    if encoding != "utf-8":
        raw = io.BufferedReader(_Recoded(raw, encoding), BUFFER)
        sample = sample[mark:].decode(encoding, errors="replace").encode()
    if b"\r" in sample.rstrip(b"\r") and b"\n" not in sample:  # as old Macs ended their lines
        raw = io.BufferedReader(_WithNewlines(raw), BUFFER)
    return raw


def head_as_utf8(content: bytes) -> bytes:
    """Return a file's beginning in UTF-8 where a mark tells another encoding, else as it is."""
    encoding, mark = _marked(content)
    if encoding == "utf-8":
        return content
    return content[mark:].decode(encoding, errors="ignore").encode("utf-8", "replace")


def _marked(sample: bytes) -> tuple[str, int]:
    """Return the encoding that a byte order mark tells, and the mark's length."""
    for mark, encoding in _MARKS:
        if sample.startswith(mark):
            return encoding, len(mark)
    return "utf-8", len(_UTF8_MARK) if sample.startswith(_UTF8_MARK) else 0


def _refuse_foreign(path: Path, sample: bytes, *, whole: bool) -> None:
    """Raise Refused for a file that is not UTF-8 as a whole; single broken rows are let through."""
    if sample.count(0) > _NULS * len(sample):
        raise _with_nuls(path, sample)
    if not whole:
        sample = sample[: -3 if len(sample) > 3 else None]  # a character may be cut there
    if _is_utf8(sample):
        return
    lines = sample.replace(b"\r", b"\n").split(b"\n")
    strange = [n for n, line in enumerate(lines) if not _is_utf8(line)]
    right = sum(not line.isascii() for line in lines) - len(strange)
    if len(strange) > max(1, right) and any(_has_letters(lines[n]) for n in strange):
        raise foreign_encoding(path, lines[strange[0]], strange[0] + 1)


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def _has_letters(line: bytes) -> bool:
    """Return whether bytes above ASCII stand where letters do: within or beside a word."""
    text = line.decode(_EIGHT_BIT, errors="replace")
    return any((a + b).isalpha() and not (a + b).isascii() for a, b in itertools.pairwise(text))


def foreign_encoding(path: Path, line: bytes, number: int) -> Refused:
    """Return the refusal of a file with a line that is not UTF-8; `number` counts from 1."""
    try:
        line.decode()
        at = 0
    except UnicodeDecodeError as error:
        at = error.start
    start = max(0, at - _SHOWN // 2)
    shown = line[start : start + _SHOWN].decode(_EIGHT_BIT, errors="replace").strip()
    unpack = f"unpack {path.name} first, then " if compression(path.name) else ""
    name = path.name.removesuffix(path.suffix) if compression(path.name) else path.name
    return Refused(
        f"{path.name} is not UTF-8: line {number} holds the byte 0x{line[at]:02X} at position"
        f" {at + 1}; read as Windows-1252 the line says {shown!r}",
        code="bad_encoding",
        hint=f"where that reads right, {unpack}convert it: `{_convert(name, _EIGHT_BIT)}`; else"
        " name the encoding that it was saved in after -f",
        file=path.name,
        line=number,
    )


def _with_nuls(path: Path, sample: bytes) -> Refused:
    even, odd = sample[::2].count(0), sample[1::2].count(0)
    kind = "utf-16le" if odd > even else "utf-16be"
    text = sample.decode(kind, errors="replace")
    if sum(char.isprintable() or char.isspace() for char in text) > _TEXT * len(text):
        return Refused(
            f"{path.name} looks like {kind.upper()} without a byte order mark, which is not read",
            code="bad_encoding",
            hint=f"convert it: `{_convert(path.name, kind)}`",
            file=path.name,
        )
    return Refused(
        f"{path.name} is no text: it holds {sample.count(0):,} NUL bytes in its first"
        f" {len(sample):,} bytes",
        code="bad_file",
        hint="check that the file is what its name says",
        file=path.name,
    )


def _convert(name: str, encoding: str) -> str:
    stem, dot, suffix = name.rpartition(".")
    made = f"{stem or suffix}-utf8{dot}{suffix}" if stem else f"{name}-utf8"
    return f"iconv -f {encoding.upper()} -t UTF-8 {shlex.quote(name)} > {shlex.quote(made)}"


class _Recoded(io.RawIOBase):
    """A file in another encoding as UTF-8; what cannot be decoded stays a byte that is no UTF-8.

    So it costs the row that it stands in, as a broken byte does in a UTF-8 file.
    """

    def __init__(self, file: IO[bytes], encoding: str) -> None:
        self._file, self._encoding = file, encoding
        self._decoder = codecs.getincrementaldecoder(encoding)("surrogatepass")
        self._ready = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ready:
            chunk = self._file.read(BUFFER)
            self._ready = self._decoded(chunk)
            if not chunk and not self._ready:
                return 0
        part = self._ready[: len(buffer)]
        self._ready = self._ready[len(part) :]
        buffer[: len(part)] = part
        return len(part)

    def _decoded(self, chunk: bytes) -> bytes:
        try:
            return self._decoder.decode(chunk, final=not chunk).encode("utf-8", "surrogatepass")
        except UnicodeDecodeError:  # cut within a character, or beyond what UTF-32 has
            self._decoder.reset()
            rest = chunk.decode(self._encoding, "replace") if chunk else ""
            return b"\xff" + rest.encode("utf-8", "surrogatepass")

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()


class _WithNewlines(io.RawIOBase):
    """A file whose lines end with a carriage return alone, with newlines in their place."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        part = self._file.read(len(buffer)).replace(b"\r", b"\n")
        buffer[: len(part)] = part
        return len(part)

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()
