"""How a phase can end without saying so itself, in words and as an error."""

import errno
import shutil
import signal
from dataclasses import dataclass
from pathlib import Path

from ftq_shared.errors import ErrorInfo, Exit
from ftq_shared.job_record import JobRecord

DISK_MIN = 64 * 2**20  # bytes; a storage with less room takes no work


@dataclass(frozen=True)
class Death:
    """How a process died that said nothing itself. All of these may be tried again."""

    code: str  # for programs: killed, out_of_memory_host, lease_lost, crashed, exited, unknown
    words: str  # for people, as a sentence's end


def classify(status: int | None, *, memory_ran_out: bool) -> Death:
    """Return what an exit status means; negative numbers are signals, None is unknown.

    `memory_ran_out`: the kernel has killed a process for want of memory while this one ran.
    """
    if status is None:
        return Death("unknown", "ended, and nobody saw how")
    if status == -signal.SIGALRM:
        return Death(
            "lease_lost", "was ended by its own timer: its agent did not renew the lease in time"
        )
    if status == -signal.SIGKILL and memory_ran_out:
        return Death("out_of_memory_host", "was killed by the kernel: the host ran out of memory")
    if status == -signal.SIGKILL:
        return Death("killed", "was killed (signal 9), and not for want of memory")
    if status < 0:
        name = signal.Signals(-status).name
        return Death("crashed", f"was ended by signal {-status} ({name})")
    return Death("exited", f"ended with exit code {status} and no word")


def disk_full(error: BaseException, storage: Path) -> ErrorInfo | None:
    """Return the error to report when `error` comes from a full disk, else None.

    Libraries word it in many ways, so the text is searched and the disk is asked as well.
    """
    cause: BaseException | None = error
    while cause is not None:
        full = isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT)
        if full or "os error 28" in str(cause) or "No space left" in str(cause):
            return no_room(storage)
        cause = cause.__cause__ or cause.__context__
    return no_room(storage) if shutil.disk_usage(storage).free < 2**20 else None


def no_room(storage: Path) -> ErrorInfo:
    """Return the error for a storage without room."""
    free_mb = shutil.disk_usage(storage).free / 1e6
    return ErrorInfo(
        "disk_full",
        f"the disk of {storage} is full ({free_mb:.0f} MB free)",
        "make room on the host: folders of ended jobs in FTQ_STORAGE can go",
    )


def timeout_error(record: JobRecord) -> ErrorInfo:
    """Return the error for a run that took longer than it may."""
    limit = record.summary.get("max_runtime_s", "?")
    return ErrorInfo(
        "timeout",
        f"training took longer than max_runtime ({limit} s); the last checkpoint is kept",
        f"ftq retry {record.id} goes on from the checkpoint",
        Exit.FAILED,
    )
