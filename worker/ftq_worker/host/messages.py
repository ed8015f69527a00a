"""What a child is asked to do: everything but the secrets, which come down its control pipe."""

import time
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from ftq_shared.job_record import JobRecord
from ftq_shared.states import Phase

if TYPE_CHECKING:
    from ftq_worker.agent.services import Bench


@dataclass(frozen=True)
class ChildRequest:
    """One phase for one child process."""

    job: str
    phase: str
    attempt: int
    token_number: int
    spec: str  # JSON of the JobSpec
    storage: str  # root folder
    endpoint: str | None
    created: str = ""  # when the job was submitted, RFC 3339
    gpus: tuple[str, ...] = ()
    rank: int = 0
    cpu_threads: int = 1
    env: dict[str, str] = field(default_factory=dict)  # for the child, never secrets
    watched: bool = True  # False: no agent renews its lease (stand-alone)
    claim: str = ""  # name of the claim's own folder
    fresh_after: int = 0  # checkpoints of tokens up to this number are not resumed from

    def to_json(self) -> dict[str, Any]:
        """Return the fields as plain data."""
        return asdict(self)

    @classmethod
    def from_json(cls, raw: dict[str, Any]) -> "ChildRequest":
        """Read what `to_json` wrote."""
        return cls(**raw | {"gpus": tuple(raw.get("gpus", ()))})


def request_for(record: JobRecord, rank: int, bench: "Bench") -> ChildRequest:
    """Describe a claimed phase to one rank."""
    return ChildRequest(
        job=record.id,
        phase=record.phase,
        attempt=record.attempt,
        token_number=record.token_number,
        claim=record.claim,
        fresh_after=record.fresh_after,
        spec=record.spec_json,
        storage=str(bench.storage),
        endpoint=record.endpoint or None,
        created=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.created_ms / 1000)),
        gpus=record.gpus,
        rank=rank,
        cpu_threads=bench.cpu_threads if record.phase is Phase.TRAIN else 1,
        env=rank_environment(record, rank),
    )


def rank_environment(record: JobRecord, rank: int) -> dict[str, str]:
    """Return what torch and accelerate read; ids are UUIDs, so a reboot changes nothing."""
    env = {"CUDA_VISIBLE_DEVICES": ",".join(record.gpus), "FTQ_JOB_ID": record.id}
    if len(record.gpus) > 1:
        port = 20_000 + (record.token_number * 1009 + sum(record.id.encode())) % 20_000
        env |= {
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": str(len(record.gpus)),
            "LOCAL_WORLD_SIZE": str(len(record.gpus)),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
        }
    return env
