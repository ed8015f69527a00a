r"""Faults on request: refusals, stalls and cut transfers, to test how clients take them.

Two examples:

    board.add(Fault(path=r"/resolve/", status=503, times=2))
    board.add(Fault(path=r"model\.safetensors", cut_after_bytes=100_000, times=1))
"""

import asyncio
import re
import threading
from dataclasses import dataclass, field, replace
from typing import ClassVar

from pydantic import ConfigDict
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ftq_hub.errors import BadRequest, header_text


@dataclass(frozen=True)
class Fault:
    """What shall go wrong, where, and how often. Several effects add up: first the stall."""

    __pydantic_config__: ClassVar = ConfigDict(extra="forbid")  # a misspelt field is an error

    path: str = ""  # regular expression, searched in the path with its query; "" is everywhere
    method: str = ""  # GET, HEAD, PUT ...; "" is any
    times: int | None = 1  # how many requests it hits; None: all until it is cleared
    status: int | None = None  # answer this, from 400 on, instead of the truth
    message: str = ""  # the Hub's words for it, in header and body; "" is a gateway's bare page
    error_code: str = ""  # the X-Error-Code header of that answer
    retry_after_s: int | None = None  # the Retry-After header of that answer
    headers: dict[str, str] = field(default_factory=dict)  # further ones, such as RateLimit
    stall_s: float = 0.0  # wait before anything is answered
    cut_after_bytes: int | None = None  # close the connection after so many bytes of the body
    hits: int = field(default=0, compare=False)  # how often it has struck

    def check(self) -> "Fault":
        """Return the fault; raises BadRequest when it means nothing."""
        try:
            re.compile(self.path)
        except re.error as error:
            raise BadRequest(f"path {self.path!r} is no regular expression: {error}") from error
        if self.status is not None and not 400 <= self.status < 600:
            raise BadRequest(f"status is one from 400 to 599, not {self.status}")
        if self.status is None and not self.stall_s and self.cut_after_bytes is None:
            raise BadRequest("a fault needs status, stall_s or cut_after_bytes")
        return self

    def fits(self, method: str, target: str) -> bool:
        spent = self.times is not None and self.hits >= self.times
        right_method = self.method.upper() in ("", method)
        return not spent and right_method and re.search(self.path, target) is not None


class FaultBoard:
    """The faults of one server. Every request takes the first that fits."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []
        self._lock = threading.Lock()  # tests add faults from their own thread

    def add(self, fault: Fault) -> None:
        """Add a fault behind those that are there; raises BadRequest."""
        with self._lock:
            self._faults.append(fault.check())

    def clear(self) -> None:
        with self._lock:
            self._faults.clear()

    def list(self) -> list[Fault]:
        """Return all faults with their hits, also spent ones."""
        with self._lock:
            return [*self._faults]

    def strike(self, method: str, target: str) -> Fault | None:
        """Count and return the fault for a request, None when it may pass."""
        with self._lock:
            for index, fault in enumerate(self._faults):
                if fault.fits(method, target):
                    self._faults[index] = replace(fault, hits=fault.hits + 1)
                    return fault
        return None


class Cut(Exception):
    """Raised inside an answer that a fault cuts; the server then closes the connection."""


async def answer_with(
    fault: Fault, app: ASGIApp, scope: Scope, receive: Receive, send: Send
) -> None:
    """Answer a request as the fault wants it."""
    await asyncio.sleep(fault.stall_s)
    if fault.status is not None:
        await _refusal(fault)(scope, receive, send)
        return
    if fault.cut_after_bytes is None:
        await app(scope, receive, send)
        return
    try:
        await app(scope, receive, _cutting(send, fault.cut_after_bytes))
    except Cut:
        # Nothing more is sent: the server sees an answer without its end and hangs up.
        return


def _refusal(fault: Fault) -> Response:
    headers = dict(fault.headers)
    status = fault.status or 500
    if fault.retry_after_s is not None:
        headers["Retry-After"] = str(fault.retry_after_s)
    if fault.error_code:
        headers["X-Error-Code"] = fault.error_code
    if not fault.message:
        return HTMLResponse(f"<!doctype html><title>{status}</title>", status, headers)
    headers["X-Error-Message"] = header_text(fault.message)
    return JSONResponse({"error": fault.message}, status, headers)


def _cutting(send: Send, limit: int) -> Send:
    left = limit

    async def cut_send(message: Message) -> None:
        nonlocal left
        body = message.get("body", b"")
        if len(body) <= left:
            left -= len(body)
            await send(message)
            return
        await send({"type": "http.response.body", "body": body[:left], "more_body": True})
        raise Cut

    return cut_send
