"""A disk without room: known by what libraries raise, and named as the host's fault."""

import errno
import shutil
from pathlib import Path

from ftq_shared.errors import ErrorInfo

DISK_MIN = 64 * 2**20  # bytes; a storage with less room takes no work


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
        "make room on the host: `ftq prune --dry-run` shows what of ended jobs can go",
    )
