"""Host records: what each worker offers, refreshed by its heartbeat."""

import contextlib
import functools
import itertools
import json
import logging
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from ftq_shared import keys, scripts
from ftq_shared.errors import UsageError
from ftq_shared.lifetimes import HOST_LOST_S, HOST_TTL_S

log = logging.getLogger(__name__)

SLOTS_MAX = 10_000  # CPU slots that a host can offer

if TYPE_CHECKING:
    from redis import Redis

    from ftq_shared.store import Server


_WORD = re.compile(r"[a-z0-9]+")


def is_called(card: str, kind: str) -> bool:
    """Return whether `kind` is words of a card's name, which may be written as one.

    >>> is_called("NVIDIA A100-SXM4-80GB", "a100-80gb"), is_called("NVIDIA A100-SXM4-80GB", "a10")
    (True, False)
    """
    return set(_WORD.findall(kind.lower())) <= _names(card)


@functools.cache
def _names(card: str) -> frozenset[str]:
    """Return what a card is called: words of its name, and several in a row as one."""
    words = _WORD.findall(card.lower())
    spans = itertools.combinations(range(len(words) + 1), 2)
    return frozenset("".join(words[start:end]) for start, end in spans)


@dataclass(frozen=True)
class Gpu:
    """One card."""

    uuid: str
    name: str  # for example NVIDIA H100 80GB HBM3
    memory_gb: float  # total, in GB of 10^9 bytes

    def fits(self, kind: str | None, least_gb: float) -> bool:
        """Return whether it is of a kind, None for any, and has so much memory, in GB."""
        return self.memory_gb >= least_gb and is_called(self.name, kind or "")


@dataclass(frozen=True)
class SickGpu(Gpu):
    """A card that its host has set aside."""

    why: str


@dataclass(frozen=True)
class HostRecord:
    """One worker, as the dispatcher and `ftq workers` see it."""

    name: str
    instance: str  # changes with every start
    slots: int  # CPU slots
    gpus: tuple[Gpu, ...]  # that can be used
    storage_id: str
    draining: bool
    beat_ms: int  # server time of the last heartbeat
    age_s: float  # since then, by the server's clock
    version: str  # of ftq
    endpoint: str  # the Hub that its phases use
    warm: bool = True  # whether its zygote has finished importing
    record_version: int = 1  # the newest job record that it knows
    full: bool = False  # whether its storage has no room
    # What it worked on at the last heartbeat: job -> token.
    running: Mapping[str, str] = field(default_factory=dict)
    sick: tuple[SickGpu, ...] = ()  # that are there, and cannot be used
    broker: str = ""  # the start of the broker that the last heartbeat went to
    celery: bool = True  # whether its Celery process takes messages

    @property
    def online(self) -> bool:
        """Whether it was heard of lately."""
        return self.age_s < HOST_LOST_S

    @property
    def queue(self) -> str:
        return keys.host_queue(self.name, self.instance)

    @classmethod
    def from_hash(cls, raw: Mapping[str, str], now_ms: float) -> "HostRecord":
        """Read a Redis hash; raises ValueError, KeyError or TypeError when it is no host's."""
        running = json.loads(raw.get("running") or "{}")
        for part in ("name", "instance", "storage_id"):  # of keys, queues and other records
            if not keys.is_name(raw[part]):
                raise ValueError(f"its {part} is {raw[part][:60]!r}")
        return cls(
            name=raw["name"],
            instance=raw["instance"],
            slots=min(int(raw["slots"]), SLOTS_MAX),
            gpus=tuple(_gpu(gpu) for gpu in json.loads(raw["gpus"])),
            storage_id=raw["storage_id"],
            draining=raw.get("draining") == "1",
            beat_ms=int(raw["beat_ms"]),
            age_s=max(0.0, (now_ms - int(raw["beat_ms"])) / 1000),
            version=raw.get("version", ""),
            endpoint=raw.get("endpoint", ""),
            warm=raw.get("warm", "1") == "1",
            record_version=int(raw.get("record_version", "1")),
            full=raw.get("full") == "1",
            # ftq 0.1.0 wrote a list
            running={k: str(v) for k, v in running.items()} if isinstance(running, dict) else {},
            sick=tuple(SickGpu(**gpu) for gpu in json.loads(raw.get("sick") or "[]")),
            broker=raw.get("broker", ""),
            celery=raw.get("celery", "1") == "1",
        )


def _gpu(raw: Mapping[str, Any]) -> Gpu:
    """Read one card; its UUID goes into CUDA_VISIBLE_DEVICES. Raises as `from_hash` does."""
    uuid, memory_gb = str(raw["uuid"]), float(raw["memory_gb"])
    if not keys.is_card(uuid) or not math.isfinite(memory_gb):
        raise ValueError(f"{raw!r:.100} is no card")
    return Gpu(uuid, str(raw["name"]), memory_gb)


class HostNames(NamedTuple):
    """Which hosts there are."""

    known: frozenset[str]  # that were heard of in the last day
    online: frozenset[str]  # that were heard of lately


