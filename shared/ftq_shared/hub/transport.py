"""One call to the Hub: bounded in time, tried again, its errors translated.

huggingface_hub sends most requests without a time-out and tries some of them again by itself,
silently and for as long as the server asks. Inside `bounded()` every request has a time-out and
the first failure comes out at once, with its reason, so that one place decides, and everybody
sees, what is tried again.
"""

import json
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, TypeVar

from ftq_shared.errors import FtqError, HubUnreachable, UsageError
from ftq_shared.hub import words

if TYPE_CHECKING:
    import httpx2

T = TypeVar("T")

TRANSIENT_STATUS = frozenset({408, 429, 500, 502, 503, 504})
# The Hub counts requests in windows of 300 s, and says how long the present one lasts.
LONGEST_ASKED_S = 310.0

_BUSY = "another conflicting operation is in progress"


@dataclass(frozen=True)
class Retry:
    """How long a Hub that does not answer is waited for."""

    total_s: float = 60.0  # how long one call may wait for answers, pauses included
    request_s: float = 10.0  # for the connection, and for each answer to begin
    first_wait_s: float = 1.0  # doubled after each try
    longest_wait_s: float = 16.0
    # How long one call may wait in all where the Hub says how long: beside total_s, because a Hub
    # that names the time is not away. Six full windows.
    asked_s: float = 1800.0
    sleep: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.monotonic


@dataclass
class _Call:
    """What the hooks know about the call in progress."""

    timeout_s: float
    endpoint: str


class Transient(Exception):
    """Raised out of huggingface_hub when a request should be tried again."""

    def __init__(self, reason: str, asked_s: float | None = None) -> None:
        super().__init__(reason)
        self.reason = reason  # stands behind "the Hub at ..."
        self.asked_s = asked_s  # how long the Hub asks to wait; None: it does not say


_CALL: ContextVar[_Call | None] = ContextVar("ftq_hub_call", default=None)
_installed = False


@contextmanager
def bounded(timeout_s: float, endpoint: str) -> Iterator[None]:
    """Give every request of huggingface_hub in this block a time-out and no retries of its own."""
    _install()
    token = _CALL.set(_Call(timeout_s, endpoint))
    try:
        yield
    finally:
        _CALL.reset(token)


def _install() -> None:
    """Add the hooks to huggingface_hub's session, once; outside of `bounded` they do nothing."""
    global _installed
    if _installed:
        return
    from huggingface_hub import set_client_factory
    from huggingface_hub.utils import _http

    # A factory that the program has set (a proxy, certificates) stays in use.
    inner = _http._GLOBAL_CLIENT_FACTORY

    def factory() -> "httpx2.Client":
        client = _made(inner)
        hooks = client.event_hooks
        hooks["request"].append(_on_request)
        hooks["response"].append(_on_response)
        client.event_hooks = hooks
        client.send = _naming(client.send)  # type: ignore[method-assign]  # no hook sees errors
        return client

    set_client_factory(factory)
    logging.getLogger(_http.__name__).addFilter(lambda record: _CALL.get() is None)
    _installed = True


def _made(inner: "Callable[[], httpx2.Client]") -> "httpx2.Client":
    """Return a new client. Raises UsageError for a proxy or a CA file that cannot be used."""
    try:
        return inner()
    except (ImportError, ValueError, OSError) as error:
        if (call := _CALL.get()) is None:
            raise
        hint = "check the proxy variables, SSL_CERT_FILE and SSL_CERT_DIR"
        if isinstance(error, ImportError):
            hint = "pip install 'httpx2[socks]', or name an http proxy"
        raise UsageError(
            f"no connection to {call.endpoint} can be made: {words.plain(str(error))}",
            code="bad_connection_setting",
            hint=f"{words.proxy_hint(call.endpoint)} {hint}".strip(),
        ) from error


def _on_request(request: "httpx2.Request") -> None:
    call = _CALL.get()
    if call is None:
        return
    given = request.extensions.get("timeout") or {}
    request.extensions["timeout"] = {
        name: given.get(name) or call.timeout_s for name in ("connect", "read", "write", "pool")
    }


def _on_response(response: "httpx2.Response") -> None:
    if _CALL.get() is None:
        return
    if response.status_code in TRANSIENT_STATUS:
        raise _from_status(response)
    # The library asks again at once, and for ever, while another repo of the person is made.
    if response.status_code == 409 and _BUSY in words.said_in(response):
        raise Transient("makes another repo just now")


def _naming(send: "Callable[..., httpx2.Response]") -> "Callable[..., httpx2.Response]":
    """Return `send` whose failures come out as they are, not after the library's own next try."""
    import httpx2

    def named(request: "httpx2.Request", **options: Any) -> "httpx2.Response":
        try:
            return send(request, **options)
        except httpx2.TransportError as error:
            call = _CALL.get()
            if call is None or isinstance(error, httpx2.UnsupportedProtocol):
                raise
            raise Transient(words.connection_trouble(error, call.endpoint)) from error

    return named


def _from_status(response: "httpx2.Response") -> Transient:
    status = response.status_code
    reasons = {429: "asks to slow down", 408: "timed out"}
    text = f": {said}" if (said := words.said_in(response)) else ""
    reason = f"{reasons.get(status, 'is in trouble')} ({status}{text})"
    return Transient(reason, _asked_s(status, response.headers))


