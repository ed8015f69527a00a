"""HubApp: the ASGI application that puts the parts together."""

import base64
import binascii
import logging
import secrets
import time
from dataclasses import asdict, replace
from urllib.parse import unquote

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ftq_hub import api_read, api_write, content, download, faults, lfs, pages, xet
from ftq_hub.errors import EntryNotFound, HubError, Unauthorized
from ftq_hub.faults import Fault, FaultBoard
from ftq_hub.records import User
from ftq_hub.routing import Call, Routes, error_response, unknown_repo
from ftq_hub.store import HubStore

log = logging.getLogger(__name__)
_ROUTES = Routes()
_ROUTES.extend([api_read.routes, api_write.routes, lfs.routes, xet.routes])
_ROUTES.extend([download.routes, pages.routes])  # last: their patterns are the widest
WINDOW_S, REQUESTS = 300, 10_000  # what the headers say; nothing is counted, see Fault for a 429


class HubApp:
    """Serves a HubStore. `faults` makes it misbehave; `admin_token` guards `/_faults`."""

    def __init__(self, store: HubStore, *, admin_token: str | None = None) -> None:
        self.store = store
        self.faults = FaultBoard()
        self.admin_token = admin_token or secrets.token_urlsafe(24)
        self.content_port = 0  # where large files are served; set by ftq_hub.serve
        self.content_url_s = 3600.0  # how long a URL of a large file is good
        self.upload_key = secrets.token_bytes(32)  # signs URLs; they end with the process

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; lifespan events need no answer here."""
        if scope["type"] != "http":
            return
        scope["app"] = self
        send = _with_limits(scope, send)
        fault = None
        if scope["raw_path"] != b"/_faults":
            fault = self.faults.strike(scope["method"], _target(scope))
        if fault is None:
            await self._serve(scope, receive, send)
        else:
            await faults.answer_with(fault, self._serve, scope, receive, send)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        try:
            answer = await self._answer(request)
        except HubError as error:
            answer = error_response(error)
        except ClientDisconnect:
            return  # nobody is left to be told
        except Exception:
            log.exception("%s %s failed", request.method, request.url.path)
            answer = error_response(HubError("Internal error of the local hub, see its log"))
        await answer(scope, receive, send)

    async def _answer(self, request: Request) -> ASGIApp:
        path = request.scope["raw_path"].decode("ascii")
        if path == "/_faults":
            return await self._admin(request)
        is_content = request.scope["server"][1] == self.content_port
        # A URL of the content port is its own key, and an xet session has a token of its own.
        user = None if is_content or path.startswith(("/_xet/", "/v1/")) else self._user(request)
        routes = content.routes if is_content else _ROUTES
        found = routes.find(request.method, path)
        if found is None:
            raise _no_route(path, user)
        handler, params = found
        return await handler(Call(request, self.store, params, user))

    def _user(self, request: Request) -> User | None:
        """Return who sent the request, None without a token; raises Unauthorized."""
        token = _token(request)
        if token is None:
            return None
        user = self.store.find_user(token)
        if user is None:
            # These words are what keeps the client from reporting a missing repo.
            raise Unauthorized("Invalid credentials in Authorization header")
        if user.expires is not None and user.expires < time.time():
            raise Unauthorized(f'User Access Token "{user.name}" is expired')
        return user

    async def _admin(self, request: Request) -> Response:
        if not secrets.compare_digest(_token(request) or "", self.admin_token):
            raise Unauthorized("the admin token is needed here")
        if request.method == "POST":
            fault = await Call(request, self.store, {}, None).json(Fault)
            self.faults.add(replace(fault, hits=0))
        elif request.method == "DELETE":
            self.faults.clear()
        return JSONResponse([asdict(fault) for fault in self.faults.list()])


def _target(scope: Scope) -> str:
    query = scope["query_string"].decode("latin-1")
    return unquote(scope["raw_path"].decode("ascii")) + (f"?{query}" if query else "")


def _token(request: Request) -> str | None:
    """Return the token of a client (Bearer) or of a browser (the password of Basic)."""
    scheme, _, value = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return value.strip()
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(value).decode().partition(":")[2]
        except (binascii.Error, UnicodeDecodeError):
            return ""
    return None


def _with_limits(scope: Scope, send: Send) -> Send:
    """Put on each answer how many requests are left, as the Hub does, unless a fault said so."""
    path: bytes = scope["raw_path"]
    kind = "api" if path.startswith(b"/api/") else "resolvers" if b"/resolve/" in path else "pages"
    limits = {
        b"ratelimit": f'"{kind}";r={REQUESTS - 1};t={WINDOW_S}',
        b"ratelimit-policy": f'"fixed window";"{kind}";q={REQUESTS};w={WINDOW_S}',
        b"x-request-id": f"Root=1-{secrets.token_hex(4)}-{secrets.token_hex(12)}",
    }

    async def send_with(message: Message) -> None:
        if message["type"] == "http.response.start":
            there = [*message.get("headers", ())]
            known = {name.lower() for name, _ in there}
            there += [(name, text.encode()) for name, text in limits.items() if name not in known]
            message = {**message, "headers": there}
        await send(message)

    return send_with


def _no_route(path: str, user: User | None) -> HubError:
    """A repo id without a namespace, or a Space, is a repo that is not here."""
    if path.startswith(("/api/models/", "/api/datasets/", "/api/spaces/")) or "/resolve/" in path:
        return unknown_repo(user)
    return EntryNotFound(f"this hub has nothing at {unquote(path)}")
