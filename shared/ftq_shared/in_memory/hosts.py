"""Host records in memory."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ftq_shared.hosts import HostNames, HostRecord, HostStore, as_hash, name_taken
from ftq_shared.in_memory.broker import MemoryBroker, atomic
from ftq_shared.in_memory.jobs import MemoryHost
from ftq_shared.lifetimes import HOST_LOST_S


class MemoryHosts(HostStore):
    """A `HostStore` without a server; see the package for what it promises."""

    def __init__(self, broker: MemoryBroker) -> None:
        self.broker = broker

    @atomic
    def heartbeat(self, name: str, instance: str, replaces: str, fields: Mapping[str, Any]) -> bool:
        held = self.broker.held
        host, now_ms = held.hosts.get(name), held.now_ms
        if host and host.record.instance != instance:
            alive = now_ms - host.record.beat_ms < HOST_LOST_S * 1000
            if host.record.instance != replaces and alive:
                raise name_taken(name)
            host = None
        raw = as_hash(fields) | {"name": name, "instance": instance, "beat_ms": str(now_ms)}
        wanted = bool(host and host.drain_wanted)
        held.hosts[name] = MemoryHost(HostRecord.from_hash(raw, now_ms), wanted)
        return wanted

    @atomic
    def announce_key(self, public_key: str) -> None:
        self.broker.held.public_key = self.broker.held.public_key or public_key

    @atomic
    def drain(self, name: str) -> str:
        host = self.broker.held.hosts.get(name)
        if not host:
            return ""
        host.drain_wanted = True
        return host.record.instance

    @atomic
    def leave(self, name: str, instance: str) -> None:
        host = self.broker.held.hosts.get(name)
        if host and host.record.instance == instance:
            del self.broker.held.hosts[name]

    @atomic
    def forget_old_queues(self) -> None:
        """Do nothing: there are no Celery queues."""

    @atomic
    def names(self) -> HostNames:
        held = self.broker.held
        alive_ms = held.now_ms - HOST_LOST_S * 1000
        online = {name for name, host in held.hosts.items() if host.record.beat_ms > alive_ms}
        return HostNames(frozenset(held.hosts), frozenset(online))

    @atomic
    def all(self) -> list[HostRecord]:
        held = self.broker.held
        found = [host.record for _, host in sorted(held.hosts.items())]
        return [
            replace(record, age_s=max(0.0, (held.now_ms - record.beat_ms) / 1000))
            for record in found
        ]
