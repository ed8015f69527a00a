"""The weights of the best evaluation: written at once, hashed beside the training, sealed later.

attempts/<claim>/checkpoints/best-<step>/ holds weights alone: the optimizer's state is twice their
size, and a training never goes on from here. The hash and the sync run in a thread while the next
steps train; at the first step's end after it, or before a checkpoint that names this step as the
best, the manifest is written and the folder moved out of .part. A run that is killed before that
goes on from a checkpoint that comes before the evaluation, and makes it again.
"""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from ftq_worker.job.context import PhaseContext
from ftq_worker.training import checkpoints
from ftq_worker.training.checkpoints import BEST, FileEntry


@dataclass(frozen=True)
class _Unsealed:
    step: int
    folder: Path
    files: "Future[dict[str, FileEntry]]"


class BestWeights:
    """Keeps the weights of the best evaluation so far."""

    def __init__(self, ctx: PhaseContext) -> None:
        self._ctx = ctx
        self._unsealed: _Unsealed | None = None
        self._pool = ThreadPoolExecutor(1, "hash-weights")

    def keep(self, step: int, write: Callable[[Path], None]) -> None:
        """Have the weights written to a new folder, and begin to hash them; all ranks call it."""
        self.seal()
        folder = checkpoints.part_folder(self._ctx.paths, self._ctx.claim) / f"{BEST}-{step}"
        write(folder)
        if self._ctx.devices.rank == 0:
            files = self._pool.submit(checkpoints.hash_files, folder)
            self._unsealed = _Unsealed(step, folder, files)

    def seal(self, *, wait: bool = True) -> None:
        """Seal what was kept last; without `wait` only where it is hashed.

        Raises OSError where it could not be read or synced.
        """
        kept, ctx = self._unsealed, self._ctx
        if kept is None or not (wait or kept.files.done()):
            return
        checkpoints.seal(
            kept.folder,
            step=kept.step,
            token=ctx.token_number,
            data=checkpoints.data_id(ctx.paths),
            facts={},
            files=kept.files.result(),
        )
        self._unsealed = None
        checkpoints.prune_weights(ctx.paths, kept.step, {ctx.token_number})
