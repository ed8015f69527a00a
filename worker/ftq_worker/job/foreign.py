"""Errors of libraries that read what somebody else has made: a model, a tokenizer, a template.

They raise whatever their parsers happen to raise. The author of the file is to blame, so it is a
refusal that names the file, never a traceback.
"""

import contextlib
import errno
import pickle
from collections.abc import Iterator

from ftq_shared.errors import FtqError, Refused

# Errors of the host, which has its own words for them.
_HOST_ERRNOS = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE, errno.ETIMEDOUT),
    *(errno.EMFILE, errno.ENFILE, errno.ENOMEM),
)


@contextlib.contextmanager
def foreign(what: str, *, code: str, hint: str) -> Iterator[None]:
    """Turn what a library raises about a foreign file into Refused; `what` begins the message."""
    try:
        yield
    except (FtqError, MemoryError):
        raise
    except pickle.UnpicklingError as error:  # torch's own advice is to switch the check off
        raise Refused(
            f"{what}: it holds more than numbers (pickled code or objects), which is never loaded",
            code=code,
            hint="choose a model with safetensors, or convert it where you trust it",
        ) from error
    except Exception as error:
        if _of_host(error):
            raise
        lines = str(error).strip().splitlines() or [""]
        said = " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]
        raise Refused(
            f"{what}: {type(error).__name__}: {said[:300]}", code=code, hint=hint
        ) from error


def _of_host(error: Exception) -> bool:
    """Return whether the host, a card or a stop is to blame: out of memory, disk, descriptors."""
    names = {kind.__name__ for kind in type(error).__mro__}
    return bool(names & {"OutOfMemoryError", "AcceleratorError"}) or (
        isinstance(error, OSError) and error.errno in _HOST_ERRNOS
    )
