"""Phases and job states, and every arrow between the states with its sentence.

The arrows are carried out by the Lua scripts in `scripts/`; docs/architecture.md draws them,
and a test holds the picture, this table and the scripts together.
"""

from dataclasses import dataclass
from enum import StrEnum


class Phase(StrEnum):
    """The four phases, in order: the units of placement, lease, retry and resume."""

    VALIDATE = "validate"  # model, dataset and access are looked up; nothing is downloaded whole
    PREPARE = "prepare"  # rows are read, cleaned, split and tokenized
    TRAIN = "train"  # the only phase that takes GPUs
    PUBLISH = "publish"  # the saved model is evaluated again, pushed and read back

    @property
    def next(self) -> "Phase | None":
        """Return the phase that follows, None after the last."""
        order = list(Phase)
        position = order.index(self) + 1
        return order[position] if position < len(order) else None


class JobState(StrEnum):
    """Where a job stands; the phase stands beside it."""

    QUEUED = "queued"  # waits for a place for its phase
    PLACED = "placed"  # a host was chosen and a token issued; nobody has claimed it yet
    RUNNING = "running"  # a host holds the lease and works on the phase
    SUCCEEDED = "succeeded"  # all phases are done
    FAILED = "failed"  # ended with an error; can be retried
    CANCELLED = "cancelled"  # ended because somebody asked

    @property
    def terminal(self) -> bool:
        """Return whether nothing more happens to a job in this state by itself."""
        return self in TERMINAL


TERMINAL = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED})


@dataclass(frozen=True)
class Transition:
    """One arrow of the state diagram."""

    source: JobState | None  # None: the job does not exist yet
    target: JobState
    script: str  # the Lua file that carries it out
    sentence: str  # what it means, as docs/architecture.md says it


QUEUED, PLACED, RUNNING, SUCCEEDED, FAILED, CANCELLED = JobState

TRANSITIONS = (
    Transition(None, QUEUED, "submit", "A client submits a job."),
    Transition(QUEUED, PLACED, "place", "A dispatch pass finds a host with free slots."),
    Transition(PLACED, RUNNING, "claim", "The host's agent claims with the token."),
    Transition(
        PLACED,
        RUNNING,
        "finish",
        "The broker went back and lost the claim: the holder of the token had it all the same.",
    ),
    Transition(PLACED, QUEUED, "reap", "Nobody claimed in time: the place is given back."),
    Transition(RUNNING, QUEUED, "finish", "A phase is done and another follows."),
    Transition(
        RUNNING,
        QUEUED,
        "requeue",
        "The phase was interrupted (drain, lost child) and attempts are left.",
    ),
    Transition(RUNNING, QUEUED, "reap", "The lease ran out and attempts are left."),
    Transition(RUNNING, SUCCEEDED, "finish", "The last phase is done."),
    Transition(RUNNING, FAILED, "finish", "A phase failed."),
    Transition(RUNNING, FAILED, "requeue", "It was interrupted and no attempt is left."),
    Transition(RUNNING, FAILED, "reap", "The lease ran out and no attempt is left."),
    Transition(RUNNING, CANCELLED, "finish", "The owner stopped it after a cancel."),
    Transition(RUNNING, CANCELLED, "requeue", "It was interrupted and a cancel waits."),
    Transition(RUNNING, CANCELLED, "reap", "The lease ran out and a cancel waits."),
    Transition(QUEUED, CANCELLED, "cancel", "Nobody had it yet."),
    Transition(PLACED, CANCELLED, "cancel", "Nobody worked on it yet."),
    Transition(PLACED, CANCELLED, "claim", "The canceller might not take the lease."),
    Transition(PLACED, CANCELLED, "reap", "Nobody claimed in time and a cancel waits."),
    Transition(PLACED, QUEUED, "requeue", "The host is going down, or its disk is full."),
    Transition(FAILED, QUEUED, "retry", "Somebody asked for another attempt."),
    Transition(CANCELLED, QUEUED, "retry", "Somebody asked for another attempt."),
)
