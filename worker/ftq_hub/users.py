"""users.json: who each token belongs to."""

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from ftq_hub.errors import BadRequest
from ftq_hub.files import locked, read_json, write_json
from ftq_hub.records import OrgRole, Role, User


class Users:
    """The tokens of one hub folder; read anew whenever the file changed."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "users.json"
        self._lock_path = folder / ".lock"
        self._guard = threading.Lock()
        self._stamp: tuple[int, int] | None = None
        self._users: dict[str, User] = {}

    def add_token(
        self,
        token: str,
        user: str,
        role: str,
        orgs: Sequence[str] | Mapping[str, str],
        expires: float | None,
    ) -> User:
        """Store a token, replacing what it meant before.

        Raises BadRequest for an empty token or name, or a role that there is not.
        """
        if not token.strip() or not user.strip() or role not in set(Role):
            raise BadRequest(f"a token needs a user and a role of read or write, not {role!r}")
        roles = orgs if isinstance(orgs, Mapping) else dict.fromkeys(orgs, "write")
        if wrong := set(roles.values()) - set(OrgRole):
            known = ", ".join(OrgRole)
            raise BadRequest(f"a role in an organisation is one of {known}, not {wrong.pop()!r}")
        entry = User(user, Role(role), {org: OrgRole(name) for org, name in roles.items()}, expires)
        with locked(self._lock_path):
            stored = self._stored()
            self._save(stored | {token: entry})
        return entry

    def remove_token(self, token: str) -> None:
        """Forget a token: from now on it is unknown. One that is unknown already is fine."""
        with locked(self._lock_path):
            self._save({known: user for known, user in self._stored().items() if known != token})

    def find(self, token: str) -> User | None:
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
            self._users = self._stored()
            self._stamp = stamp

    def _stored(self) -> dict[str, User]:
        return read_json(self._path, dict[str, User]) or {}

    def _save(self, users: dict[str, User]) -> None:
        # Tokens are kept as they are: this hub serves tests and demos on one machine, and a
        # person must be able to read the file. Nobody else may.
        entries = {token: user.to_json() for token, user in users.items()}
        write_json(self._path, entries, mode=0o600)
