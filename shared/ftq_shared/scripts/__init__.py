"""The Lua scripts: every change of a job or host, each one atomic and safe to repeat."""

import functools
from importlib import resources

from ftq_shared import lifetimes

NAMES = (
    "append",
    "append_rest",
    "append_when_full",  # the same text, for the last events of a phase
    "beat",
    "cancel",
    "claim",
    "drain",
    "finish",
    "leases",
    "lock",
    "place",
    "reap",
    "renew",
    "requeue",
    "retry",
    "select",
    "submit",
    "wait",
)

ALONE = frozenset({"beat", "drain", "renew", "select"})  # begin with nothing
OF_PLACES = frozenset({"leases"})  # begin with places.lua; the others work on one job
# What keeps a lease or ends a job may go on when the broker is full: it adds next to nothing, and
# without it nothing could be freed. The others are refused as a whole, before their first write.
WHEN_FULL = frozenset(
    {
        "append_rest",
        "append_when_full",
        "beat",
        "cancel",
        "claim",
        "drain",
        "finish",
        "leases",
        "lock",
        "reap",
        "renew",
        "requeue",
        "select",
    }
)


# Constants of lifetimes.py that the scripts on a job name: they stand before each, so that how long
# something is kept has one source.
CONSTANTS = (
    "JOB_TTL_S",
    "EVENTS_TTL_S",
    "SECRET_TTL_S",
    "LOCK_TTL_S",
    "EVENTS_EXACT",
    "MILESTONES_KEPT",
)


def source(name: str) -> str:
    """Return the text of a script; one on a job begins with CONSTANTS and what all share."""
    flags = " flags=allow-oom" if name in WHEN_FULL else ""
    body = _text(name.removesuffix("_when_full"))
    if name in OF_PLACES:
        body = _text("places") + body
    elif name not in ALONE:
        constants = "".join(f"local {name} = {getattr(lifetimes, name)}\n" for name in CONSTANTS)
        body = constants + _text("places") + _text("lib") + body
    return f"#!lua{flags}\n{body}"


@functools.cache
def _text(name: str) -> str:
    return (resources.files(__name__) / f"{name}.lua").read_text()
