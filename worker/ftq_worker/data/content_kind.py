"""What a file is by its first bytes, where that is something else than its name says."""

import shlex
from collections.abc import Mapping

from ftq_shared.errors import Refused
from ftq_shared.sources import compression, data_suffix

HEAD = 64  # bytes that tell
_POINTER = b"version https://git-lfs.github.com/spec/"
# First bytes, what they mean, and the suffix under which ftq reads it ("" for none).
_PACKED: Mapping[bytes, tuple[str, str]] = {
    b"\x1f\x8b": ("a gzip file", ".gz"),
    b"\x28\xb5\x2f\xfd": ("a Zstandard file", ".zst"),
    b"\xfd7zXZ\x00": ("an xz file", ".xz"),
    b"BZh": ("a bzip2 file", ".bz2"),
}
_OTHERS: Mapping[bytes, tuple[str, str]] = {
    b"PAR1": ("a parquet file", ".parquet"),
    b"ARROW1": ("an Arrow file", ".arrow"),
    b"PK\x03\x04": ("a ZIP archive or an Office document", ""),
    b"\xd0\xcf\x11\xe0": ("an Office document", ""),
    b"%PDF": ("a PDF document", ""),
    b"SQLite format 3": ("an SQLite database", ""),
}
_PAGES = (b"<!doctype html", b"<html")


def refuse_other_kind(name: str, head: bytes) -> None:
    """Raise Refused (`bad_file`) for a file that is no text, or text that is no data.

    `head`: the first HEAD bytes of what the file unpacks to.
    """
    refuse_pointer(name, head)
    for marks in (_PACKED, _OTHERS):
        for mark, (what, suffix) in marks.items():
            if head.startswith(mark) and not (mark == b"BZh" and head[4:10] != b"1AY&SY"):
                raise _refused(name, what, _way_out(name, suffix, packed=marks is _PACKED))
    if head.lstrip().lower().startswith(_PAGES) and data_suffix(name) not in (".txt", ".text"):
        raise _refused(name, "a web page", "download the file itself (on a Hub its `resolve` link)")


def refuse_pointer(name: str, head: bytes) -> None:
    """Raise Refused (`bad_file`) for what Git LFS leaves in the place of a file."""
    if head.startswith(_POINTER):
        hint = "fetch the file itself: `git lfs pull`, or `hf download REPO --repo-type dataset`"
        raise _refused(name, "a Git LFS pointer, not the file", hint)


def _way_out(name: str, suffix: str, *, packed: bool) -> str:
    if not suffix:
        return "take the rows out of it, and give them as .csv or .jsonl"
    if compression(name):
        return "it is packed twice; unpack it once"
    new = name + suffix if packed else name.removesuffix(data_suffix(name)) + suffix
    return f"rename it: `mv {shlex.quote(name)} {shlex.quote(new)}`"


def _refused(name: str, what: str, hint: str) -> Refused:
    return Refused(f"{name} is {what}", code="bad_file", hint=hint, file=name)
