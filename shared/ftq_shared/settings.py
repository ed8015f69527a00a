"""Settings: read once, from the environment, into one frozen object that is passed on.

There is one name for each; `ftq doctor` prints the effective values and where they came from.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ftq_shared.errors import UsageError

# name -> one line on what it means; docs/operations.md is checked against this.
SETTINGS = {
    "FTQ_REDIS_URL": "broker, redis:// or rediss://; without it the one that `ftq up` started",
    "FTQ_FLEET_KEY": "file with the fleet's private key; on workers only",
    "FTQ_STORAGE": "folder for job files; default FTQ_HOME/storage",
    "FTQ_HOME": "ftq's own folder on this machine; default ~/.ftq",
    "FTQ_LOG": "log lines of a worker: text (default) or json",
    "HF_ENDPOINT": "the Hub; default https://huggingface.co",
    "HF_TOKEN": "the Hub token; read by the client only",
    "HF_HOME": "cache of downloads; default ~/.cache/huggingface",
}

DEFAULT_ENDPOINT = "https://huggingface.co"


@dataclass(frozen=True)
class Settings:
    """The effective settings of one process."""

    redis_url: str | None  # None: no broker is known
    fleet_key: Path | None  # None: `ftq up`'s own key, in FTQ_HOME
    storage: str
    home: Path
    log: str  # text or json
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
    home = Path(env.get("FTQ_HOME") or "~/.ftq").expanduser().absolute()
    url = env.get("FTQ_REDIS_URL") or None
    if url is None and (home / "broker" / "url").exists():
        url = (home / "broker" / "url").read_text().strip()
        sources["FTQ_REDIS_URL"] = "ftq up"
    key = env.get("FTQ_FLEET_KEY")
    settings = Settings(
        redis_url=url,
        fleet_key=Path(key).expanduser().absolute() if key else None,
        storage=env.get("FTQ_STORAGE") or str(home / "storage"),
        home=home,
        log=env.get("FTQ_LOG") or "text",
        hf_endpoint=(env.get("HF_ENDPOINT") or DEFAULT_ENDPOINT).rstrip("/"),
        hf_home=Path(env.get("HF_HOME") or "~/.cache/huggingface").expanduser().absolute(),
        sources=sources,
    )
    _refuse_bad(settings)
    return settings


def _refuse_bad(settings: Settings) -> None:
    """Raise one UsageError for everything that is wrong."""
    bad = []
    url = settings.redis_url or "redis://"
    if not url.startswith(("redis://", "rediss://")):
        bad.append("FTQ_REDIS_URL: must begin with redis:// or rediss:// (TLS)")
    if "ssl_cert_reqs" in url or "ssl_check_hostname" in url:
        bad.append("FTQ_REDIS_URL: certificates are always checked; leave the ssl_ options out")
    if not settings.hf_endpoint.startswith(("http://", "https://")):
        bad.append(f"HF_ENDPOINT: {settings.hf_endpoint!r} must begin with http:// or https://")
    if settings.log not in ("text", "json"):
        bad.append(f"FTQ_LOG: {settings.log!r} must be text or json")
    if bad:
        raise UsageError("\n".join(bad), code="bad_setting")
