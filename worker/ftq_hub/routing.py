"""From a request to a handler: routes on the raw path, who is asking, what they may do."""

import hashlib
import hmac
import re
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import NoReturn, TypeVar
from urllib.parse import unquote

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp

from ftq_hub.errors import (
    BadRequest,
    Forbidden,
    GatedRepo,
    HubError,
    Moved,
    RangeNotSatisfiable,
    RepoNotFound,
    TooLarge,
    Unauthorized,
    header_text,
)
from ftq_hub.records import OrgRole, Repo, RepoType, Role, User, from_json
from ftq_hub.repo_files import MAIN, RepoFiles
from ftq_hub.store import HubStore

T = TypeVar("T")

MAX_JSON_BYTES = 64 << 20  # bodies that are read whole: preupload samples, LFS batches, cards

NOBODY = "Invalid username or password."  # what the Hub tells who sent no token


@dataclass
class Call:
    """One request: its parts, its user, and the store."""

    request: Request
    store: HubStore
    params: dict[str, str]  # the named parts of the path, unquoted
    user: User | None  # None: no token was sent

    @property
    def kind(self) -> RepoType:
        """The repo type of the path; a download path names only datasets."""
        word = self.params.get("kind") or "models"
        return RepoType(word.strip("/").removesuffix("s"))

    @property
    def repo_id(self) -> str:
        return f"{self.params['ns']}/{self.params['name']}"

    @property
    def revision(self) -> str:
        """The revision of the path, main without one."""
        return self.params.get("rev") or MAIN

    def flag(self, name: str) -> bool:
        return self.request.query_params.get(name, "").lower() in ("1", "true", "yes")

    def number(self, name: str, default: int) -> int:
        """Return a query parameter as a whole number; raises BadRequest."""
        text = self.request.query_params.get(name)
        if text is None:
            return default
        if not (text.isascii() and text.isdecimal() and len(text) <= 18):
            raise BadRequest(f"{name} must be a whole number, not {text[:200]!r}")
        return int(text)

    def byte_range(self, size: int) -> tuple[int, int]:
        """Return the first and last byte that the Range header asks for, all without one.

        Raises RangeNotSatisfiable.
        """
        header = self.request.headers.get("range", f"bytes=0-{size - 1}")
        match = re.fullmatch(r"bytes=(\d{1,18})-(\d{1,18})?", header)
        first = int(match[1]) if match else size
        if match is None or first >= size:
            raise RangeNotSatisfiable(f"{header[:200]!r} is not within {size} bytes")
        return first, min(int(match[2] or size), size - 1)

    def listed(self, name: str) -> list[str]:
        """All values of a query parameter, which clients repeat, or write with `[]`."""
        query = self.request.query_params
        return [*query.getlist(name), *query.getlist(f"{name}[]")]

    def href(self, path: str) -> str:
        """An absolute URL of this server, under the name the client used."""
        return f"{str(self.request.base_url).rstrip('/')}/{path.lstrip('/')}"

    def content_href(self, path: str) -> str:
        """An absolute URL of the content port, under the name the client used."""
        base = self.request.base_url.replace(port=self.request.app.content_port)
        return f"{str(base).rstrip('/')}/{path.lstrip('/')}"

    def signature(self, *parts: object) -> str:
        """Sign what a URL or token of this repo opens; it carries the signature."""
        text = "\n".join(map(str, (self.kind, self.repo_id, *parts)))
        key: bytes = self.request.app.upload_key
        return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()

    # Access. The order matters: existence, then privacy, then the gate, then writing.

    def open(self) -> tuple[Repo, RepoFiles]:
        """Return the repo of the path if the user may know it.

        Raises RepoNotFound (Unauthorized without a token), and Moved for an old name.
        """
        try:
            files = self.store.files(self.kind, self.repo_id)
            repo = files.repo()
        except RepoNotFound:
            self._refuse_unknown()
        if not may_see(repo, self.user):
            raise unknown_repo(self.user)
        self.params["ns"], self.params["name"] = repo.id.split("/")  # as it is spelled
        return repo, files

    def _refuse_unknown(self) -> NoReturn:
        """Raise what fits a name without a repo; who may see a renamed one is sent there."""
        new = self.store.moved_to(self.kind, self.repo_id)
        if new is None or not may_see(self.store.repo(self.kind, new), self.user):
            raise unknown_repo(self.user)
        path, query = self.request.scope["raw_path"].decode("ascii"), self.request.url.query
        here = f"{self.params['ns']}/{self.params['name']}"
        raise Moved(path.replace(here, new, 1) + (f"?{query}" if query else ""))

    def open_files(self) -> tuple[Repo, RepoFiles]:
        """Return the repo if the user may read its files; raises GatedRepo too."""
        repo, files = self.open()
        if repo.gated and not may_pass_gate(repo, self.user):
            self._refuse_gate(repo)
        return repo, files

    def open_write(self) -> tuple[Repo, RepoFiles]:
        """Return the repo if the user may change it; raises Unauthorized or Forbidden."""
        repo, files = self.open()
        user, role = self._writer(repo.namespace)
        if role is OrgRole.CONTRIBUTOR and repo.creator != user.name:
            raise Forbidden(f"{user.name} is a contributor, and {repo.id} is not theirs")
        return repo, files

    def check_create(self, namespace: str) -> str:
        """Return a namespace as it is spelled if the user may make repos there; raises as above."""
        user, _ = self._writer(namespace)
        return user.spelled(namespace)

    def _writer(self, namespace: str) -> tuple[User, OrgRole]:
        if self.user is None:
            raise Unauthorized(NOBODY)
        if self.user.role is not Role.WRITE:
            raise Forbidden("This token has role 'read'; a token with role 'write' is needed")
        role = self.user.role_in(namespace)
        if role in (None, OrgRole.READ):
            raise Forbidden(f"You don't have the rights to write under the namespace {namespace!r}")
        return self.user, role

    def _refuse_gate(self, repo: Repo) -> NoReturn:
        what = f"Access to {repo.type.value} {repo.id} is restricted"
        if self.user is None:
            raise GatedRepo(
                f"{what}. You must have access to it and be authenticated.", anonymous=True
            )
        page = self.href(f"{repo.type.url_prefix}{repo.id}")
        raise GatedRepo(
            f"{what} and you are not in the authorized list. Visit {page} to ask for access.",
            anonymous=False,
        )

    # Bodies

    async def body(self) -> bytes:
        """Return the whole body; raises TooLarge when it is too large to be read whole."""
        body = bytearray()
        async for chunk in self.request.stream():
            body += chunk
            if len(body) > MAX_JSON_BYTES:
                raise TooLarge(f"the body is larger than {MAX_JSON_BYTES} bytes")
        return bytes(body)

    async def json(self, kind: type[T]) -> T:
        """Return the JSON of the body as a value of `kind`; raises BadRequest when it is none.

        No body at all counts as an object without fields.
        """
        try:
            return from_json(kind, await self.body() or b"{}")
        except ValueError as error:
            raise BadRequest(f"the body does not fit: {error}") from error

    async def text(self, name: str) -> str:
        """Return one field of a body that has no other of interest; empty without it."""
        return str((await self.json(dict[str, object])).get(name) or "")


