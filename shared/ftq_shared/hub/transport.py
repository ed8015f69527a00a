"""One call to the Hub: bounded in time, tried again, its errors translated.

huggingface_hub sends most requests without a time-out and tries some of them again by itself,
silently and for as long as the server asks. Inside `bounded()` every request has a time-out and
the first failure comes out at once, so that one place decides, and everybody sees, what is tried
again.
"""

import json
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from ftq_shared.errors import FtqError, HubUnreachable, UsageError
from ftq_shared.redaction import Redactor

if TYPE_CHECKING:
    import httpx2

T = TypeVar("T")

TRANSIENT_STATUS = frozenset({408, 429, 500, 502, 503, 504})


@dataclass(frozen=True)
class Retry:
    """How long a Hub that does not answer is waited for."""

    total_s: float = 60.0  # how long one call may wait for answers, pauses included
    request_s: float = 10.0  # for the connection, and for each answer to begin
    first_wait_s: float = 1.0  # doubled after each try
    longest_wait_s: float = 16.0  # unless the Hub asks for more with Retry-After
    sleep: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.monotonic


@dataclass
class _Call:
    """What the hooks know about the call in progress."""

    timeout_s: float
    # requests that have no answer yet: method, URL, range
    sent: set[tuple[str, str, str]] = field(default_factory=set)


class Transient(Exception):
    """Raised out of huggingface_hub when a request should be tried again."""

    def __init__(self, reason: str, retry_after_s: float | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.retry_after_s = retry_after_s


_CALL: ContextVar[_Call | None] = ContextVar("ftq_hub_call", default=None)
_installed = False


@contextmanager
def bounded(timeout_s: float) -> Iterator[None]:
    """Give every request of huggingface_hub in this block a time-out and no retries of its own."""
    _install()
    token = _CALL.set(_Call(timeout_s))
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
        client = inner()
        hooks = client.event_hooks
        hooks["request"].append(_on_request)
        hooks["response"].append(_on_response)
        client.event_hooks = hooks
        return client

    set_client_factory(factory)
    logging.getLogger(_http.__name__).addFilter(lambda record: _CALL.get() is None)
    _installed = True


def _on_request(request: "httpx2.Request") -> None:
    call = _CALL.get()
    if call is None:
        return
    if (key := _key(request)) in call.sent:
        raise Transient("does not answer")  # the library's own second try of a lost request
    call.sent.add(key)
    given = request.extensions.get("timeout") or {}
    request.extensions["timeout"] = {
        name: given.get(name) or call.timeout_s for name in ("connect", "read", "write", "pool")
    }


def _on_response(response: "httpx2.Response") -> None:
    call = _CALL.get()
    if call is None:
        return
    if response.status_code in TRANSIENT_STATUS:
        raise _from_status(response.status_code, response.headers)
    call.sent.discard(_key(response.request))


def _key(request: "httpx2.Request") -> tuple[str, str, str]:
    return request.method, str(request.url), request.headers.get("range", "")


def _from_status(status: int, headers: Any) -> Transient:
    from huggingface_hub.utils._http import parse_ratelimit_headers

    limit = parse_ratelimit_headers(headers)
    asked = str(headers.get("retry-after", "")).strip()
    wait: float | None = float(asked) if asked.isdigit() else None
    if status == 429 and limit is not None and limit.remaining == 0:
        wait = float(limit.reset_in_seconds)
    words = {429: "asks to slow down (429)", 408: "timed out (408)"}
    return Transient(words.get(status, f"is in trouble ({status})"), wait)


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
        wait, waited = retry.first_wait_s, 0.0
        while True:
            began = retry.clock()
            try:
                with bounded(retry.request_s):
                    return function()
            except Exception as error:
                trouble = self._transient(error)
                if trouble is None:
                    raise
                pause = max(wait, trouble.retry_after_s or 0.0)
                # No request waits longer than this for its answer: what a long try took beyond it
                # was work, as in a transfer of many minutes, and not time without a Hub.
                waited += min(retry.clock() - began, retry.request_s) + pause
                if waited > retry.total_s:
                    raise self._unreachable(what, trouble, retry.clock() - started) from error
            self._on_retry(
                f"the Hub at {self.endpoint} {trouble.reason}; {what}: next try in {pause:.0f} s"
            )
            retry.sleep(pause)
            wait = min(wait * 2, retry.longest_wait_s)

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
            status = error.response.status_code
            fits = status in TRANSIENT_STATUS
            return _from_status(status, error.response.headers) if fits else None
        if isinstance(error, httpx2.TransportError):
            return Transient(_reason(error))
        if isinstance(error, json.JSONDecodeError):  # a portal or proxy page, not a Hub
            raise HubUnreachable(
                f"{self.endpoint} answers, but not as a Hub does",
                code="not_a_hub",
                hint="check HF_ENDPOINT, and whether a log-in page or proxy stands in between",
            ) from error
        return None

    def _unreachable(self, what: str, trouble: Transient, seconds: float) -> FtqError:
        asked = (
            f", which asks to wait {trouble.retry_after_s:.0f} s" if trouble.retry_after_s else ""
        )
        return HubUnreachable(
            f"the Hub at {self.endpoint} {trouble.reason}{asked}; {what} was tried for "
            f"{seconds:.0f} s",
            hint="check the network and HF_ENDPOINT; `ftq retry JOB` goes on when the Hub is back",
        )


def _reason(error: Exception) -> str:
    import httpx2

    if isinstance(error, httpx2.TimeoutException):
        return "does not answer in time"
    if isinstance(error, httpx2.ConnectError):
        return f"cannot be reached ({Redactor().text(str(error)) or 'no connection'})"
    return "broke the connection off"
