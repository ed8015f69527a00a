"""Which files of a host a spec may name with `worker:`; docs/security.md says why.

Everybody who may submit sees sample rows of what a job reads. So only the folders that the worker's
own setting names are open, and of them neither the worker's own files nor the system's. Paths are
judged after all links are followed.
"""

import fnmatch
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ftq_shared.dataset_files import walk, why_not
from ftq_shared.errors import Refused
from ftq_shared.settings import Settings

_SYSTEM = ("/proc", "/sys", "/dev", "/etc")
_OWN = ("broker", "workers", "fleet.key", "known_fleets.json", "up.log")  # in FTQ_HOME
FILES_MAX = 100_000  # that one path may name
SEEN_MAX = 1_000_000  # that are looked at to find them
_MAGIC = frozenset("*?[")


_Seen = tuple[Path, str]  # what was found, and why it is not read, or ""


@dataclass(frozen=True)
class FoundFiles:
    """What a path names."""

    files: list[Path]  # regular files, all links followed
    unread: list[_Seen]


@dataclass(frozen=True)
class DataRoots:
    """The folders that are open, and those that stay closed within them."""

    open: tuple[str, ...] = ()
    closed: tuple[str, ...] = _SYSTEM  # whatever is open
    private: tuple[str, ...] = ()  # closed, unless a folder within is open

    @classmethod
    def of(cls, settings: Settings, storage: Path) -> "DataRoots":
        """Return what a worker's settings open; by default `data` in its storage."""
        roots = settings.data_roots
        opened = (storage / "data",) if roots is None else roots
        own = [settings.home / name for name in _OWN]
        closed = [*own, settings.fleet_key_file, storage / "jobs"]
        return cls(
            open=tuple(map(os.path.realpath, opened)),
            closed=(*_SYSTEM, *map(os.path.realpath, closed)),
            private=tuple(map(os.path.realpath, (settings.home, storage))),
        )

    def admits(self, path: Path) -> bool:
        """Return whether a path, all links followed, may be read."""
        real = Path(os.path.realpath(path))
        roots = [Path(root) for root in self.open if real.is_relative_to(root)]
        if not roots or any(real.is_relative_to(place) for place in self.closed):
            return False
        nearest = max(roots, key=lambda root: len(root.parts))
        return not any(
            real.is_relative_to(place) and not nearest.is_relative_to(place)
            for place in self.private
        )

    def _sorted_out(self, found: Iterable[_Seen]) -> FoundFiles:
        """Take out what cannot be read. Raises ValueError for too many files."""
        files: dict[Path, Path] = {}
        unread: list[_Seen] = []
        for seen, (path, reason) in enumerate(found, 1):
            real = Path(os.path.realpath(path))
            if not self.admits(path):
                # In the same words whether it is there or not; what no link leads to is ftq's own.
                if path.is_symlink():
                    unread.append((path, "is a link out of the folders that are open"))
            elif reason:
                unread.append((path, reason))
            elif (same := files.setdefault(real, path)) != path:
                unread.append((path, f"is another name of {same.name}"))
            if len(files) > FILES_MAX:
                raise ValueError(f"it names more than {FILES_MAX:,} files")
            if seen > SEEN_MAX:
                raise ValueError(f"there are more than {SEEN_MAX:,} files below it")
        return FoundFiles(list(files), unread)

    def path(self, name: str, what: str, *, written: str = "") -> Path:
        """Return the path that `worker:` names, all links followed.

        Raises Refused (`outside_roots`), in the same words whether it is there or not; they name
        it as it was `written`.
        """
        written = written or name
        try:
            plain = Path(name).expanduser()
            path = Path(os.path.realpath(plain))
        except (OSError, ValueError, RuntimeError) as error:
            raise _no_path(written, what, error) from error
        if not plain.is_absolute() or not self.admits(path):
            raise Refused(
                f"{what}: worker:{written:.200} is in none of the folders that this worker opens",
                code="outside_roots",
                hint=f"put it below {' or '.join(self.open) or 'a folder that is open'}; who runs "
                "the worker opens other folders with FTQ_DATA_ROOTS",
                field=what,
            )
        return path

    def files(self, name: str) -> FoundFiles:
        """Return the files that a path, folder or glob names, and what of it cannot be read.

        Raises Refused as `path` does, also for more than FILES_MAX files.
        """
        parts = Path(name).parts
        fixed = next((n for n, part in enumerate(parts) if _MAGIC & set(part)), len(parts))
        root = self.path(str(Path(*parts[:fixed])), "dataset", written=name)
        try:
            if os.path.lexists(whole := root.joinpath(*parts[fixed:])):  # brackets in a name
                root = self.path(str(whole), "dataset", written=name)
                found: Iterable[_Seen] = walk(root) if root.is_dir() else [(root, why_not(root))]
            else:
                found = _glob(root, parts[fixed:]) if fixed < len(parts) else []
            return self._sorted_out(found)
        except (OSError, ValueError) as error:
            raise _no_path(name, "dataset", error) from error


def inner_files(folder: Path) -> FoundFiles:
    """Return the files below a job's own folder; a link out of it is not followed."""
    return DataRoots(open=(os.path.realpath(folder),), closed=())._sorted_out(walk(folder))


def _glob(root: Path, parts: Sequence[str]) -> Iterator[_Seen]:
    """Yield what a pattern names below a folder. Raises ValueError for what is no pattern.

    Python's own globs follow links into circles, and cost more with each star.
    """
    stars = sum(part == "**" for part in parts)
    if stars > 2 or any("**" in part and part != "**" for part in parts):
        raise ValueError("** stands alone between two slashes, at most twice")
    if parts[-1] == "**":
        parts = (*parts, "*")
    for path, reason in walk(root, None if stars else len(parts)):
        names = path.relative_to(root).parts
        hidden = any(name.startswith(".") for name in names)  # a star does not mean it
        if not hidden and _fits(names, parts):
            yield path, reason


def _fits(names: Sequence[str], parts: Sequence[str]) -> bool:
    """Return whether a path fits a pattern; both are taken apart."""
    if not parts or not names:
        return not parts and not names
    if parts[0] == "**":
        return any(_fits(names[n:], parts[1:]) for n in range(len(names)))
    return fnmatch.fnmatchcase(names[0], parts[0]) and _fits(names[1:], parts[1:])


def _no_path(name: str, what: str, error: Exception) -> Refused:
    why = getattr(error, "strerror", None) or error
    return Refused(
        f"{what}: worker:{name:.200} is no path that can be read: {why}",
        code="bad_path",
        hint="write an absolute path, such as worker:/data/rows.jsonl",
        field=what,
    )
