"""Whose jobs are whose: one name for a person on all machines.

It is the user of the Hub token, else FTQ_USER, else the name of the account. The machine's name is
no part of it, so that `ftq tail` finds your newest job from anywhere.
"""

import contextlib
import getpass
import hashlib
import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ftq_client.view.format import number
from ftq_shared.errors import FtqError
from ftq_shared.paths import write_atomic
from ftq_shared.settings import Settings

_ASK_S = 2.0  # of the Hub, who a token belongs to; asked once for each token
_AGAIN_S = 600.0  # after so long a Hub that did not say is asked again


@dataclass(frozen=True)
class Person:
    """Who submits, and under which other names; `JobStore.newest_first` finds the jobs of all."""

    name: str
    also: frozenset[str] = frozenset()

    @property
    def names(self) -> frozenset[str]:
        """All names of this person."""
        return self.also | {self.name}


class Identity:
    """Finds out who uses this machine. The answers of the Hub are kept in FTQ_HOME."""

    def __init__(self, settings: Settings) -> None:
        self._endpoint = settings.hf_endpoint
        self._known = _Known(settings.home / "hub_users.json")

    @cached_property
    def me(self) -> Person:
        """The person at this machine, with the token that is found on it."""
        from ftq_client.submit.tokens import find_token

        return self.of(find_token())

    def of(self, token: str | None) -> Person:
        """Return the person that a Hub token belongs to, None for no token."""
        hub = self._hub_user(token) if token else ""
        chosen = os.environ.get("FTQ_USER", "").strip()
        # A token that was typed for one job is gone, but whose it was is known.
        remembered = [] if hub else self._known.newest_first(self._endpoint)
        account = "" if chosen else account_name()
        names = [name for name in (hub, chosen, *remembered, account) if name]
        return Person(names[0], frozenset(names[1:]))

    def _hub_user(self, token: str) -> str:
        """Return whose the token is; '' while the Hub does not say."""
        key = hashlib.sha256(f"{self._endpoint} {token}".encode()).hexdigest()[:32]
        known = self._known.get(key)
        if known is None:
            known = _ask_hub(self._endpoint, token)
            self._known.put(key, self._endpoint, known)
        return known


class _Known:
    """Hub users by a hash of their token, in a file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def get(self, key: str) -> str | None:
        """Return the user, '' when the Hub did not say a moment ago, None to ask it."""
        found = self._read().get(key)
        if not isinstance(found, dict) or not isinstance(found.get("user"), str):
            return None
        fresh = abs(time.time() - (number(found.get("asked")) or 0.0)) < _AGAIN_S
        return found["user"] if found["user"] or fresh else None

    def newest_first(self, endpoint: str) -> list[str]:
        """Return the users of this Hub, the one who was found last first."""
        found = [
            (number(one.get("asked")) or 0.0, str(one["user"]))
            for one in self._read().values()
            if isinstance(one, dict) and one.get("user") and one.get("hub") == endpoint
        ]
        return list(dict.fromkeys(user for _, user in sorted(found, reverse=True)))

    def put(self, key: str, endpoint: str, user: str) -> None:
        entry = {"hub": endpoint, "user": user, "asked": time.time()}
        with contextlib.suppress(OSError):  # a read-only home: it is asked each time
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(self._path, json.dumps({**self._read(), key: entry}), mode=0o600)

    def _read(self) -> Mapping[str, Any]:
        try:
            found = json.loads(self._path.read_text())
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}


def _ask_hub(endpoint: str, token: str) -> str:
    from ftq_shared.hub import HubClient, Retry

    try:
        return HubClient(endpoint, token, retry=Retry(total_s=0.0, request_s=_ASK_S)).whoami().name
    except (FtqError, ImportError):
        return ""  # it is away, behind a proxy that is not served, or does not know the token


def account_name() -> str:
    """Return the name of the account; a container may have given its number no name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid{os.getuid()}"