def unknown_repo(user: User | None) -> HubError:
    """Return the error for a missing or private repo: the Hub tells nobody which it is."""
    return Unauthorized(NOBODY) if user is None else RepoNotFound("Repository not found")


def may_see(repo: Repo, user: User | None) -> bool:
    """Whether the user may know that the repo exists."""
    return not repo.private or may_pass_gate(repo, user)


def may_pass_gate(repo: Repo, user: User | None) -> bool:
    """Whether the user may read the files of a gated repo."""
    if user is None:
        return False
    return user.role_in(repo.namespace) is not None or user.name in repo.granted


Handler = Callable[[Call], Awaitable[ASGIApp]]


@dataclass(frozen=True)
class Route:
    """A method, a pattern over the raw path, and what answers."""

    method: str
    pattern: re.Pattern[str]
    handler: Handler


class Routes:
    """Routes in order of registration; the first that fits wins."""

    def __init__(self) -> None:
        self._routes: list[Route] = []

    def on(self, method: str, pattern: str) -> Callable[[Handler], Handler]:
        """Register a handler; `{x}` is one part of the path, `{x:path}` the rest of it.

        Parts are unquoted after the match, because a revision may hold a quoted slash.
        """

        def register(handler: Handler) -> Handler:
            self._routes.append(Route(method, _compile(pattern), handler))
            return handler

        return register

    def extend(self, others: Iterable["Routes"]) -> None:
        for other in others:
            self._routes += other._routes

    def find(self, method: str, raw_path: str) -> tuple[Handler, dict[str, str]] | None:
        """Return the handler and the path's parts; a HEAD is served by a GET route too."""
        methods = (method, "GET") if method == "HEAD" else (method,)
        for route in self._routes:
            if route.method in methods and (match := route.pattern.fullmatch(raw_path)):
                parts = {key: unquote(text or "") for key, text in match.groupdict().items()}
                return route.handler, parts
        return None


_API = "/api/{kind:models|datasets}/{ns}/{name}"
_FILES = "/{kind:datasets/|}{ns}/{name}"


def _compile(pattern: str) -> re.Pattern[str]:
    pattern = pattern.replace("{api}", _API).replace("{files}", _FILES)

    def group(match: re.Match[str]) -> str:
        name, _, form = match[1].partition(":")
        return f"(?P<{name}>{'.+' if form == 'path' else form or '[^/]+'})"

    return re.compile(re.sub(r"\{([^}]+)\}", group, pattern))


def error_response(error: HubError) -> JSONResponse:
    """Return an error as the Hub words it: a JSON body and the X-Error headers."""
    headers = dict(error.headers)
    headers["X-Error-Message"] = header_text(error.message)  # a message may quote a path
    if error.error_code:
        headers["X-Error-Code"] = error.error_code
    return JSONResponse({"error": error.message}, error.status, headers)
