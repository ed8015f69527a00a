"""A process's heartbeat: it touches a file, and the supervisor watches whether the file moves."""

import logging
from pathlib import Path

log = logging.getLogger(__name__)


def touch(path: Path) -> None:
    """Give a heartbeat; one that cannot be given is no reason to die."""
    try:
        path.parent.mkdir(mode=0o700, exist_ok=True)  # /tmp may have been cleaned
        path.touch()
    except OSError as error:
        log.warning("%s: %s", path, error, extra={"action": "heartbeat_failed"})
