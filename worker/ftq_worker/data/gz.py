"""Compressed files that `datasets` unpacks whole: how much that would be is asked first."""

import gzip
import zlib
from pathlib import Path

from ftq_shared.errors import Refused

_READ = 1 << 20  # bytes at a time
_ALWAYS = 1 << 30  # bytes that any file may unpack to
_RATIO = 200  # text shrinks to a tenth, rarely to a fiftieth


def refuse_gz_bomb(path: Path) -> None:
    """Raise Refused for a .gz that is damaged, or stands for far more than text ever does."""
    if path.suffix.lower() != ".gz":
        return
    most, unpacked = max(_ALWAYS, path.stat().st_size * _RATIO), 0
    try:
        with gzip.open(path) as file:
            while part := len(file.read(_READ)):
                unpacked += part
                if unpacked > most:
                    raise _refused(path, f"unpacks to more than {most / 1e9:.1f} GB")
    except (OSError, EOFError, zlib.error) as error:
        raise _refused(path, f"cannot be unpacked: {error}") from error


def _refused(path: Path, what: str) -> Refused:
    return Refused(
        f"{path.name} {what}",
        code="bad_file",
        hint="bring the dataset as jsonl or parquet",
        file=path.name,
    )
