"""moves.json: where repos have gone that were renamed."""

from pathlib import Path

from ftq_hub.files import read_json, write_json
from ftq_hub.records import RepoType


class Moves:
    """Old names and what they stand for now; names in any case. The caller holds the lock."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "moves.json"

    def find(self, kind: RepoType, repo_id: str) -> str | None:
        """Return the present name of a repo by an old one, None for a name that was never one."""
        return self._all().get(_key(kind, repo_id))

    def add(self, kind: RepoType, old: str, new: str) -> None:
        """Send `old`, and what was sent to it, on to `new`, which names a repo from now on."""
        moved = {key: new if to == old else to for key, to in self._all().items()}
        self._save(moved | {_key(kind, old): new}, kind, new)

    def forget(self, kind: RepoType, repo_id: str) -> None:
        """Let a name stand for a repo of its own again."""
        self._save(self._all(), kind, repo_id)

    def _save(self, moved: dict[str, str], kind: RepoType, free: str) -> None:
        moved.pop(_key(kind, free), None)
        write_json(self._path, moved)

    def _all(self) -> dict[str, str]:
        return read_json(self._path, dict[str, str]) or {}


def _key(kind: RepoType, repo_id: str) -> str:
    return f"{kind.plural}/{repo_id.lower()}"
