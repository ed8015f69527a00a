"""A job's model on its way to a client that shares no storage with the host: through the broker."""

import logging
import tarfile
import time
from typing import TYPE_CHECKING, Any, TypedDict

from ftq_shared import keys
from ftq_shared.lifetimes import INPUT_CHUNK
from ftq_shared.paths import JobPaths

if TYPE_CHECKING:
    from redis import Redis

log = logging.getLogger(__name__)

IN_FLIGHT = 32  # pieces that wait at the broker; more would fill its memory
PATIENCE_S = 60.0  # a client that takes nothing for so long has gone


class FetchRequest(TypedDict):
    """What a client publishes on the control channel."""

    fetch: str  # the job
    storage_id: str  # of the storage that has its files
    nonce: str  # names the list that the client reads


class _Pieces:
    """A file-like object that sends what is written to it, a piece at a time."""

    def __init__(self, binary: "Redis", key: str) -> None:
        self._binary, self._key = binary, key
        self._buffer = bytearray()
        self._pieces = 0

    def write(self, data: bytes) -> int:
        """Take bytes; waits while the client is behind. Raises TimeoutError when it is gone."""
        self._buffer += data
        while len(self._buffer) >= INPUT_CHUNK:
            self._push(bytes(self._buffer[:INPUT_CHUNK]))
            del self._buffer[:INPUT_CHUNK]
        return len(data)

    def end(self) -> None:
        """Send the rest, and an empty piece as the end."""
        if self._buffer:
            self._push(bytes(self._buffer))
        self._push(b"")

    def _push(self, piece: bytes) -> None:
        deadline = time.monotonic() + PATIENCE_S
        waiting: Any = self._binary.llen(self._key)
        while waiting >= IN_FLIGHT:
            if time.monotonic() > deadline:
                raise TimeoutError("the client takes nothing any more")
            time.sleep(0.02)
            waiting = self._binary.llen(self._key)
        # The number tells the client of a piece that a repeated call doubled or lost.
        self._binary.rpush(self._key, self._pieces.to_bytes(8, "big") + piece)
        self._pieces += 1
        self._binary.expire(self._key, int(PATIENCE_S) * 2)


def send_folder(binary: "Redis", paths: JobPaths, request: FetchRequest) -> None:
    """Send the model and its reports as a tar stream to the list that the request names."""
    pieces = _Pieces(binary, keys.relay(request["nonce"]))
    # Of the hosts that share the storage, the first to take the ticket answers.
    if not binary.set(keys.relay_taken(request["nonce"]), "1", nx=True, ex=3600):
        return
    try:
        with tarfile.open(fileobj=pieces, mode="w|") as tar:  # type: ignore[call-overload]
            if paths.fetched.is_dir():
                tar.add(paths.fetched, arcname=".")
                for path in paths.reports:
                    tar.add(path, arcname=path.name)
        pieces.end()
    except TimeoutError as error:
        extra = {"action": "fetch_abandoned", "job": paths.job}
        log.warning("fetch of %s: %s", paths.job, error, extra=extra)
