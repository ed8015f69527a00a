"""Every message between the processes of a host: its type stands here, and it is read here.

    agent -> child     Secrets, LeaseTimes, Stop, Answer      control pipe
    child -> agent     EventBody, Question, Outcome           event pipe
    agent -> zygote    ChildRequest; back come Forked and, at the end, Exited
    Celery -> agent    TakePhase, answered with Taken; FORWARD_REQUESTS, answered with many DISPATCH

All travel as one JSON object a line (`wire`). The names on the wire are older than those here.
"""

import json
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any, Literal, Self, TypedDict

from ftq_shared.errors import ErrorInfo
from ftq_shared.lifetimes import CHILD_S, PAUSE_S
from ftq_shared.states import Phase
from ftq_worker.host.wire import to_line

# -- agent -> zygote


@dataclass(frozen=True)
class Part:
    """A module of `ftq_worker.phases` that runs in processes of its own."""

    module: str
    every_rank: bool = True  # one process per card; else a single one, on the first


def parts_of(phase: Phase, *, replays: bool = False) -> tuple[Part, ...]:
    """Return what a phase runs under its one claim, a part once the one before it is done.

    What training saved is verified where it was trained, by a process that never saw the model.
    A job that `replays` a step of another one does nothing else, whatever its record says.
    """
    if replays:
        return (Part("replay"),)
    first = Part(str(phase))
    return (first, Part("verify", every_rank=False)) if phase is Phase.TRAIN else (first,)


