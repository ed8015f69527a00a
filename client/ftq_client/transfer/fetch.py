"""`ftq fetch`: a finished job's model comes to the client.

From the storage that both share, else from a host that has it, through the broker.
"""

import json
import secrets
import shutil
import tarfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftq_client.transfer.upload_routes import storage_root
from ftq_shared import keys
from ftq_shared.errors import FtqError
from ftq_shared.paths import JobPaths
from ftq_shared.settings import Settings

if TYPE_CHECKING:
    from redis import Redis

FETCH_WAIT_S = 30.0  # for the first piece, and between two


def fetch_model(
    binary: "Redis", settings: Settings, job: str, storage_id: str, target: Path
) -> Path:
    """Copy a job's model and reports to `target`. Raises FtqError when no host with it answers."""
    local = JobPaths(storage_root(settings), job)
    if local.fetched.is_dir():
        shutil.copytree(local.fetched, target, dirs_exist_ok=True)
        for path in local.reports:
            if path.is_dir():
                shutil.copytree(path, target / path.name, dirs_exist_ok=True)
            else:
                shutil.copy2(path, target)
        return target
    nonce = secrets.token_hex(8)
    request = {"fetch": job, "storage_id": storage_id, "nonce": nonce}
    if not binary.publish(keys.CONTROL, json.dumps(request)):
        raise _out_of_reach(job)
    target.mkdir(parents=True, exist_ok=True)
    with tarfile.open(fileobj=_Incoming(binary, job, nonce), mode="r|") as tar:  # type: ignore[call-overload]
        tar.extractall(target, filter="data")
        if not tar.getmembers():
            raise _out_of_reach(job)
    return target


class _Incoming:
    """A file-like object that reads pieces as they arrive."""

    def __init__(self, binary: "Redis", job: str, nonce: str) -> None:
        self._binary, self._job, self._key = binary, job, keys.relay(nonce)
        self._buffer = b""
        self._ended = False
        self._pieces = 0

    def read(self, size: int) -> bytes:
        """Return up to `size` bytes. Raises FtqError when the host falls silent."""
        while len(self._buffer) < size and not self._ended:
            piece = self._next()
            self._ended = not piece
            self._buffer += piece
        data, self._buffer = self._buffer[:size], self._buffer[size:]
        return data

    def _next(self) -> bytes:
        deadline = time.monotonic() + FETCH_WAIT_S
        while time.monotonic() < deadline:
            got: Any = self._binary.blpop([self._key], timeout=2)
            if not got:
                continue
            number, piece = int.from_bytes(got[1][:8], "big"), bytes(got[1][8:])
            if number == self._pieces:
                self._pieces += 1
                return piece
            # A lower number is a piece that a repeated call doubled. A higher one means that a
            # piece was lost with an answer of the broker: better no file than a wrong one.
            if number > self._pieces:
                break
        raise _out_of_reach(self._job)


def _out_of_reach(job: str) -> FtqError:
    return FtqError(
        "no worker that holds this job's files answers",
        code="no_road",
        hint=f"start the worker that ran it (`ftq show {job}` names it), then fetch again",
    )
