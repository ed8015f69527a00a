"""What a child is told of its phase before it starts."""

from ftq_shared.events import rfc3339
from ftq_shared.job_record import JobRecord
from ftq_shared.states import Phase
from ftq_worker.agent.gang import Gang
from ftq_worker.agent.services import Services
from ftq_worker.host.environment import rank_variables
from ftq_worker.host.messages import ChildRequest


def request_for(
    record: JobRecord, part: str, gang: Gang, rank: int, services: Services
) -> ChildRequest:
    """Describe a part of a claimed phase to one rank of those that run it. Raises FtqError."""
    replay = record.replay
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
        gpus=gang.gpus,
        rank=rank,
        ranks=gang.ranks,
        meeting=gang.meeting,
        cpu_threads=_threads(record.phase, gang, services),
        env=_environment(record, gang, rank),
        data_roots=vars(services.data_roots),
        replay_of=replay.job if replay else "",
        replay_step=replay.step if replay else 0,
    )


def _threads(phase: Phase, gang: Gang, services: Services) -> int:
    """Return how many threads a rank may compute with: the ranks share the host's cores."""
    shared = phase in (Phase.PREPARE, Phase.TRAIN)
    return max(1, services.cpu_threads // gang.ranks) if shared else 1


def _environment(record: JobRecord, gang: Gang, rank: int) -> dict[str, str]:
    """Return what torch and accelerate read; ids are UUIDs, so a reboot changes nothing."""
    env = {"CUDA_VISIBLE_DEVICES": ",".join(gang.gpus), "FTQ_JOB_ID": record.id}
    return env | rank_variables(rank, gang.ranks)
