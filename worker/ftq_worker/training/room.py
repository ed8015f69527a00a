"""Is there room for what is to be saved? Asked before, so that no disk is filled by half a save."""

import shutil

from ftq_shared.events import EventType
from ftq_worker.job.context import HostFault, PhaseContext

SPARE = 4 * 2**20  # bytes: tokenizer, settings, generators, manifest
_MB = 1e6


def check_room(ctx: PhaseContext, what: str, needed_bytes: int) -> None:
    """Raise HostFault (`disk_full`), after an event, where the storage has no room for a save."""
    free = shutil.disk_usage(ctx.paths.root).free
    if free >= needed_bytes + SPARE:
        return
    message = (
        f"{what} needs {(needed_bytes + SPARE) / _MB:,.0f} MB, and {ctx.paths.storage} has"
        f" {free / _MB:,.0f} MB free"
    )
    ctx.emit(
        EventType.GUARD,
        name="disk_full",
        message=message,
        action="training stops before the disk is full; the job is tried again from its last"
        " checkpoint",
    )
    raise HostFault(
        message,
        code="disk_full",
        hint="make room on the host: `ftq prune --dry-run` shows what of ended jobs can go",
    )
