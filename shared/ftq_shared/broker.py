"""Connections to Redis or Valkey: explicit time-outs, explicit retries, errors translated once."""

import contextlib
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ftq_shared.broker_url import parse_broker_url, shown
from ftq_shared.errors import BrokerUnreachable

if TYPE_CHECKING:  # importing redis costs 130 ms, so only commands that talk to the broker do
    from redis import Redis
    from redis.exceptions import RedisError

CONNECT_TIMEOUT_S = 2.0
READ_TIMEOUT_S = 5.0
RETRIES = 2
PING_S = 2.5  # a broker that needs longer for a ping is of no use

# What the server says of a key that is no hash, and of a script that stumbles over one record; not
# what it says while it takes no script or no write at all.
_DAMAGED = re.compile(r"^WRONGTYPE |^NOJOB |hash value is not an integer|@?user_script:\d+")
_SERVERS_OWN = re.compile(r"^(?:READONLY|NOPERM|MISCONF|NOREPLICAS|OOM|MASTERDOWN|CLUSTERDOWN) ")
_NO_SCRIPTS = re.compile(r"unknown (?:redis )?(?:sub)?command|compiling script", re.IGNORECASE)

_START_HINT = "start one with `ftq up`, or set FTQ_REDIS_URL to the fleet's Redis or Valkey"


def connect(
    url: str | None,
    *,
    binary: bool = False,
    retries: int = RETRIES,
    read_timeout_s: float = READ_TIMEOUT_S,
) -> "Redis":
    """Return a client for `url`; nothing is sent yet.

    Retries are safe because every script of ftq may be repeated. `binary` leaves values as bytes.
    Raises BrokerUnreachable when no broker is known.
    """
    if not url:
        raise BrokerUnreachable("no broker is known", hint=_START_HINT)
    from redis import Redis
    from redis.backoff import ExponentialBackoff
    from redis.exceptions import ConnectionError, ReadOnlyError, TimeoutError
    from redis.retry import Retry

    parts = parse_broker_url(url)
    return Redis.from_url(
        parts.url,
        decode_responses=not binary,
        encoding_errors="replace",  # one byte that is no UTF-8 may not stop a whole list
        socket_connect_timeout=CONNECT_TIMEOUT_S,
        socket_timeout=read_timeout_s,
        socket_keepalive=True,
        health_check_interval=10,
        retry=Retry(ExponentialBackoff(cap=0.5, base=0.05), retries),
        # A primary that was made a replica keeps its connections: behind the name is another one.
        retry_on_error=[ConnectionError, TimeoutError, ReadOnlyError],
        client_name="ftq",
        **parts.tls_arguments,
    )


@contextlib.contextmanager
def translated(url: str | None = None) -> Iterator[None]:
    """Turn what redis-py says of a broker that takes nothing into BrokerUnreachable.

    The errors of a script about one damaged record pass (`is_damage`), and so do errors of
    files, which have nothing to do with the broker.
    """
    from redis.exceptions import RedisError, ResponseError

    try:
        yield
    except RedisError as error:
        if isinstance(error, ResponseError) and is_damage(error):
            raise
        raise _in_words(error, shown(url) if url else "") from error


def _in_words(error: "RedisError", place: str) -> BrokerUnreachable:
    """Return what an error of redis-py means; `place` is '' where a log line would repeat it."""
    from redis import exceptions as of_redis

    where = f"the broker at {place}" if place else "the broker"
    table: tuple[tuple[type[Exception], str, str, str], ...] = (
        (
            of_redis.OutOfMemoryError,
            "broker_full",
            "the broker takes nothing more",
            "its administrator can raise maxmemory; running jobs go on and can end",
        ),
        (
            of_redis.ReadOnlyError,
            "broker_read_only",
            f"{where} is a replica and takes no writes",
            "set FTQ_REDIS_URL to the primary",
        ),
        (
            of_redis.NoPermissionError,
            "broker_permission",
            f"{where} does not let this user do it",
            "docs/security.md has the access lists that clients and workers need",
        ),
        (
            of_redis.AuthenticationError,
            "broker_login",
            f"{where} refuses the log-in",
            "look at user and password in FTQ_REDIS_URL",
        ),
        (of_redis.ConnectionError, "", f"{where} does not answer", _hint(error)),
        (of_redis.TimeoutError, "", f"{where} does not answer", _START_HINT),
    )
    for kind, code, words, hint in table:
        if isinstance(error, kind):
            return BrokerUnreachable(f"{words}: {error}", code=code, hint=hint)
    if _says_disk(error):
        text = f"{where} takes nothing, because it cannot write to its own disk: {error}"
        hint = "make room there, or look into its log; running jobs wait for it and go on"
        return BrokerUnreachable(text, code="broker_disk", hint=hint)
    hint = "a single Redis or Valkey server with its usual commands will do; see `ftq doctor`"
    return BrokerUnreachable(f"{where} refuses: {error}", code="broker_refuses", hint=hint)


def _says_disk(error: "RedisError") -> bool:
    return str(error).startswith("MISCONF ")


def _hint(error: Exception) -> str:
    """Return what to do about a connection that fails."""
    if "certificate" in str(error).lower() or "SSL" in str(error):
        return "TLS fails: with a private CA, FTQ_REDIS_URL ends with ?ssl_ca_certs=FILE"
    return _START_HINT


def is_damage(error: Exception) -> bool:
    """Return whether an error of the server comes from a damaged key, so that waiting is no use."""
    from redis.exceptions import NoPermissionError, OutOfMemoryError, ReadOnlyError

    text = str(error)
    if isinstance(error, NoPermissionError | OutOfMemoryError | ReadOnlyError):
        return False  # redis-py takes the first word off
    of_server = _SERVERS_OWN.search(text) or _NO_SCRIPTS.search(text)
    return bool(_DAMAGED.search(text)) and not of_server


def ping(url: str | None) -> None:
    """Prove that the broker answers, within PING_S also when packets vanish.

    It uses a connection of its own: retries and time-outs of the working ones add up to far more.
    A broker that cannot write refuses a ping as well, but answers who only reads.
    Raises BrokerUnreachable.
    """
    from redis.exceptions import ResponseError

    with translated(url), connect(url, retries=0, read_timeout_s=PING_S) as client:
        try:
            client.ping()
        except ResponseError as error:
            if not _says_disk(error):
                raise
