"""What the broker is, and whether jobs are safe there; asked by `ftq worker` and `ftq doctor`."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ftq_shared.errors import BrokerUnreachable

if TYPE_CHECKING:
    from redis import Redis

# The lowest that tests/chaos/brokers.py has run a whole job on. Scripts need 7.0 (`#!lua flags`).
LOWEST = {"redis": (7, 0), "valkey": (7, 2)}


@dataclass(frozen=True)
class Trouble:
    """One thing that is wrong with a broker."""

    code: str
    text: str
    hint: str
    fatal: bool  # no job could run, or its record could be lost


@dataclass(frozen=True)
class BrokerState:
    """What the broker says of itself."""

    name: str  # redis or valkey, '' where this user may not ask
    version: str
    troubles: tuple[Trouble, ...] = ()

    @property
    def words(self) -> str:
        return f"{self.name} {self.version}" if self.name else "of unknown kind and version"

    def refuse(self) -> None:
        """Raise BrokerUnreachable when no worker may start on it."""
        if fatal := [trouble for trouble in self.troubles if trouble.fatal]:
            text = "; ".join(trouble.text for trouble in fatal)
            hint = "; ".join(trouble.hint for trouble in fatal)
            raise BrokerUnreachable(text, code=fatal[0].code, hint=hint)


def look_at_broker(redis: "Redis") -> BrokerState:
    """Ask the broker for its kind, version, role and eviction policy.

    Raises what redis-py raises when it does not answer at all.
    """
    info, refused = _info(redis)
    if refused:
        return BrokerState("", "", (refused,))
    name = str(info.get("server_name", "redis"))
    version = str(info.get(f"{name}_version") or info.get("redis_version", ""))
    return BrokerState(name, version, tuple(_troubles(info, name, version)))


def _info(redis: "Redis") -> tuple[Mapping[str, Any], Trouble | None]:
    from redis.exceptions import ResponseError

    try:
        info: Any = redis.info()
        return info, None
    except ResponseError as error:  # no right to it, or it has another name
        return {}, Trouble(
            "info_refused",
            f"the broker does not answer INFO: {error}",
            "give the user +info; until then restarts, eviction and version go unnoticed",
            fatal=False,
        )


def _troubles(info: Mapping[str, Any], name: str, version: str) -> Iterator[Trouble]:
    if info.get("redis_mode") == "cluster" or info.get("cluster_enabled") == 1:
        yield Trouble(
            "broker_cluster",
            "the broker is a Redis Cluster, which Celery's transport cannot use",
            "use a single server (`cluster-enabled no`)",
            fatal=True,
        )
    if info.get("role") in ("slave", "replica"):
        yield Trouble(
            "broker_read_only",
            f"the broker is a replica of {info.get('master_host', 'another server')}",
            "set FTQ_REDIS_URL to the primary",
            fatal=True,
        )
    if _number(version) < LOWEST.get(name, LOWEST["redis"]):
        low = ".".join(map(str, LOWEST.get(name, LOWEST["redis"])))
        yield Trouble(
            "broker_old",
            f"the broker is {name} {version}, which is too old",
            f"use {name} {low} or later",
            fatal=True,
        )
    yield from _eviction(info)
    yield from _no_writes(info)


def _eviction(info: Mapping[str, Any]) -> Iterator[Trouble]:
    policy = str(info.get("maxmemory_policy", "noeviction"))
    if policy == "noeviction":
        return
    limited = bool(info.get("maxmemory"))
    yield Trouble(
        "broker_evicts",
        f"the broker's maxmemory-policy is {policy}: when it is full it deletes job records"
        + ("" if limited else " (it has no maxmemory yet)"),
        "set maxmemory-policy noeviction in its configuration",
        fatal=limited,
    )


def _no_writes(info: Mapping[str, Any]) -> Iterator[Trouble]:
    """Tell why a broker takes no new job, though it answers; it may pass without a restart."""
    limit, used = int(info.get("maxmemory") or 0), int(info.get("used_memory") or 0)
    if limit and used >= limit:
        yield Trouble(
            "broker_full",
            f"the broker is full: it holds {used:,} of maxmemory {limit:,} bytes",
            "raise maxmemory, or end and prune jobs; running jobs go on and can end",
            fatal=False,
        )
    for name, what in (("rdb_last_bgsave_status", "snapshot"), ("aof_last_write_status", "log")):
        if info.get(name) == "err":
            yield Trouble(
                "broker_disk",
                f"the broker could not write its last {what} to its disk",
                "make room there, or look into its log; a restart now would lose jobs",
                fatal=False,
            )


def _number(version: str) -> tuple[int, ...]:
    """Return major and minor; a version that cannot be read counts as new."""
    found = re.match(r"(\d+)\.(\d+)", version)
    return (int(found[1]), int(found[2])) if found else (99,)
