"""Asking the workers to remove what is left of ended jobs, and hearing what that is."""

import json
import secrets
import time
from dataclasses import dataclass
from typing import Any, TypedDict

from ftq_client.client import Client
from ftq_shared import keys
from ftq_shared.errors import FtqError
from ftq_shared.job_record import JobRecord
from ftq_shared.states import JobState

WAIT_S = 600.0  # for the answer of one storage: many small files take their time


class Removed(TypedDict):
    """A part of a job that went, or would go."""

    job: str
    part: str  # work files, or everything
    bytes: int
    why: str
    removed: bool


@dataclass(frozen=True)
class Wanted:
    """What may go."""

    older_than_s: float  # since the job's end
    models: bool  # also those of jobs that succeeded
    jobs: list[str] | None  # only these; None for all


def why_nothing(record: JobRecord, wanted: Wanted) -> str:
    """Return why there is nothing of a job to remove, and what would change that."""
    if not record.state.terminal:
        return f"it is {record.state}"
    if record.state is JobState.SUCCEEDED and not wanted.models:
        return "it ended too recently for --older-than, or only its model is left: see --models"
    return "it ended too recently for --older-than, or nothing of it is left"


def ask_workers(client: Client, wanted: Wanted, *, dry_run: bool) -> list[Removed]:
    """Have one worker of each storage remove, or only name, what may go.

    Raises FtqError when a storage with a worker online does not answer.
    """
    nonce = secrets.token_hex(8)
    request: dict[str, Any] = {
        "prune": nonce,
        "dry_run": dry_run,
        "older_than_s": wanted.older_than_s,
        "models": wanted.models,
        "jobs": wanted.jobs,
    }
    waiting = {host.storage_id: host.name for host in client.workers() if host.online}
    if not waiting:
        raise FtqError(
            "no worker is online, and only workers reach their disks",
            code="no_road",
            hint="start one: `ftq worker` on a host, or `ftq up` here",
        )
    client.redis.publish(keys.CONTROL, json.dumps(request))
    found: list[Removed] = []
    deadline = time.monotonic() + WAIT_S
    while waiting:
        answer: Any = client.redis.blpop([keys.relay(nonce)], timeout=1)
        if answer:
            told = json.loads(answer[1])
            name = waiting.pop(told["storage_id"], "a worker")
            if why := told.get("error"):
                raise FtqError(f"{name}: {why}", code="prune_failed", hint=f"see the log of {name}")
            found += told["removed"]
        elif time.monotonic() > deadline:
            raise FtqError(
                f"{', '.join(sorted(waiting.values()))} did not answer within {WAIT_S:.0f} s",
                code="no_road",
                hint="look at `ftq workers`; a worker of an older version does not know prune",
            )
    return found