@dataclass(frozen=True)
class ChildRequest:
    """One part of a phase for one child process: everything but the secrets."""

    job: str
    phase: str
    part: str  # its module
    attempt: int
    token_number: int
    spec: str  # JSON of the JobSpec
    storage: str  # root folder
    endpoint: str | None
    created: str = ""  # when the job was submitted, RFC 3339
    gpus: tuple[str, ...] = ()
    rank: int = 0
    ranks: int = 1  # that train together
    meeting: str = ""  # file through which they find each other; '' for one alone
    cpu_threads: int = 1
    env: dict[str, str] = field(default_factory=dict)  # for the child, never secrets
    claim: str = ""  # name of the claim's own folder
    fresh_after: int = 0  # checkpoints of tokens up to this number are not resumed from
    data_roots: dict[str, tuple[str, ...]] = field(default_factory=dict)  # DataRoots as JSON
    replay_of: str = ""  # the job whose step is repeated; '' for a job of its own
    replay_step: int = 0

    def dumps(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def loads(cls, text: str | bytes) -> Self:
        raw = json.loads(text)
        return cls(**raw | {"gpus": tuple(raw["gpus"])})


class Forked(TypedDict):
    """The zygote's first answer; a pidfd comes with it."""

    pid: int


class Exited(TypedDict):
    """The zygote's second answer, once the child has ended."""

    status: int  # exit code, negative for a signal


def read_forked(line: bytes) -> Forked:
    """Read the zygote's first answer."""
    return Forked(pid=json.loads(line)["pid"])


def read_exited(line: bytes) -> Exited:
    """Read the zygote's second answer."""
    return Exited(status=json.loads(line)["status"])


# -- agent -> child


class StopReason(StrEnum):
    """Why a phase is asked to stop."""

    CANCEL = "cancel"  # somebody cancelled the job
    DRAIN = "drain"  # the host goes down; the job goes on elsewhere
    DEADLINE = "timeout"  # max_runtime is over


@dataclass(frozen=True)
class Secrets:
    """What the phase may know that nobody else may; comes first."""

    values: dict[str, str]


@dataclass(frozen=True)
class LeaseTimes:
    """How far a lease reaches: seconds on the monotonic clock, which a host's processes share."""

    until: float  # then the kernel ends the child
    pause_at: float  # then the child stands still: another host may take the job soon

    @classmethod
    def renewed(cls, asked: float) -> Self:
        """Return the times of a lease whose renewal was sent at `asked`.

        They count from there: the broker may have noted the renewal at once, and whoever watches
        the lease counts from when it was noted.
        """
        return cls(asked + CHILD_S, asked + PAUSE_S)

    def at_least(self, other: "LeaseTimes") -> "LeaseTimes":
        """Return the later of both times: an answer that comes late takes nothing back."""
        return LeaseTimes(max(self.until, other.until), max(self.pause_at, other.pause_at))


@dataclass(frozen=True)
class Stop:
    """Save, and end at the next safe point."""

    reason: StopReason


@dataclass(frozen=True)
class Answer:
    """What the broker said to a Question."""

    status: Literal["ok", "busy", "stale"]
    owner: str = ""  # the job that has the lock, when it is busy


ControlMessage = Secrets | LeaseTimes | Stop | Answer


def control_line(message: ControlMessage) -> bytes:
    """Return a message for the control pipe."""
    match message:
        case Secrets():
            return to_line({"secrets": message.values})
        case LeaseTimes():
            return to_line({"lease": asdict(message)})
        case Stop():
            return to_line({"stop": message.reason})
        case Answer():
            return to_line({"answer": asdict(message)})


def read_control(line: bytes) -> ControlMessage:
    """Read what `control_line` wrote."""
    match json.loads(line):
        case {"secrets": values}:
            return Secrets(values)
        case {"lease": times}:
            return LeaseTimes(**times)
        case {"stop": reason}:
            return Stop(StopReason(reason))
        case {"answer": answer}:
            return Answer(**answer)
        case unknown:
            raise ValueError(f"no control message: {unknown}")


# -- child -> agent


class EventBody(TypedDict):
    """An event without the job and number, which the broker adds; see `ftq_shared.events`."""

    attempt: int
    host: str
    time: str
    phase: str | None
    type: str
    data: dict[str, Any]  # the fields that EVENTS documents for the type


@dataclass(frozen=True)
class Question:
    """What a phase asks of its agent, and waits for."""

    ask: Literal["written", "confirm", "lock"]
    what: str = ""  # the lock's name


# Codes of an Outcome: the cards that the phase was given cannot be used, or have failed at work.
GPU_FAULT = "gpu_fault"
GPU_FAILED = "gpu_failed"
# The same of a rank that lost the connection to another one, which is then the cause.
RANK_LOST = "rank_lost"


class Ending(StrEnum):
    """The ways in which a phase ends."""

    DONE = "done"
    CANCELLED = "cancelled"  # it stopped because somebody cancelled the job
    INTERRUPTED = "interrupted"  # it stopped for another StopReason and can be resumed
    BUSY = "busy"  # another job has what it needs: it goes on behind that one
    FAILED = "failed"  # the job's own fault
    HOST = "host"  # the host's fault, and the phase says so: no room on the disk
    DIED = "died"  # its process ended without a word
    NOT_RUN = "not_run"  # the agent could not run it


@dataclass(frozen=True)
class Outcome:
    """How a phase ended: the last line of a child, or what its agent concludes without one."""

    ending: Ending
    error: ErrorInfo | None = None  # why; None for DONE and CANCELLED
    counts_attempt: bool = True  # whether being requeued for it costs one of the job's attempts
    lock: str = ""  # BUSY: the lock that it waits for

    @property
    def reason(self) -> str:
        """Why it ended, in words; '' when there is nothing to say."""
        return self.error.message if self.error else ""


def report_line(message: Question | Outcome) -> bytes:
    """Return a message for the event pipe."""
    match message:
        case Question():
            return to_line({key: text for key, text in asdict(message).items() if text})
        case Outcome(ending, error, _, lock):
            said: dict[str, Any] = {"outcome": ending, "lock": lock}
            return to_line(said | ({"error": error.to_json()} if error else {}))


def read_report(line: bytes) -> EventBody | Question | Outcome:
    """Read a line of the event pipe."""
    message = json.loads(line)
    if "outcome" in message:
        error = message.get("error")
        told = ErrorInfo.from_json(error) if error else None
        ending = Ending(message["outcome"])
        return Outcome(ending, told, ending is not Ending.BUSY, message["lock"])
    if "ask" in message:
        return Question(**message)
    body: EventBody = message
    return body


# -- Celery -> agent

FORWARD_REQUESTS = {"bells": True}  # from now on, send me every request for a dispatch pass
DISPATCH = {"ring": True}  # such a request


class TakePhase(TypedDict):
    """A phase was placed on this host."""

    run: str  # the job
    token: str


class Taken(TypedDict):
    """Whether the agent has claimed it."""

    taken: bool


def read_request(line: bytes) -> TakePhase | None:
    """Read what the Celery process asks for; None for FORWARD_REQUESTS. Raises ValueError."""
    match json.loads(line):
        case {"run": job, "token": token}:
            return TakePhase(run=job, token=token)
        case message if message == FORWARD_REQUESTS:
            return None
        case unknown:
            raise ValueError(f"no request: {unknown}")
