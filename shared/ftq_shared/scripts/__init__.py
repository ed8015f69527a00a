"""The Lua scripts: every change of a job or host, each one atomic and safe to repeat."""

import functools
from importlib import resources

NAMES = (
    "append",
    "beat",
    "cancel",
    "claim",
    "finish",
    "place",
    "reap",
    "renew",
    "requeue",
    "retry",
    "submit",
    "wait",
)


@functools.cache
def source(name: str) -> str:
    """Return the text of a script, with the shared part in front where it works on a job."""
    files = resources.files(__name__)
    body = (files / f"{name}.lua").read_text()
    return body if name == "beat" else (files / "lib.lua").read_text() + body
