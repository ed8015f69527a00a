"""The fleet as rows of a table."""

from typing import Any

from ftq_client.client import Client
from ftq_shared.hosts import HostRecord
from ftq_shared.store import Lease


def worker_rows(client: Client) -> list[dict[str, Any]]:
    """Return one row per worker, with what runs there."""
    leases = client.store.leases()
    hosts = client.workers()
    return [_row(host, [one for one in leases if one.host == host.name]) for host in hosts]


def _row(host: HostRecord, jobs: list[Lease]) -> dict[str, Any]:
    """Describe one worker."""
    state = "lost" if not host.online else "draining" if host.draining else "online"
    user = {gpu: job.id for job in jobs for gpu in job.gpus}
    return {
        "name": host.name,
        "instance": host.instance,
        "state": state,
        "gpus": [vars(gpu) | {"job": user.get(gpu.uuid)} for gpu in host.gpus],
        "cpu_slots": host.slots,
        "cpu_used": sum(job.slot == "cpu" for job in jobs),
        "running": [job.id for job in jobs],
        "storage_id": host.storage_id,
        "version": host.version,
        "seen_s": round(host.age_s, 1),
    }
