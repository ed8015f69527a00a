"""Which files of a folder hold a dataset's rows, and what the others are: each is read or named.

Client and worker judge by the same names. What is known to stand beside data (a README, a licence,
what tools keep in hidden places) needs no word; everything else that is not read is named, with the
reason.
"""

import json
import os
import re
import stat
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath

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
# Where tools keep what is theirs.
_TOOLS = frozenset(
    {".git", ".hg", ".svn", ".dvc", ".cache", ".huggingface", ".ipynb_checkpoints", ".venv"}
    | {".idea", ".vscode", ".Trash", ".Spotlight-V100", ".fseventsd", ".mypy_cache", ".ruff_cache"}
)
_HIDDEN = "is hidden: a dot begins its name"
_KINDS = {
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
NAMED = 100  # files that are named each; of a folder of pictures the others are counted
UNREAD_LIST = ".ftq-unread.json"  # beside the client's files: what of its folder did not travel


@dataclass(frozen=True)
class UnreadFile:
    """A file of a dataset that is not used."""

    name: str  # path below the dataset's folder
    reason: str
    is_data: bool  # it may hold rows; False for code, pictures, settings
    count: int = 1  # files that it stands for


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
        if not alone and any(part.startswith(".") for part in PurePosixPath(name).parts):
            if _is_worth_a_word(PurePosixPath(name)):
                found.unread.append(UnreadFile(name, _HIDDEN, is_data=False))
        elif not alone and last in RECORDS:
            found.records.append(name)
        elif alone or not (last.startswith("~$") or _COMPANY.fullmatch(last.lower())):
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


def _is_worth_a_word(path: PurePosixPath) -> bool:
    """Return whether something hidden may hold rows: no tool has put it there."""
    hidden = next(part for part in path.parts if part.startswith("."))
    # `._` is what Macs write beside a file.
    if hidden in _TOOLS or path.name.startswith("._") or path.name == UNREAD_LIST:
        return False
    return hidden != path.name or bool(data_suffix(path.name))


def walk(folder: Path, depth: int | None = None) -> Iterator[tuple[Path, str]]:
    """Yield what lies up to `depth` levels below a folder, each with why it is not read, or "".

    Of a hidden folder, one that cannot be opened, and a link to a folder (it may lead in a circle),
    the folder itself is yielded; what is hidden and needs no word is not.
    """
    lost: list[OSError] = []
    for at, folders, names in os.walk(folder, onerror=lost.append):
        here = Path(at)
        if depth is not None and len(here.relative_to(folder).parts) + 1 >= depth:
            folders.clear()
        links = [name for name in folders if (here / name).is_symlink()]
        hidden = [name for name in (*folders, *names) if name.startswith(".")]
        folders[:] = sorted({*folders} - {*links, *hidden})
        for name in sorted(hidden):
            if (name in names and _is_worth_a_word(PurePosixPath(name))) or (
                name not in names and name not in _TOOLS
            ):
                yield here / name, _HIDDEN
        for name in sorted({*names, *links} - {*hidden}):
            yield here / name, why_not(here / name)
    for error in lost:
        if isinstance(error, FileNotFoundError):  # it went away meanwhile
            continue
        yield Path(error.filename), f"is a folder that cannot be read: {error.strerror}"


def why_not(path: Path) -> str:
    """Return why something on disk cannot be read as a file, "" where it can be."""
    try:
        mode = path.stat().st_mode
    except OSError as error:
        link = "is a link that leads nowhere"
        return link if path.is_symlink() else f"cannot be read: {error.strerror}"
    if stat.S_ISDIR(mode):
        return "is a link to a folder, which is not followed"
    if not stat.S_ISREG(mode):
        return f"is {_KINDS.get(stat.S_IFMT(mode), 'something else')}, not a file"
    return "" if os.access(path, os.R_OK) else "cannot be read: permission denied"


def unread_entry(name: str, reason: str) -> UnreadFile:
    """Return what is said of something that `walk` gave a reason for."""
    return UnreadFile(name, reason, is_data=reason != _HIDDEN and _may_hold_rows(name))


def _may_hold_rows(name: str) -> bool:
    path = PurePosixPath(name.lower().removesuffix(compression(name)))
    return path.suffix not in _NO_ROWS and not _COMPANY.fullmatch(path.name)


def grouped(unread: Sequence[UnreadFile]) -> list[UnreadFile]:
    """Return the first NAMED files, and for each reason of the others how many there are."""
    first, rest = list(unread[:NAMED]), unread[NAMED:]
    counts: Counter[tuple[str, bool]] = Counter()
    for file in rest:
        counts[file.reason, file.is_data] += file.count
    return first + [
        UnreadFile(f"{count:,} more", reason, is_data, count)
        for (reason, is_data), count in counts.items()
    ]


def count_files(unread: Iterable[UnreadFile]) -> int:
    """Return how many files entries stand for."""
    return sum(file.count for file in unread)


def unread_to_json(unread: Sequence[UnreadFile]) -> bytes:
    """Return what UNREAD_LIST holds."""
    return json.dumps([asdict(file) for file in grouped(unread)]).encode()


def unread_from_json(content: bytes) -> list[UnreadFile]:
    """Read UNREAD_LIST. Raises ValueError for what `unread_to_json` has not written."""
    try:
        return [UnreadFile(**entry) for entry in json.loads(content)]
    except (TypeError, RecursionError) as error:
        raise ValueError(str(error)) from error


def listed(unread: Sequence[UnreadFile], most: int = 5) -> str:
    """Return unread files in words, each with its reason, the first `most` of them."""
    words = [f"{file.name} ({file.reason})" for file in unread[:most]]
    more = count_files(unread[most:])
    return ", ".join(words) + (f" and {more:,} more" if more > 0 else "")


def base_name(name: str) -> str:
    """Return a file's name without what says its kind: `train` for `data/train.jsonl.gz`."""
    path = PurePosixPath(name)
    stem = path.name[: len(path.name) - len(compression(path.name))]
    return PurePosixPath(stem).stem if data_suffix(path.name) else path.stem
