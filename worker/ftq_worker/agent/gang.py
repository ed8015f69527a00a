"""The ranks that train together on a host: where they meet, and which of them has failed."""

import contextlib
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ftq_shared.job_record import JobRecord
from ftq_shared.states import Phase
from ftq_worker.agent.child import Child
from ftq_worker.agent.services import Services
from ftq_worker.host.messages import GPU_FAILED, RANK_LOST, Ending, Outcome, Part

TEST_CPU_RANKS = "FTQ_TEST_CPU_RANKS"  # for tests: ranks of a training without GPUs
FOLLOW_S = 5.0  # for the cause to be seen after a rank has lost the connection to it


@dataclass(frozen=True)
class Gang:
    """The processes of one part of a phase: one for each card, or one."""

    gpus: tuple[str, ...]
    ranks: int
    meeting: str  # see docs/decisions/0015-ranks-meet-in-a-file.md

    @classmethod
    def of(cls, record: JobRecord, part: Part, services: Services) -> "Gang":
        """Return who runs a part of a claimed phase. Raises OSError: no room for the meeting."""
        gpus = record.gpus if part.every_rank else record.gpus[:1]
        ranks = max(1, len(gpus))
        if record.phase is Phase.TRAIN and part.every_rank and not gpus:
            ranks = services.cpu_ranks
        return cls(gpus, ranks, _new_file(services) if ranks > 1 else "")

    def dissolve(self) -> None:
        """Remove the file in which the ranks have met."""
        if self.meeting:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.meeting)


def _new_file(services: Services) -> str:
    """Return an empty file that nobody else has or may read."""
    fd, path = tempfile.mkstemp(prefix="ranks-", dir=services.run_dir)
    os.close(fd)
    return path


class Deaths:
    """Which process of a part was the first that did not end well.

    The others are then ended: ranks live and die together. One that says that it has lost another
    rank is no cause; what it has lost gets a moment to be seen dead as well.
    """

    def __init__(self) -> None:
        self.cause: Child | None = None
        self._settled = False
        self._since = 0.0  # monotonic

    def note(self, gone: Sequence[Child], said: Mapping[int, Outcome]) -> bool:
        """Note processes that have ended; return whether the others are to be ended now."""
        done = Outcome(Ending.DONE)
        bad = [child for child in gone if said.get(child.pid) != done]
        if self._settled or not (bad or self.cause):
            return bool(bad)
        if self.cause is None:
            self._since = time.monotonic()
        known = [self.cause] if self.cause else []
        self.cause = min(known + bad, key=lambda child: _follows(said.get(child.pid)))
        late = time.monotonic() >= self._since + FOLLOW_S
        self._settled = late or not _follows(said.get(self.cause.pid), alone=True)
        return self._settled


def _follows(said: Outcome | None, *, alone: bool = False) -> int:
    """Return how likely it is that a rank only follows another one; `alone`: nobody else is known.

    One that died without a word is a cause. Cards that cannot reach each other may be one.
    """
    code = said.error.code if said and said.error else ""
    if code == RANK_LOST:
        return 3
    if alone or said is None:
        return 0
    return 2 if code == GPU_FAILED else 1


def of_rank(outcome: Outcome, rank: int, ranks: int) -> Outcome:
    """Return the outcome of one rank with its number, where there are several."""
    if ranks == 1 or outcome.error is None:
        return outcome
    message = f"rank {rank} of {ranks}: {outcome.error.message}"
    return replace(outcome, error=replace(outcome.error, message=message))
