"""Secrets on their way from a client to the phase that needs them.

The client seals them (libsodium sealed box) for the fleet's public key; only a worker that holds
the private half can open the box, and only for the job, the spec and the Hub it was made for.
Clients pin the fleet's key at first use, so that a broker cannot hand out a key of its own.
"""

import base64
import binascii
import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from ftq_shared.errors import Refused, UsageError
from ftq_shared.paths import read_json, write_json
from ftq_shared.settings import DEFAULT_ENDPOINT

_HEADER = "ftq-fleet-key-1"
_KEY_BYTES = 32
_BOX_VERSION = 1


@dataclass(frozen=True, repr=False)  # no repr: a key must not end up in a log line
class FleetKey:
    """The fleet's key pair; workers hold it, clients see only `public`."""

    _private: bytes

    @classmethod
    def generate(cls) -> Self:
        """Make a new key pair."""
        from nacl.public import PrivateKey

        return cls(PrivateKey.generate().encode())

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a key file.

        Raises UsageError when it is missing, is no key file, or others than its owner may read it.
        """
        try:
            with path.open("rb") as file:
                mode = os.fstat(file.fileno()).st_mode & 0o777
                content = file.read(4096)
        except OSError as error:
            raise UsageError(
                f"fleet key {path}: {(error.strerror or str(error)).lower()}",
                code="no_fleet_key",
                hint="`ftq keygen` makes one; FTQ_FLEET_KEY names the file",
            ) from error
        if mode & 0o077:
            raise UsageError(
                f"fleet key {path}: others may read it (mode {mode:04o})",
                code="fleet_key_readable",
                hint=f"chmod 600 {path}",
            )
        return cls(_decode_key(path, content))

    def save(self, path: Path) -> None:
        """Write the key file, readable by its owner only.

        Raises UsageError when the file exists, because whoever lost a key cannot open what was
        sealed; and when it cannot be written.
        """
        text = f"{_HEADER} {base64.b64encode(self._private).decode()}\n"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        except FileExistsError as error:
            raise UsageError(
                f"fleet key {path}: exists already",
                code="fleet_key_exists",
                hint="jobs that wait were sealed for it; move it away first",
            ) from error
        except (OSError, ValueError) as error:
            raise UsageError(
                f"fleet key {str(path)[:200]}: {getattr(error, 'strerror', None) or error}",
                code="bad_fleet_key",
                hint="name a file that can be written: ftq keygen FILE",
            ) from error
        with os.fdopen(handle, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(handle)

    @property
    def public(self) -> str:
        """The public half, base64: what clients seal for."""
        from nacl.public import PrivateKey

        return base64.b64encode(PrivateKey(self._private).public_key.encode()).decode()

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.public)

    def _open(self, box: bytes) -> bytes:
        from nacl.public import PrivateKey, SealedBox

        return SealedBox(PrivateKey(self._private)).decrypt(box)


def _decode_key(path: Path, content: bytes) -> bytes:
    header, _, encoded = content.decode("ascii", "replace").strip().partition(" ")
    try:
        key = base64.b64decode(encoded, validate=True)
    except binascii.Error:
        key = b""
    if header != _HEADER or len(key) != _KEY_BYTES:
        raise UsageError(
            f"fleet key {path}: no fleet key in it",
            code="bad_fleet_key",
            hint="`ftq keygen` writes such a file",
        )
    return key


def fingerprint(public_key: str) -> str:
    """Return a short name for a public key that people can compare, as ssh does."""
    digest = hashlib.sha256(_decode_public(public_key)).digest()
    return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")


def _decode_public(public_key: str) -> bytes:
    """Raises UsageError for what is no public key."""
    try:
        key = base64.b64decode(public_key, validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != _KEY_BYTES:
        raise UsageError("the fleet's public key is malformed", code="bad_fleet_key")
    return key


def _binding(job: str, spec_sha256: str, endpoint: str | None) -> dict[str, str]:
    """Return what a box is good for; no endpoint means the public Hub."""
    hub = (endpoint or DEFAULT_ENDPOINT).rstrip("/").lower()
    return {"job": job, "spec": spec_sha256, "endpoint": hub}


def seal(
    public_key: str,
    values: Mapping[str, str],
    *,
    job: str,
    spec_sha256: str,
    endpoint: str | None,
) -> str:
    """Seal secrets by name for a fleet; returns base64 text. Raises UsageError for a bad key."""
    from nacl.public import PublicKey, SealedBox

    box = _binding(job, spec_sha256, endpoint) | {"v": _BOX_VERSION, "values": dict(values)}
    sealed = SealedBox(PublicKey(_decode_public(public_key))).encrypt(json.dumps(box).encode())
    return base64.b64encode(sealed).decode()


def open_box(
    key: FleetKey, box: str, *, job: str, spec_sha256: str, endpoint: str | None
) -> dict[str, str]:
    """Return the secrets of a box by name.

    Raises Refused: `secret_unreadable` when it was sealed for another key or was changed,
    `secret_binding` when it was sealed for another job, spec or Hub.
    """
    content = _unseal(key, box)
    for name, expected in _binding(job, spec_sha256, endpoint).items():
        if content.get(name) != expected:
            raise Refused(
                f"the job's secrets were sealed for another {_BOUND[name]}",
                code="secret_binding",
                hint=_BOUND_HINT[name],
            )
    values = content["values"]
    assert isinstance(values, dict)
    return {str(name): str(value) for name, value in values.items()}


_BOUND = {"job": "job", "spec": "spec", "endpoint": "Hub (HF_ENDPOINT)"}
_BOUND_HINT = {
    "job": "the job's record was changed on the broker; submit it again",
    "spec": "the job's record was changed on the broker; submit it again",
    "endpoint": "HF_ENDPOINT must be the same where the job is submitted and on the workers",
}


def _unseal(key: FleetKey, box: str) -> dict[str, object]:
    from nacl.exceptions import CryptoError

    try:
        content = json.loads(key._open(base64.b64decode(box, validate=True)))
        if isinstance(content, dict) and content.get("v") == _BOX_VERSION:
            return content
    except (CryptoError, ValueError):  # ValueError: base64, JSON, UTF-8
        pass
    raise Refused(
        f"the job's secrets cannot be opened with this worker's fleet key {key.fingerprint}",
        code="secret_unreadable",
        hint="all workers of a fleet hold one key (FTQ_FLEET_KEY); submit the job again",
    )


class KnownFleets:
    """The fingerprints that this client has seen, one per broker, in one JSON file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def verify(self, broker: str, public_key: str) -> str:
        """Return the fingerprint; pins it the first time that this broker is seen.

        Raises UsageError (code `fleet_key_changed`) when another one is pinned.
        """
        found = fingerprint(public_key)
        with self._locked():
            pinned = self._read().setdefault(broker, found)
            if pinned == found:
                self._write(broker, found)
                return found
        raise UsageError(
            f"the fleet key of {broker} has changed: pinned {pinned}, now {found}",
            code="fleet_key_changed",
            hint="nothing was sent. If the key was changed on purpose (compare with the output "
            f"of `ftq keygen` on a worker), delete the line of {broker} in {self.path}",
        )

    def accept(self, broker: str, public_key: str) -> str:
        """Pin a key in place of the one before; returns its fingerprint."""
        found = fingerprint(public_key)
        with self._locked():
            self._write(broker, found)
        return found

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold other clients off, so that two first uses do not lose each other's line."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.with_name(f".{self.path.name}.lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _write(self, broker: str, found: str) -> None:
        known = self._read()
        if known.get(broker) != found:
            write_json(self.path, known | {broker: found}, mode=0o600)

    def _read(self) -> dict[str, str]:
        try:
            known = read_json(self.path)
            if known is None:
                return {}
            if isinstance(known, dict) and all(isinstance(v, str) for v in known.values()):
                return known
        except ValueError:
            pass
        raise UsageError(
            f"{self.path}: not a list of known fleets",
            code="bad_known_fleets",
            hint="repair or delete the file; every fleet is then pinned anew at its next use",
        )
