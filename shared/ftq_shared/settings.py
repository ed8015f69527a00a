"""Settings: read once, from the environment, into one frozen object that is passed on.

There is one name for each; `ftq doctor` prints the effective values and where they came from.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ftq_shared.broker_url import parse_broker_url
from ftq_shared.errors import UsageError

# name -> one line on what it means; docs/operations.md is checked against this.
SETTINGS = {
    "FTQ_REDIS_URL": "broker, redis:// or rediss://; without it the one that `ftq up` started",
    "FTQ_FLEET_KEY": "file with the fleet's private key; on workers only",
    "FTQ_STORAGE": "folder for job files; default FTQ_HOME/storage",
    "FTQ_HOME": "ftq's own folder on this machine; default ~/.ftq",
    "FTQ_LOG": "log lines of a worker: text (default) or json",
    "FTQ_DATA_ROOTS": "folders that worker:/path may name, separated by `:`; default "
    "FTQ_STORAGE/data, with `ftq up` also the person's home",
    "FTQ_UMASK": "who reads what a worker writes: 077 (default) its user, 027 or 007 its group",
    "HF_ENDPOINT": "the Hub; default https://huggingface.co",
    "HF_TOKEN": "the Hub token; read by the client only",
    "HF_HOME": "cache of downloads; default ~/.cache/huggingface",
}

UMASKS = ("077", "027", "007")
DEFAULT_UMASK = "077"
DEFAULT_ENDPOINT = "https://huggingface.co"


@dataclass(frozen=True)
class Settings:
    """The effective settings of one process."""

    redis_url: str | None  # as `broker_url` rebuilds it; None: no broker is known
    fleet_key: Path | None  # None: `ftq up`'s own key, in FTQ_HOME
    storage: str
    home: Path
    log: str  # text or json
    umask: int  # of whatever a worker writes
    data_roots: tuple[Path, ...] | None  # that `worker:` may name; None: the default
    hf_endpoint: str
    hf_home: Path
    sources: Mapping[str, str] = field(default_factory=dict)  # name -> where it came from

    @property
    def broker_dir(self) -> Path:
        """Where the embedded broker keeps its data, password and lock."""
        return self.home / "broker"

    @property
    def fleet_key_file(self) -> Path:
        """The fleet's private key: the one named, else the one that `ftq up` makes."""
        return self.fleet_key or self.home / "fleet.key"


def load_settings(env: Mapping[str, str] | None = None) -> Settings:
    """Read the settings from `env` (default: the process's environment).

    Raises UsageError that names all bad values together.
    """
    env = os.environ if env is None else env
    sources = {name: "environment" if env.get(name) else "default" for name in SETTINGS}
    read = _Reader(env)
    home = read.path("FTQ_HOME", "~/.ftq")
    url, key = env.get("FTQ_REDIS_URL") or None, env.get("FTQ_FLEET_KEY")
    if url is None and (url := _started_here(home)):
        sources["FTQ_REDIS_URL"] = "ftq up"
    settings = Settings(
        redis_url=read.broker(url) if url else None,
        fleet_key=read.path("FTQ_FLEET_KEY", "") if key else None,
        storage=env.get("FTQ_STORAGE") or str(home / "storage"),
        home=home,
        log=read.one_of("FTQ_LOG", ("text", "json")),
        umask=read.umask(),
        data_roots=read.roots(),
        hf_endpoint=read.endpoint(),
        hf_home=read.path("HF_HOME", "~/.cache/huggingface"),
        sources=sources,
    )
    read.finish()
    return settings


def _started_here(home: Path) -> str | None:
    """Return the broker that `ftq up` started on this machine, None without one."""
    try:
        return (home / "broker" / "url").read_text().strip() or None
    except (OSError, ValueError):  # not there, or somebody else's
        return None


class _Reader:
    """Reads one setting at a time, and remembers what is wrong with each."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self._env = env
        self._bad: list[UsageError] = []

    def _refuse(self, text: str, hint: str = "") -> None:
        self._bad.append(UsageError(text, hint=hint))

    def path(self, name: str, default: str) -> Path:
        """Return an absolute path; `~` is the person's home."""
        value = self._env.get(name) or default
        try:
            return Path(value).expanduser().absolute()
        except (RuntimeError, OSError) as error:  # no home, an unknown user, no working directory
            self._refuse(f"{name}: {value!r}: {error}", f"set {name} to an absolute path")
            return Path("/nonexistent")

    def broker(self, url: str) -> str | None:
        """Return the broker's URL as both libraries read it."""
        try:
            return parse_broker_url(url).whole
        except UsageError as error:
            self._bad.append(error)
            return None

    def endpoint(self) -> str:
        value = (self._env.get("HF_ENDPOINT") or DEFAULT_ENDPOINT).rstrip("/")
        if not value.startswith(("http://", "https://")):
            self._refuse(f"HF_ENDPOINT: {value!r} must begin with http:// or https://")
        return value

    def one_of(self, name: str, allowed: tuple[str, ...]) -> str:
        """Return a word, by default the first of those allowed."""
        value = self._env.get(name) or allowed[0]
        if value not in allowed:
            self._refuse(f"{name}: {value!r} must be {' or '.join(allowed)}")
        return value

    def umask(self) -> int:
        value = self._env.get("FTQ_UMASK") or DEFAULT_UMASK
        if value not in UMASKS:
            self._refuse(f"FTQ_UMASK: {value!r} must be {', '.join(UMASKS)}")
            return 0o077
        return int(value, 8)

    def roots(self) -> tuple[Path, ...] | None:
        """Return the folders that `worker:` may name, None where nobody has said."""
        listed = self._env.get("FTQ_DATA_ROOTS")
        if listed is None:
            return None
        found = []
        for entry in filter(None, listed.split(os.pathsep)):
            try:
                root = Path(entry).expanduser()
            except RuntimeError as error:
                self._refuse(f"FTQ_DATA_ROOTS: {entry!r}: {error}")
                continue
            if not root.is_absolute():
                self._refuse(f"FTQ_DATA_ROOTS: {entry!r} is no absolute path")
            found.append(root)
        return tuple(found)

    def finish(self) -> None:
        """Raise one UsageError for everything that is wrong."""
        if self._bad:
            text = "\n".join(error.message for error in self._bad)
            hints = dict.fromkeys(error.hint for error in self._bad if error.hint)
            raise UsageError(text, code="bad_setting", hint="; ".join(hints))