def _asked_s(status: int, headers: Any) -> float | None:
    """Return how long the Hub asks to wait, in seconds; None when it does not say."""
    from huggingface_hub.utils._http import parse_ratelimit_headers

    limit = parse_ratelimit_headers(headers)
    if status == 429 and limit is not None and limit.remaining == 0:
        return float(limit.reset_in_seconds)
    asked = str(headers.get("retry-after", "")).strip()
    if asked.isdecimal():
        return float(asked)
    try:
        until = parsedate_to_datetime(asked)
    except ValueError:
        return None
    aware = until if until.tzinfo else until.replace(tzinfo=UTC)
    return max(0.0, (aware - datetime.now(UTC)).total_seconds())


class Transport:
    """Makes calls to one Hub; keeps no connection of its own."""

    def __init__(self, endpoint: str, on_retry: Callable[[str], None], retry: Retry) -> None:
        self.endpoint = endpoint
        self._on_retry = on_retry
        self._retry = retry

    def call(self, what: str, function: Callable[[], T]) -> T:
        """Return `function()`, tried again while the Hub is away; `what` names it for people.

        Raises HubUnreachable when the time is up, UsageError for an endpoint that is no URL.
        Whatever the Hub answered with comes out as huggingface_hub raises it.
        """
        retry, started = self._retry, self._retry.clock()
        wait, waited, asked = retry.first_wait_s, 0.0, 0.0
        while True:
            began = retry.clock()
            try:
                with bounded(retry.request_s, self.endpoint):
                    return function()
            except Exception as error:
                trouble = self._transient(error)
                if trouble is None:
                    raise
                # No request waits longer than this for its answer: what a long try took beyond it
                # was work, as in a transfer of many minutes, and not time without a Hub.
                waited += min(retry.clock() - began, retry.request_s)
                if trouble.asked_s is None:
                    pause, wait = wait, min(wait * 2, retry.longest_wait_s)
                    waited += pause
                else:
                    pause = trouble.asked_s + 1.0  # the Hub counts in whole seconds
                    asked += pause
                if waited > retry.total_s or _too_long(trouble, asked, retry):
                    raise self._unreachable(what, trouble, retry.clock() - started) from error
            self._on_retry(
                f"the Hub at {self.endpoint} {trouble.reason}; {what}: next try in {pause:.0f} s"
            )
            retry.sleep(pause)

    def _transient(self, error: Exception) -> Transient | None:
        """Return the trouble when a later try may help, None when the answer is final.

        Raises HubUnreachable or UsageError for what no try and no answer can mend.
        """
        import httpx2
        from huggingface_hub.errors import (
            HfHubHTTPError,
            LocalEntryNotFoundError,
            OfflineModeIsEnabled,
        )

        if isinstance(error, LocalEntryNotFoundError):  # a download that found neither Hub nor copy
            error = error.__cause__ if isinstance(error.__cause__, Exception) else error
        if isinstance(error, Transient):
            return error
        if isinstance(error, OfflineModeIsEnabled):
            raise HubUnreachable(
                "the Hub is switched off on this machine (HF_HUB_OFFLINE is set)",
                code="hub_offline",
                hint="unset HF_HUB_OFFLINE, or name local paths for model and dataset",
            ) from error
        if isinstance(error, httpx2.UnsupportedProtocol | httpx2.InvalidURL):
            raise UsageError(
                f"HF_ENDPOINT: {self.endpoint!r} is no URL", hint="write http(s)://host"
            ) from error
        if isinstance(error, HfHubHTTPError):
            fits = error.response.status_code in TRANSIENT_STATUS
            return _from_status(error.response) if fits else None
        if isinstance(error, httpx2.TransportError):  # while a body was read
            return Transient(words.connection_trouble(error, self.endpoint))
        if isinstance(error, OSError) and str(error).startswith("Consistency check failed"):
            return Transient("sent a file that is not whole")
        if isinstance(error, json.JSONDecodeError):  # a portal or proxy page, not a Hub
            raise HubUnreachable(
                f"{self.endpoint} answers, but not as a Hub does",
                code="not_a_hub",
                hint="check HF_ENDPOINT, and whether a log-in page or proxy stands in between",
            ) from error
        return None

    def _unreachable(self, what: str, trouble: Transient, seconds: float) -> FtqError:
        asked = f", and asks to wait {trouble.asked_s:.0f} s" if trouble.asked_s else ""
        proxy = words.proxy_hint(self.endpoint)
        look = f"{proxy} If so, check" if proxy else "check"
        return HubUnreachable(
            f"the Hub at {self.endpoint} {trouble.reason}{asked}; {what} was tried for "
            f"{seconds:.0f} s",
            hint=f"{look} the network and HF_ENDPOINT; "
            "`ftq retry JOB` goes on when the Hub is back",
        )


def _too_long(trouble: Transient, asked_s: float, retry: Retry) -> bool:
    """Whether the Hub asks for more than people wait for: one window, or the sum of several."""
    return trouble.asked_s is not None and (
        trouble.asked_s > LONGEST_ASKED_S or asked_s > retry.asked_s
    )
