"""How a phase can end without saying so itself, in words and as an error."""

import signal

from ftq_shared.errors import ErrorInfo, Exit
from ftq_shared.job_record import JobRecord


def death_in_words(status: int | None) -> str:
    """Return what an exit status means, as a sentence's end."""
    if status is None:
        return "ended, and nobody saw how"
    if status == -signal.SIGALRM:
        return "was ended by its own timer: its agent did not renew the lease in time"
    if status == -signal.SIGKILL:
        return "was killed (signal 9); out of memory is the usual reason"
    if status < 0:
        return f"was ended by signal {-status} ({signal.Signals(-status).name})"
    return f"ended with exit code {status} and no word"


def timeout_error(record: JobRecord) -> ErrorInfo:
    """Return the error for a run that took longer than it may."""
    limit = record.summary.get("max_runtime_s", "?")
    return ErrorInfo(
        "timeout",
        f"training took longer than max_runtime ({limit} s); the last checkpoint is kept",
        f"ftq retry {record.id} goes on from the checkpoint",
        Exit.FAILED,
    )