class HostStore:
    """Host records in Redis."""

    def __init__(self, redis: "Redis") -> None:
        self.redis = redis
        self._beat = redis.register_script(scripts.source("beat"))
        self._drain = redis.register_script(scripts.source("drain"))

    def heartbeat(self, name: str, instance: str, replaces: str, fields: Mapping[str, Any]) -> bool:
        """Say that the host lives; return whether somebody asked it to drain.

        `replaces` is the instance of a predecessor that is known to be dead.
        Raises UsageError when another live worker has the name.
        """
        text = json.dumps(as_hash(fields))
        status, detail = self._beat(
            keys=[keys.host(name), keys.HOSTS, keys.QUEUES],
            args=[
                name,
                instance,
                replaces,
                text,
                HOST_TTL_S,
                HOST_LOST_S,
                keys.host_queue(name, instance),
            ],
        )
        if status == "taken":
            raise name_taken(name)
        return bool(detail == "1")

    def announce_key(self, public_key: str) -> None:
        """Say which key clients seal secrets for, unless the fleet has one."""
        self.redis.hsetnx(keys.FLEET, "public_key", public_key)

    def drain(self, name: str) -> str:
        """Ask a host to hand back its work and leave; return its instance, '' for no such host."""
        return str(self._drain(keys=[keys.host(name), keys.CONTROL], args=[name]))

    def leave(self, name: str, instance: str) -> None:
        """Remove the record of a worker that stops in order.

        Its queue's name stays in the list for a day: Celery ends after us, and gives back messages
        that it has not worked on.
        """
        if self.redis.hget(keys.host(name), "instance") == instance:
            self.redis.delete(keys.host(name))
            self.redis.srem(keys.HOSTS, name)
        self.redis.delete(*keys.kombu_keys(keys.host_queue(name, instance)))

    def forget_old_queues(self) -> None:
        """Remove the Celery queues of instances that have been silent for a day."""
        seconds, _ = self.redis.time()
        oldest = (seconds - HOST_TTL_S) * 1000
        old: Any = self.redis.zrangebyscore(keys.QUEUES, "-inf", oldest, start=0, num=10)
        for queue in old:
            self.redis.delete(*keys.kombu_keys(queue))
            self.redis.zrem(keys.QUEUES, queue)

    def names(self) -> HostNames:
        """Return the names of all hosts, at much less cost than their records."""
        pipe = self.redis.pipeline(transaction=False)
        pipe.time()
        pipe.zrange(keys.QUEUES, 0, -1, withscores=True)
        (seconds, _), queues = pipe.execute()
        beats = [(keys.host_of(queue), beat_ms) for queue, beat_ms in queues]
        # A beat of a time to come is one from before the server's clock was set back.
        online = {n for n, beat_ms in beats if abs(seconds - beat_ms / 1000) < HOST_LOST_S}
        return HostNames(frozenset(dict(beats)) - {""}, frozenset(online) - {""})

    def all(self) -> list[HostRecord]:
        """Return every host that is known; forgets names whose record has expired."""
        members: Any = self.redis.smembers(keys.HOSTS)
        names: list[str] = sorted(members)
        pipe = self.redis.pipeline(transaction=False)
        pipe.time()
        for name in names:
            pipe.hgetall(keys.host(name))
        (seconds, micros), *answers = pipe.execute(raise_on_error=False)
        now_ms = seconds * 1000 + micros / 1000
        found = {name: raw for name, raw in zip(names, answers, strict=True) if _is_hash(name, raw)}
        if gone := [name for name, raw in found.items() if not raw.get("instance")]:
            self._forget(gone)
        return [host for name, raw in found.items() if (host := read_host(name, raw, now_ms))]

    def _forget(self, names: Sequence[str]) -> None:
        """Strike out names whose record has expired; a client's user may only read them."""
        from redis.exceptions import NoPermissionError

        with contextlib.suppress(NoPermissionError):
            self.redis.srem(keys.HOSTS, *names)


def as_hash(fields: Mapping[str, Any]) -> dict[str, str]:
    """Return what a heartbeat says as the record holds it."""
    return {k: v if isinstance(v, str) else json.dumps(v) for k, v in fields.items()}


def name_taken(name: str) -> UsageError:
    """Return the error for a worker whose name belongs to another one that lives."""
    return UsageError(
        f"another worker is called {name!r}",
        code="name_taken",
        hint="give this one another name: ftq worker --name NAME",
    )


def _is_hash(name: str, answer: Any) -> bool:
    """Return whether a host's key could be read; raises what is no damage of that one key."""
    if not isinstance(answer, Exception):
        return True
    if not str(answer).startswith("WRONGTYPE"):
        raise answer
    log.warning("host %s: %s", name, answer, extra={"action": "host_unreadable", "host": name})
    return False


_NO_HOST = (LookupError, ValueError, TypeError, AttributeError, ArithmeticError, RecursionError)


def read_host(host: str, raw: Mapping[str, str], now_ms: float) -> HostRecord | None:
    """Read one host; None for one that is gone, or that another version wrote."""
    try:
        if raw.get("name", host) != host:
            raise ValueError(f"its name is {raw['name'][:60]!r}")
        return HostRecord.from_hash(raw, now_ms) if raw.get("instance") else None
    except _NO_HOST as error:
        extra = {"action": "host_unreadable", "host": host}
        log.warning("host %s is not one of this version: %.300r", host, error, extra=extra)
        return None


def running_after_restart(
    server: "Server", known: Sequence[HostRecord]
) -> Mapping[str, str] | None:
    """Return what runs somewhere (job -> token), None while nobody can know.

    A broker that starts may have lost its last second, and with it that a job went on to another
    owner. That owner ends it as soon as it cannot renew the lease; until every host has said what
    it runs, or is lost, nothing is placed or claimed. Later it is all known: empty.
    """
    if server.uptime_s > HOST_LOST_S:
        return {}
    if any(host.broker not in ("", server.run_id) for host in known):
        return None
    return {job: token for host in known for job, token in host.running.items()}
