"""Who holds a job: the part of its record that repair and the dispatcher read every second."""

import json
import logging
from collections.abc import Sequence
from typing import NamedTuple

from ftq_shared import keys
from ftq_shared.states import JobState

log = logging.getLogger(__name__)

# Fields of the record, in the order in which `read_lease` takes them.
LEASE_FIELDS = ("v", "state", "token", "beat", "host", "instance", "slot", "gpus", "storage_id")


class Lease(NamedTuple):
    """What repair and the dispatcher need to know of a placed or running job."""

    id: str
    record_version: int
    state: JobState
    token: str
    renewals: int  # of the lease, under this token
    host: str
    instance: str
    slot: str  # cpu or gpu
    gpus: tuple[str, ...]  # ids of the cards it holds
    storage_id: str  # where its files are; '' before its first claim


def read_lease(job: str, raw: Sequence[str | None]) -> Lease | None:
    """Read one lease; None for a record that is gone or damaged."""
    version, state, token, renewals, host, instance, slot, gpus, storage_id = raw
    try:
        if not keys.is_job_id(job):
            raise ValueError("its id is no job id")
        return Lease(
            job,
            int(version or "0"),
            JobState(state or ""),
            token or "",
            int(renewals or "0"),
            host or "",
            instance or "",
            slot or "",
            _cards(job, gpus),
            storage_id or "",
        )
    except ValueError as error:
        extra = {"action": "record_unreadable", "job": job}
        log.warning("record %s is not one of this version: %.300r", job, error, extra=extra)
        return None


def _cards(job: str, raw: str | None) -> tuple[str, ...]:
    """Read the ids of a lease's cards; damage there does not keep it from being reaped."""
    try:
        return tuple(map(str, json.loads(raw or "[]")))
    except (ValueError, TypeError, RecursionError) as error:
        extra = {"action": "gpus_unreadable", "job": job}
        log.warning("the GPUs of record %s cannot be read: %.300r", job, error, extra=extra)
        return ()
