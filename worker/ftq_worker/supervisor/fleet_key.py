"""The fleet's key on a worker: read, or made for a single machine, and announced to clients."""

from typing import TYPE_CHECKING

from ftq_shared import keys
from ftq_shared.broker import translated
from ftq_shared.errors import UsageError
from ftq_shared.hosts import HostStore
from ftq_shared.secrets import FleetKey, fingerprint
from ftq_shared.settings import Settings

if TYPE_CHECKING:
    from redis import Redis


def announce_fleet(redis: "Redis", settings: Settings) -> None:
    """Publish the public half, so that clients can seal secrets for this fleet.

    Raises UsageError when the key file is missing, or when the fleet has another key already.
    """
    path = settings.fleet_key_file
    if not path.exists():
        raise UsageError(
            f"FTQ_FLEET_KEY: there is no key at {path}",
            code="no_fleet_key",
            hint="make one with `ftq keygen`, and give the same file to every worker",
        )
    key = FleetKey.load(path)
    with translated(settings.redis_url):
        HostStore(redis).announce_key(key.public)
        known = str(redis.hget(keys.FLEET, "public_key"))
    if known != key.public:
        raise UsageError(
            f"this worker's fleet key is {key.fingerprint}, the fleet's is {fingerprint(known)}",
            code="fleet_key_mismatch",
            hint="give every worker the same key file (FTQ_FLEET_KEY)",
        )
