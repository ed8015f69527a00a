"""The train phase, second part: what was saved is loaded and scored where it was trained."""

import torch

from ftq_worker.job.context import PhaseContext
from ftq_worker.job.quiet import quiet_libraries
from ftq_worker.publishing.verify import verify


def run(ctx: PhaseContext) -> None:
    """Verify what training left, in a process that never saw the model in memory.

    Raises what `verify` raises; Interrupted or JobCancelled after a stop.
    """
    quiet_libraries()
    torch.set_num_threads(ctx.devices.cpu_threads)
    verify(ctx)
