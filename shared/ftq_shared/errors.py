"""The errors of ftq and the exit code that each one carries.

    FtqError                 1   base; the job failed
    ├── UsageError           2   a bad spec, flag or setting
    ├── NoSuchJob            3   no job, or several, by that name
    ├── JobCancelled         4   the job was cancelled
    ├── Refused              5   validation said no (missing, gated, does not fit)
    ├── BrokerUnreachable    6   Redis or Valkey does not answer
    ├── HubUnreachable       7   the Hub does not answer
    ├── Stale                1   a token that is no longer the job's
    ├── TrainingFailed       1   the run itself broke
    ├── OutOfMemory          1   one that memory broke (ftq_worker.training.device_errors)
    ├── Diverged             1   one whose loss broke away (ftq_worker.training.divergence)
    ├── Unexpected          70   none of the above: a bug, or the system itself (disk full)
    ├── Interrupted          1   the phase was told to stop (ftq_worker.job.context)
    ├── Busy                 1   another job has what the phase needs (ftq_worker.job.context)
    ├── HostFault            1   the host failed, and its phase saw it (ftq_worker.job.context)
    └── HostTrouble          1   the host failed, not the job (ftq_worker.agent.child)

An error says what was found (`message`), what to do (`hint`), and has a stable `code` for
programs. `ErrorInfo` is its form on the wire, in the `error` event and in the job record.
"""

from dataclasses import dataclass, field
from enum import IntEnum
from typing import ClassVar, NotRequired, TypedDict, Unpack, cast


class Exit(IntEnum):
    """Exit codes of the `ftq` command; of several jobs the worst counts."""

    OK = 0  # the job succeeded, or the command did what it was asked
    FAILED = 1  # the job failed
    USAGE = 2  # usage, a bad spec, a bad setting
    NO_SUCH_JOB = 3  # no job of that id
    CANCELLED = 4  # the job was cancelled
    REFUSED = 5  # validation refused the job
    BROKER = 6  # the broker is not reachable
    HUB = 7  # the Hub is not reachable
    UNEXPECTED = 70  # none of these: a bug, or the system refused (a full disk); nothing of a job
    TIMEOUT = 124  # `ftq wait --timeout` ran out
    INTERRUPTED = 130  # left with Ctrl-C


class AttemptDeath(TypedDict):
    """How one attempt of a job died; what lib.lua adds to the record."""

    attempt: int
    host: str
    phase: str
    reason: str
    time: str  # RFC 3339


class Where(TypedDict, total=False):
    """Where an error was found, as far as it applies; the `error` event documents the fields."""

    file: str
    row: int  # from 0
    line: int  # from 1
    field: str
    step: int
    nearest: list[str]
    traceback: str
    attempts: list[AttemptDeath]


class ErrorJson(Where):
    """An error in the `error` event, in the job record and between processes."""

    code: str
    message: str
    exit_code: int
    hint: NotRequired[str]


@dataclass(frozen=True)
class ErrorInfo:
    """An error as plain data: what the `error` event and the job record hold."""

    code: str  # stable, snake_case, for programs
    message: str  # what was found, for people
    hint: str = ""  # what to do about it
    exit_code: int = Exit.FAILED  # what `ftq tail` exits with
    where: Where = field(default_factory=Where)

    def to_json(self) -> ErrorJson:
        """Return the fields as a JSON object; empty ones are left out."""
        data: ErrorJson = {
            "code": self.code,
            "message": self.message,
            "exit_code": int(self.exit_code),
        }
        if self.hint:
            data["hint"] = self.hint
        return {**data, **self.where}

    @classmethod
    def from_json(cls, data: ErrorJson) -> "ErrorInfo":
        """Read what `to_json` wrote; unknown keys are kept in `where`."""
        known = {"code", "message", "hint", "exit_code"}
        return cls(
            code=str(data.get("code", "failed")),
            message=str(data.get("message", "")),
            hint=str(data.get("hint", "")),
            exit_code=int(data.get("exit_code", Exit.FAILED)),
            where=cast(Where, {key: value for key, value in data.items() if key not in known}),
        )


class FtqError(Exception):
    """Base of everything ftq raises on purpose."""

    exit_code: ClassVar[Exit] = Exit.FAILED
    default_code: ClassVar[str] = "failed"

    def __init__(
        self, message: str, *, code: str = "", hint: str = "", **where: Unpack[Where]
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or self.default_code
        self.hint = hint
        self.where = where

    def info(self) -> ErrorInfo:
        return ErrorInfo(self.code, self.message, self.hint, self.exit_code, self.where)


class UsageError(FtqError):
    """Raised for a bad spec, flag, setting or answer; nothing was started."""

    exit_code = Exit.USAGE
    default_code = "usage"


class NoSuchJob(FtqError):
    """Raised when an id or prefix names no job, or several."""

    exit_code = Exit.NO_SUCH_JOB
    default_code = "no_such_job"


class JobCancelled(FtqError):
    """Raised inside a phase when the job was cancelled."""

    exit_code = Exit.CANCELLED
    default_code = "cancelled"


class Refused(FtqError):
    """Raised when validation finds that the job cannot work, or that access is refused."""

    exit_code = Exit.REFUSED
    default_code = "refused"


class BrokerUnreachable(FtqError):
    """Raised when Redis or Valkey does not answer in time, or refuses the log-in."""

    exit_code = Exit.BROKER
    default_code = "broker_unreachable"


class HubUnreachable(FtqError):
    """Raised when the Hub does not answer after all retries; the job can be retried."""

    exit_code = Exit.HUB
    default_code = "hub_unreachable"


class Stale(FtqError):
    """Raised when a token is no longer the job's: somebody else owns it now, or nobody."""

    default_code = "stale"


class TrainingFailed(FtqError):
    """Raised when a run breaks: non-finite loss, out of memory, nothing left to train on."""

    default_code = "training_failed"


class Unexpected(FtqError):
    """Raised at the edge of a command for what nobody has foreseen; says nothing of a job."""

    exit_code = Exit.UNEXPECTED
    default_code = "unexpected"


def target_taken(repo: str) -> Refused:
    """Return the refusal to publish into a repo that holds something else."""
    return Refused(
        f"{repo} holds something that ftq did not put there",
        code="target_taken",
        hint="choose another repo with --publish-to, or --set publish.overwrite=true to replace it",
        field="publish.repo",
    )


def task_unsupported(task: str, instead: str = "") -> Refused:
    """Return the refusal of a task that this version does not train; `instead` is what to do."""
    return Refused(
        f"the task {task} is not trained by this version",
        code="task_unsupported",
        hint=instead or "map the columns to prompt and completion, and write task: sft",
        field="task",
    )


def max_length_above(asked: int, limit: int) -> Refused:
    """Return the refusal of rows longer than the model takes; both in tokens."""
    return Refused(
        f"train.max_length is {asked:,}, but the model takes at most {limit:,} tokens",
        code="max_length",
        hint=f"--set train.max_length={limit} or less, or auto; or choose a model that takes more",
        field="train.max_length",
    )


def input_lost(path: str, why: str) -> FtqError:
    """Return the error for a file of the client's that a worker cannot have."""
    return FtqError(
        f"input {path}: {why}",
        code="input_lost",
        hint="submit the job again, so that the files travel again",
        file=path,
    )
