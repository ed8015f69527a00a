"""The fleet's workers as rows of a table, and waiting for one to leave."""

import time
from typing import Literal, TypedDict

from ftq_client.client import Client
from ftq_shared.hosts import HostRecord
from ftq_shared.lease import Lease

POLL_S = 0.5


class GpuRow(TypedDict):
    """One card of a worker."""

    uuid: str
    name: str
    memory_gb: float
    job: str | None  # that uses it


class WorkerRow(TypedDict):
    """One worker, as `ftq workers --json` prints it."""

    name: str
    instance: str  # changes with every start
    state: Literal["online", "no celery", "draining", "lost"]  # no celery: it dispatches nothing
    gpus: list[GpuRow]
    cpu_slots: int
    cpu_used: int
    running: list[str]  # job ids
    storage_id: str
    version: str
    seen_s: float  # since its last heartbeat


def worker_rows(client: Client) -> list[WorkerRow]:
    """Return one row per worker, with what runs there."""
    leases = client.store.leases()
    hosts = client.workers()
    return [_row(host, [one for one in leases if one.host == host.name]) for host in hosts]


def wait_until_gone(client: Client, name: str, timeout_s: float | None) -> bool:
    """Return True once the worker has left or is lost, False when time is over."""
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    while any(host.name == name and host.online for host in client.workers()):
        if deadline is not None and time.monotonic() >= deadline:
            return False
        time.sleep(POLL_S)
    return True


def _row(host: HostRecord, leases: list[Lease]) -> WorkerRow:
    users = {uuid: lease.id for lease in leases for uuid in lease.gpus}
    return {
        "name": host.name,
        "instance": host.instance,
        "state": _state(host),
        "gpus": [
            {"uuid": g.uuid, "name": g.name, "memory_gb": g.memory_gb, "job": users.get(g.uuid)}
            for g in host.gpus
        ],
        "cpu_slots": host.slots,
        "cpu_used": sum(lease.slot == "cpu" for lease in leases),
        "running": [lease.id for lease in leases],
        "storage_id": host.storage_id,
        "version": host.version,
        "seen_s": round(host.age_s, 1),
    }


def _state(host: HostRecord) -> Literal["online", "no celery", "draining", "lost"]:
    if not host.online:
        return "lost"
    if host.draining:
        return "draining"
    return "online" if host.celery else "no celery"
