"""The Lua scripts: every change of a job or host, each one atomic and safe to repeat."""

import functools
from importlib import resources

NAMES = (
    "append",
    "append_when_full",  # the same text, for the last events of a phase
    "beat",
    "cancel",
    "claim",
    "drain",
    "finish",
    "lock",
    "place",
    "reap",
    "renew",
    "requeue",
    "retry",
    "submit",
    "wait",
)

OF_HOSTS = frozenset({"beat", "drain"})  # the others work on a job
# What keeps a lease or ends a job may go on when the broker is full: it adds next to nothing, and
# without it nothing could be freed. The others are refused as a whole, before their first write.
WHEN_FULL = frozenset(
    {
        "append_when_full",
        "beat",
        "cancel",
        "claim",
        "drain",
        "finish",
        "lock",
        "reap",
        "renew",
        "requeue",
    }
)


@functools.cache
def source(name: str) -> str:
    """Return the text of a script, with the shared part in front where it works on a job."""
    files = resources.files(__name__)
    body = (files / f"{name.removesuffix('_when_full')}.lua").read_text()
    shared = "" if name in OF_HOSTS else (files / "lib.lua").read_text()
    flags = " flags=allow-oom" if name in WHEN_FULL else ""
    return f"#!lua{flags}\n{shared}{body}"
