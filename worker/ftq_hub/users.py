"""users.json: who each token belongs to."""

import threading
from collections.abc import Sequence
from pathlib import Path

from ftq_hub.errors import BadRequest
from ftq_hub.files import locked, read_json, write_json
from ftq_hub.records import Role, User


class Users:
    """The tokens of one hub folder; read anew whenever the file changed."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "users.json"
        self._lock_path = folder / ".lock"
        self._guard = threading.Lock()
        self._stamp: tuple[int, int] | None = None
        self._users: dict[str, User] = {}

    def add_token(self, token: str, user: str, role: str, orgs: Sequence[str]) -> User:
        """Store a token, replacing what it meant before.

        Raises BadRequest for an empty token or name, or a role other than read and write.
        """
        if not token.strip() or not user.strip() or role not in set(Role):
            raise BadRequest(f"a token needs a user and a role of read or write, not {role!r}")
        entry = User(user, Role(role), tuple(orgs))
        with locked(self._lock_path):
            stored = read_json(self._path) or {}
            # Tokens are kept as they are: this hub serves tests and demos on one machine, and a
            # person must be able to read the file. Nobody else may.
            write_json(self._path, stored | {token: entry.to_json()}, mode=0o600)
        return entry

    def remove_token(self, token: str) -> None:
        """Forget a token: from now on it is unknown. One that is unknown already is fine."""
        with locked(self._lock_path):
            stored = read_json(self._path) or {}
            kept = {known: user for known, user in stored.items() if known != token}
            write_json(self._path, kept, mode=0o600)

    def find(self, token: str) -> User | None:
        """Return the token's user, None for an unknown token."""
        with self._guard:
            self._refresh()
            return self._users.get(token)

    def _refresh(self) -> None:
        try:
            stat = self._path.stat()
        except FileNotFoundError:
            self._users = {}
            return
        # The inode is part of the stamp because two writes can fall into one clock tick.
        stamp = (stat.st_mtime_ns, stat.st_ino)
        if stamp != self._stamp:
            stored = read_json(self._path) or {}
            self._users = {token: User.from_json(data) for token, data in stored.items()}
            self._stamp = stamp
