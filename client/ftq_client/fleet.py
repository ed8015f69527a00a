"""The fleet's workers as rows of a table, and waiting for one to leave."""

import time
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, TypedDict

from ftq_client.client import Client
from ftq_client.view.format import counted
from ftq_shared.hosts import HostRecord, SickGpu
from ftq_shared.lease import Lease

if TYPE_CHECKING:
    from ftq_shared.spec import Resources

POLL_S = 0.5


class GpuRow(TypedDict):
    """One card of a worker."""

    uuid: str
    name: str
    memory_gb: float
    job: str | None  # that uses it
    fault: str | None  # why it is set aside


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


def missing_gpus(resources: "Resources", hosts: Sequence[HostRecord]) -> str:
    """Say that no host online has the cards that a job asks for; '' when one has, or none is."""
    from ftq_shared.spec import GpuRequest

    online = [host for host in hosts if host.online and not host.draining]
    asked = resources.gpus
    if not online or (asked == "auto" and not resources.min_vram_gb):
        return ""
    wanted = GpuRequest.parse(asked)
    least = resources.min_vram_gb or 0.0

    def fitting(host: HostRecord) -> int:
        return sum(gpu.fits(wanted.kind, least) for gpu in host.gpus)

    if any(fitting(host) >= wanted.count for host in online):
        return ""
    cards = counted(wanted.count, f"{wanted.kind or ''} GPU".strip())
    memory = f" of {least:g} GB" if least else ""
    return f"no host online has {cards}{memory} ({_kinds(online)})"


def _kinds(hosts: Sequence[HostRecord]) -> str:
    names = Counter(gpu.name for host in hosts for gpu in host.gpus)
    there = [f"{number} {name}" for name, number in sorted(names.items())]
    there += [f"{gpu.name} on {host.name}: {gpu.why}" for host in hosts for gpu in host.sick]
    return f"the fleet has {', '.join(there)}" if there else "the fleet has no GPU at all"


def only_there(client: Client, name: str) -> list[str]:
    """Return the jobs whose files no other worker that stays online can read."""
    hosts = [host for host in client.workers() if host.online]
    storages = {host.storage_id for host in hosts if host.name == name}
    elsewhere = {host.storage_id for host in hosts if host.name != name and not host.draining}
    lost = storages - elsewhere - {""}
    return [job.id for job in client.list_jobs(mine=False) if job.storage_id in lost]


def _row(host: HostRecord, leases: list[Lease]) -> WorkerRow:
    users = {uuid: lease.id for lease in leases for uuid in lease.gpus}
    return {
        "name": host.name,
        "instance": host.instance,
        "state": _state(host),
        "gpus": [
            {
                "uuid": gpu.uuid,
                "name": gpu.name,
                "memory_gb": gpu.memory_gb,
                "job": users.get(gpu.uuid),
                "fault": gpu.why if isinstance(gpu, SickGpu) else None,
            }
            for gpu in (*host.gpus, *host.sick)
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
