"""Which waiting phase goes to which host: a pure function of what was read.

Order: priority, then first come (the queue's own order). A phase that does not fit does not hold
up those behind it, until it has waited for long: then the cards of one host are kept for the first
that waits for several: of the host that has most of them free, so that they only become more. Among
the hosts that fit, a GPU phase takes the tightest one, so that large requests find room; a CPU
phase the one with most free slots; either one where the job has not died, if there is one.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from ftq_shared.hosts import Gpu, HostRecord
from ftq_shared.job_record import RECORD_VERSION, JobRecord
from ftq_shared.lease import Lease
from ftq_shared.spec import GpuRequest
from ftq_shared.states import Phase
from ftq_shared.store import Placement

KEPT_AFTER_S = 600.0  # of waiting, from which on cards are kept for a job that needs several


@dataclass
class HostRoom:
    """What is free on one host, as the plan fills it."""

    host: HostRecord
    slots: int
    gpus: list[Gpu] = field(default_factory=list)
    kept_for: str = ""  # the job that alone may take its cards


@dataclass(frozen=True)
class Waiting:
    """Why a job was not placed."""

    job: str
    reason: str
    unblock: str


def free_room(hosts: Iterable[HostRecord], leases: Sequence[Lease]) -> list[HostRoom]:
    """Return what each usable host has left, computed from the live leases.

    A card is one card, whichever of several workers on its machine offers it.
    """
    rooms = []
    busy = {gpu for lease in leases for gpu in lease.gpus}
    for host in hosts:
        if not host.online or host.draining:
            continue
        used = sum(lease.slot == "cpu" for lease in leases if lease.host == host.name)
        slots = host.slots - used
        free = [gpu for gpu in host.gpus if gpu.uuid not in busy]
        rooms.append(HostRoom(host, 0, []) if host.full else HostRoom(host, slots, free))
    return rooms


def has_gpus(hosts: Iterable[HostRecord]) -> bool:
    """Return whether the fleet has a card at all, also one that is sick or whose host is silent."""
    return any(host.gpus or host.sick for host in hosts)


def plan(
    queue: Iterable[JobRecord], rooms: list[HostRoom], *, fleet_has_gpus: bool, now_ms: float
) -> tuple[list[Placement], list[Waiting]]:
    """Place what fits, in order; say of the rest what it waits for. Changes `rooms`.

    `now_ms` is the broker's time, in Unix milliseconds.
    """
    placed: list[Placement] = []
    waiting: list[Waiting] = []
    for job in queue:
        if job.record_version > RECORD_VERSION:
            continue  # a newer worker will know what to do with it
        try:
            found = _place(job, rooms, fleet_has_gpus=fleet_has_gpus)
            if isinstance(found, Waiting) and now_ms - _queued_ms(job) >= KEPT_AFTER_S * 1000:
                found = _keep_cards(job, rooms, found, fleet_has_gpus=fleet_has_gpus)
        except ValueError as error:  # it keeps no other job from its place
            found = Waiting(job.id, f"its record is damaged: {error}", "cancel it and submit again")
        if isinstance(found, Placement):
            placed.append(found)
        else:
            waiting.append(found)
    return placed, waiting


def wanted_gpus(job: JobRecord, *, fleet_has_gpus: bool) -> GpuRequest:
    """Return what the job's next phase needs: only train takes GPUs.

    `auto` is one GPU, or the CPU where the fleet has none at all and no memory was asked for.
    """
    asked = job.summary.get("gpu_request", "auto")
    if job.phase is not Phase.TRAIN or asked == "0":
        return GpuRequest(count=0)
    if asked == "auto" and not fleet_has_gpus and not _least_memory_gb(job):
        return GpuRequest(count=0)
    return GpuRequest.parse(asked)


def _least_memory_gb(job: JobRecord) -> float:
    return float(job.summary.get("min_vram_gb") or 0)


def _queued_ms(job: JobRecord) -> float:
    return float(job.summary.get("queued_ms") or "inf")


def _keep_cards(
    job: JobRecord, rooms: Sequence[HostRoom], waiting: Waiting, *, fleet_has_gpus: bool
) -> Waiting:
    """Keep the cards of one host for a job that needs several, if they are kept for no other."""
    request = wanted_gpus(job, fleet_has_gpus=fleet_has_gpus)
    if request.count < 2 or any(room.kept_for for room in rooms):
        return waiting
    able = [
        room
        for room in _usable(job, rooms)
        if not job.storage_id or room.host.storage_id == job.storage_id
        if len(_matching(room.host.gpus, request, job)) >= request.count
    ]
    if not able:
        return waiting
    room = min(able, key=lambda it: (-len(_matching(it.gpus, request, job)), it.host.name))
    cards = {gpu.uuid for gpu in room.host.gpus}
    for it in rooms:  # another worker may offer the same cards
        if it is room or cards & {gpu.uuid for gpu in it.host.gpus}:
            it.kept_for = job.id
    kept = f"{waiting.reason}; those of {room.host.name} are kept for it as they become free"
    return replace(waiting, reason=kept)


def _usable(job: JobRecord, rooms: Iterable[HostRoom]) -> list[HostRoom]:
    """Return the rooms of the workers that can take the job at all."""
    return [
        r
        for r in rooms
        if r.host.record_version >= job.record_version
        and (not job.endpoint or r.host.endpoint == job.endpoint)
    ]


def _place(job: JobRecord, rooms: list[HostRoom], *, fleet_has_gpus: bool) -> Placement | Waiting:
    """Take a place for one job, or say why there is none."""
    usable = _usable(job, rooms)
    if not usable:
        return _nobody(job, rooms)
    request = wanted_gpus(job, fleet_has_gpus=fleet_has_gpus)
    bound = [r for r in usable if not job.storage_id or r.host.storage_id == job.storage_id]
    # A job is bound to a storage only where it can train.
    later = wanted_gpus(replace(job, phase=Phase.TRAIN), fleet_has_gpus=fleet_has_gpus)
    if not job.storage_id and later.count:
        groups = {r.host.storage_id for r in usable if _could(r, later, job)}
        bound = [r for r in usable if r.host.storage_id in groups]
        if not bound:
            return _no_gpus(job, later, usable)
    if bound and all(room.host.full for room in bound):
        return Waiting(
            job.id,
            "the disk of every host that could take it is full",
            "make room there: `ftq prune --dry-run` shows what of ended jobs can go",
        )
    if not bound:
        return Waiting(
            job.id,
            "the hosts that hold this job's files are not online",
            "start `ftq worker` again there; if they are gone for good, `ftq cancel` it, and "
            "`ftq retry --from validate` starts it over elsewhere",
        )
    return _on_gpus(job, request, bound) if request.count else _on_slot(job, bound)


def _could(room: HostRoom, request: GpuRequest, job: JobRecord) -> bool:
    """Return whether a host has the cards at all, busy, sick or not."""
    return len(_matching([*room.host.gpus, *room.host.sick], request, job)) >= request.count


def _nobody(job: JobRecord, rooms: Sequence[HostRoom]) -> Waiting:
    """Say that no worker can take the job at all."""
    if any(not job.endpoint or room.host.endpoint == job.endpoint for room in rooms):
        return Waiting(
            job.id,
            "every worker online is of an older version than this job needs",
            "upgrade the workers that hold its files, and start them again",
        )
    if rooms:
        return Waiting(
            job.id,
            f"no worker uses the Hub at {job.endpoint}",
            "start a worker with the same HF_ENDPOINT as the client",
        )
    return Waiting(
        job.id, "no worker is online", "start one: `ftq worker` on a host, or `ftq up` here"
    )


def _on_slot(job: JobRecord, rooms: list[HostRoom]) -> Placement | Waiting:
    """Place a phase that needs a CPU slot."""
    died = job.died_on
    best = max(
        rooms,
        key=lambda room: (room.slots > 0, room.host.name not in died, room.host.warm, room.slots),
    )
    if best.slots < 1:
        return Waiting(job.id, "all CPU slots are taken", "a running phase has to end")
    best.slots -= 1
    return Placement(job.id, job.version, best.host.name, best.host.instance, "cpu")


def _on_gpus(job: JobRecord, request: GpuRequest, rooms: list[HostRoom]) -> Placement | Waiting:
    """Place a phase that needs GPUs, all on one host."""
    died = job.died_on
    fits = [
        (room, gpus)
        for room in rooms
        if len(gpus := _matching(room.gpus, request, job)) >= request.count
    ]
    best = min(
        ((room, gpus) for room, gpus in fits if room.kept_for in ("", job.id)),
        key=lambda pair: (pair[0].host.name in died, not pair[0].host.warm, len(pair[0].gpus)),
        default=None,
    )
    if best is None and fits:
        room, _ = fits[0]
        reason = f"the cards of {room.host.name} are kept for {room.kept_for}, which waits longer"
        return Waiting(job.id, reason, "it starts first, or a job on another host has to end")
    if best is None:
        return _no_gpus(job, request, rooms)
    room, gpus = best
    taken = tuple(gpu.uuid for gpu in gpus[: request.count])
    room.gpus = [gpu for gpu in room.gpus if gpu.uuid not in taken]
    return Placement(job.id, job.version, room.host.name, room.host.instance, "gpu", taken)


def _no_gpus(job: JobRecord, request: GpuRequest, rooms: Sequence[HostRoom]) -> Waiting:
    """Tell apart a fleet that is busy from one that can never run the job."""
    what = f"{request.count} {request.kind or ''} GPU".replace("  ", " ")
    what += "s" if request.count > 1 else ""
    if least := _least_memory_gb(job):
        what += f" of {least:g} GB"
    able = [room.host for room in rooms if _could(room, request, job)]
    if any(len(_matching(host.gpus, request, job)) >= request.count for host in able):
        return Waiting(job.id, f"waits for {what} on one host", "a running job has to end")
    if able:
        host, card = able[0].name, able[0].sick[0]
        return Waiting(
            job.id,
            f"the cards of {host} cannot be used: {card.name} {card.why}",
            f"each is tried again by itself; look at nvidia-smi and the worker's log on {host}",
        )
    return Waiting(
        job.id,
        f"no host online has {what}",
        "start a worker on a host that has them, or submit with another --gpus",
    )


def _matching(gpus: Iterable[Gpu], request: GpuRequest, job: JobRecord) -> list[Gpu]:
    """Return the cards that are of the kind and size that was asked for."""
    least = _least_memory_gb(job)
    return [gpu for gpu in gpus if gpu.fits(request.kind, least)]
