"""What a child is told of its phase before it starts."""

from ftq_shared.events import rfc3339
from ftq_shared.job_record import JobRecord
from ftq_shared.states import Phase
from ftq_worker.agent.services import Services
from ftq_worker.host.messages import ChildRequest


def request_for(
    record: JobRecord, part: str, gpus: tuple[str, ...], rank: int, services: Services
) -> ChildRequest:
    """Describe a part of a claimed phase to one rank of those that run on `gpus`."""
    return ChildRequest(
        job=record.id,
        phase=record.phase,
        part=part,
        attempt=record.attempt,
        token_number=record.token_number,
        claim=record.claim,
        fresh_after=record.fresh_after,
        spec=record.spec_json,
        storage=str(services.storage),
        endpoint=record.endpoint or None,
        created=rfc3339(record.created_ms / 1000),
        gpus=gpus,
        rank=rank,
        cpu_threads=services.cpu_threads if record.phase in (Phase.PREPARE, Phase.TRAIN) else 1,
        env=_rank_environment(record, gpus, rank),
        data_roots=vars(services.data_roots),
    )


def _rank_environment(record: JobRecord, gpus: tuple[str, ...], rank: int) -> dict[str, str]:
    """Return what torch and accelerate read; ids are UUIDs, so a reboot changes nothing."""
    env = {"CUDA_VISIBLE_DEVICES": ",".join(gpus), "FTQ_JOB_ID": record.id}
    if len(gpus) > 1:
        port = 20_000 + (record.token_number * 1009 + sum(record.id.encode())) % 20_000
        env |= {
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": str(len(gpus)),
            "LOCAL_WORLD_SIZE": str(len(gpus)),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
        }
    return env
