"""Which files of a folder hold a dataset's rows, and what the others are: each is read or named.

Client and worker judge by the same names. What is known to stand beside data (a README, a licence,
hidden files) needs no word; every other file that is not read is named, with the reason.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from ftq_shared.sources import TABLE_SUFFIXES, compression, data_suffix

# What `Dataset.save_to_disk` and the Hub write beside the rows.
RECORDS = frozenset(
    {"state.json", "dataset_info.json", "dataset_infos.json", "dataset_dict.json", "config.json"}
)
_COMPANY = re.compile(
    r"(?:readme|licen[cs]e|copying|notice|citation|changelog|authors|contributing"
    r"|code_of_conduct|dvc\.lock)(?:[._-].*)?|requirements.*\.txt|.*\.(?:md5|sha1|sha256)(?:sums)?"
    r"|(?:md5|sha1|sha256)sums?(?:\.txt)?|thumbs\.db|desktop\.ini|_success"
)
# Code, pictures and settings: not rows, whatever they hold.
_CODE = (".py", ".ipynb", ".sh", ".bat", ".ps1", ".js", ".ts", ".css")
_SETTINGS = (".toml", ".yaml", ".yml", ".ini", ".cfg", ".lock", ".log", ".md", ".rst")
_PICTURES = (".png", ".jpg", ".jpeg", ".gif", ".svg", ".webp", ".ico")
_NO_ROWS = frozenset(_CODE + _SETTINGS + _PICTURES)


@dataclass(frozen=True)
class UnreadFile:
    """A file of a dataset that is not used."""

    name: str  # path below the dataset's folder
    reason: str
    is_data: bool  # it may hold rows; False for code, pictures, settings


@dataclass(frozen=True)
class Sorted:
    """The files of a dataset by what is done with them; names as they were given."""

    read: list[str] = field(default_factory=list)
    unread: list[UnreadFile] = field(default_factory=list)
    records: list[str] = field(default_factory=list)  # of RECORDS: they say how to read others


def sort_files(names: Iterable[str]) -> Sorted:
    """Sort the names of a dataset's files, paths with slashes, by what is done with them.

    A file that is given alone is read whatever it is called, if its kind is one that is read.
    """
    given = sorted(names)
    found = Sorted()
    for name in given:
        last = PurePosixPath(name).name
        alone = len(given) == 1 and bool(data_suffix(last))
        if not alone and last in RECORDS:
            found.records.append(name)
        elif alone or not (last.startswith((".", "~$")) or _COMPANY.fullmatch(last.lower())):
            if last.startswith("cache-") and last.endswith(".arrow"):
                found.unread.append(UnreadFile(name, "is a cache of datasets", is_data=False))
            elif data_suffix(last):
                found.read.append(name)
            else:
                found.unread.append(_unread(name))
    return found


def _unread(name: str) -> UnreadFile:
    packed = compression(name)
    inner = PurePosixPath(name.lower().removesuffix(packed))
    if packed and inner.suffix in TABLE_SUFFIXES:
        reason = f"a {inner.suffix} file is not read from {packed}; unpack it"
    else:
        kind = inner.suffix + packed
        reason = f"files of kind {kind} are not read" if kind else "its name has no suffix"
    return UnreadFile(name, reason, is_data=inner.suffix not in _NO_ROWS)


def listed(unread: Sequence[UnreadFile], most: int = 5) -> str:
    """Return unread files in words, each with its reason, the first `most` of them."""
    words = [f"{file.name} ({file.reason})" for file in unread[:most]]
    more = len(unread) - len(words)
    return ", ".join(words) + (f" and {more:,} more" if more > 0 else "")


def base_name(name: str) -> str:
    """Return a file's name without what says its kind: `train` for `data/train.jsonl.gz`."""
    path = PurePosixPath(name)
    stem = path.name[: len(path.name) - len(compression(path.name))]
    return PurePosixPath(stem).stem if data_suffix(path.name) else path.stem
