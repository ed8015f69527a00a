"""Connections to Redis or Valkey: explicit time-outs, explicit retries, errors translated once."""

import contextlib
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ftq_shared.errors import BrokerUnreachable

if TYPE_CHECKING:  # importing redis costs 130 ms, so only commands that talk to the broker do
    from redis import Redis

CONNECT_TIMEOUT_S = 2.0
READ_TIMEOUT_S = 5.0
RETRIES = 2
PING_S = 2.5  # a broker that needs longer for a ping is of no use

_START_HINT = "start one with `ftq up`, or set FTQ_REDIS_URL to the fleet's Redis or Valkey"


def without_password(url: str) -> str:
    """Return a broker URL fit for people and logs."""
    return re.sub(r"://[^@/]*@", "://***@", url)


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
    from redis.exceptions import ConnectionError, TimeoutError
    from redis.retry import Retry

    tls = (
        {"ssl_cert_reqs": "required", "ssl_check_hostname": True}
        if url.startswith("rediss://")
        else {}
    )
    return Redis.from_url(
        url,
        decode_responses=not binary,
        socket_connect_timeout=CONNECT_TIMEOUT_S,
        socket_timeout=read_timeout_s,
        socket_keepalive=True,
        health_check_interval=10,
        retry=Retry(ExponentialBackoff(cap=0.5, base=0.05), retries),
        retry_on_error=[ConnectionError, TimeoutError],
        client_name="ftq",
        **tls,
    )


@contextlib.contextmanager
def translated(url: str | None = None) -> Iterator[None]:
    """Turn redis-py's connection errors, and a full broker, into BrokerUnreachable.

    Other errors of the server (redis ResponseError: read-only, a bug in a script) pass, and so do
    errors of files, which have nothing to do with the broker.
    """
    from redis.exceptions import (
        AuthenticationError,
        ConnectionError,
        OutOfMemoryError,
        TimeoutError,
    )

    try:
        yield
    except OutOfMemoryError as error:
        raise BrokerUnreachable(
            f"the broker takes nothing more: {error}",
            code="broker_full",
            hint="its administrator can raise maxmemory; running jobs go on and can end",
        ) from error
    except (AuthenticationError, ConnectionError, TimeoutError) as error:
        where = f" at {without_password(url)}" if url else ""
        raise BrokerUnreachable(
            f"the broker{where} does not answer: {error}", hint=_START_HINT
        ) from error


def ping(url: str | None) -> None:
    """Prove that the broker answers, within PING_S also when packets vanish.

    It uses a connection of its own: retries and time-outs of the working ones add up to far more.
    Raises BrokerUnreachable.
    """
    with translated(url), connect(url, retries=0, read_timeout_s=PING_S) as client:
        client.ping()
