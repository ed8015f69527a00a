"""The endpoints that read: search, info, trees, refs, history, who am I."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import parse_qs, urlencode

import anyio.to_thread
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp

from ftq_hub.errors import EntryNotFound, Unauthorized
from ftq_hub.info import RepoInfo, path_rows, tree_paths
from ftq_hub.repo_files import MAIN
from ftq_hub.routing import NOBODY, Call, Routes, may_see

routes = Routes()
_PAGE, _LONGEST_PAGE = 30, 1000  # rows of one answer; the client follows the Link header


@routes.on("GET", "/api/{kind:models|datasets}")
async def search(call: Call) -> ASGIApp:
    """Find repos by words of their id, author, tags and gate; most downloaded first."""
    return await anyio.to_thread.run_sync(_search, call)  # it reads the cards of all repos


def _search(call: Call) -> Response:
    infos = [info for info in _visible(call) if _matches(info, call)]
    sort = call.request.query_params.get("sort")
    infos.sort(key=lambda info: info.repo.id)
    infos.sort(key=lambda info: _rank(info, sort), reverse=True)
    expand = call.listed("expand")
    full = call.flag("full") or call.flag("cardData")
    rows = (info.expanded(expand) if expand else info.listed(full=full) for info in infos)
    return _paged(call, list(rows))


def _rank(info: RepoInfo, sort: str | None) -> tuple[int, str]:
    if sort == "createdAt":
        return 0, info.repo.created_at
    return 0 if sort == "lastModified" else info.repo.downloads, info.commit.date


def _visible(call: Call) -> list[RepoInfo]:
    infos = []
    for repo in call.store.repos(call.kind):
        if may_see(repo, call.user):
            files = call.store.files(repo.type, repo.id)
            infos.append(RepoInfo(repo, files, files.commit(MAIN)))
    return infos


def _matches(info: RepoInfo, call: Call) -> bool:
    query = call.request.query_params
    words = query.get("search", "").lower().split()
    wanted = {tag for value in call.listed("filter") for tag in value.split(",")}
    gated = query.get("gated")
    return (
        all(word in info.repo.id.lower() for word in words)
        and query.get("author") in (None, info.repo.namespace)
        and query.get("pipeline_tag") in (None, info.card().get("pipeline_tag"))
        and wanted <= set(info.tags())
        and (gated is None or bool(info.repo.gated) is (gated.lower() == "true"))
    )


def _paged(call: Call, rows: Sequence[Mapping[str, object]]) -> Response:
    limit = min(_LONGEST_PAGE, max(1, call.number("limit", _PAGE)))
    start = call.number("cursor", 0)
    headers = {}
    if start + limit < len(rows):
        query = [item for item in call.request.query_params.multi_items() if item[0] != "cursor"]
        path = call.request.scope["raw_path"].decode("ascii")
        link = call.href(f"{path}?{urlencode([*query, ('cursor', start + limit)])}")
        headers["Link"] = f'<{link}>; rel="next"'
    return JSONResponse(rows[start : start + limit], headers=headers)


@routes.on("GET", "{api}")
@routes.on("GET", "{api}/revision/{rev}")
async def info(call: Call) -> ASGIApp:
    """Describe a repo at a revision. The files of a gated repo are listed, not served."""
    repo, files = call.open()
    described = RepoInfo(repo, files, files.commit(call.revision))
    expand = call.listed("expand")
    if expand:
        data = await anyio.to_thread.run_sync(described.expanded, expand)
    else:
        blobs = call.flag("blobs")
        data = await anyio.to_thread.run_sync(lambda: described.full(blobs=blobs))
    return JSONResponse(data, headers={"X-Repo-Commit": described.commit.sha})


@routes.on("GET", "{api}/tree/{rev}")
@routes.on("GET", "{api}/tree/{rev}/{path:path}")
async def tree(call: Call) -> ASGIApp:
    """List a folder; raises EntryNotFound for a path that is none."""
    _, files = call.open()
    commit = files.commit(call.revision)
    folder = call.params.get("path", "").strip("/")
    if folder in commit.files:
        paths: list[str] | None = [folder]
    else:
        paths = tree_paths(commit, folder, call.flag("recursive"))
    if paths is None:
        headers = {"X-Repo-Commit": commit.sha}
        raise EntryNotFound(f"{folder} does not exist on {call.revision!r}", headers=headers)
    return _paged(call, path_rows(files, commit, paths, expand=call.flag("expand")))


@dataclass(frozen=True)
class _AskedPaths:
    """The body of a question about some paths."""

    paths: list[str]
    expand: bool = False


@routes.on("POST", "{api}/paths-info/{rev}")
async def paths_info(call: Call) -> ASGIApp:
    """Describe some paths; unknown ones are left out. The body is a form, or JSON."""
    _, files = call.open()
    commit = files.commit(call.revision)
    asked = await _asked_paths(call)
    paths = [path.strip("/") for path in asked.paths]
    return JSONResponse(path_rows(files, commit, paths, expand=asked.expand))


async def _asked_paths(call: Call) -> _AskedPaths:
    if "json" in call.request.headers.get("content-type", ""):
        return await call.json(_AskedPaths)
    form = parse_qs((await call.body()).decode("utf-8", "replace"))
    return _AskedPaths(form.get("paths", []), form.get("expand", [""])[0].lower() == "true")


@routes.on("GET", "{api}/refs")
async def refs(call: Call) -> ASGIApp:
    """List branches and tags; there are no pull requests here."""
    _, files = call.open()
    stored = files.refs()

    def rows(kind: str, names: dict[str, str]) -> list[dict[str, str]]:
        found = sorted(names.items())
        return [
            {"name": name, "ref": f"refs/{kind}/{name}", "targetCommit": sha} for name, sha in found
        ]

    answer = {"branches": rows("heads", stored.branches), "tags": rows("tags", stored.tags)}
    asked: dict[str, list[str]] = {"pullRequests": []} if call.flag("include_prs") else {}
    return JSONResponse(answer | {"converts": []} | asked)


@routes.on("GET", "{api}/commits/{rev}")
async def commits(call: Call) -> ASGIApp:
    """List a revision's commits, newest first."""
    _, files = call.open()
    rows = [
        {
            "id": commit.sha,
            "title": commit.title,
            "message": commit.message,
            "authors": [{"user": commit.author, "avatar": ""}],
            "date": commit.date,
        }
        for commit in files.history(call.revision)
    ]
    return _paged(call, rows)


@routes.on("GET", "{api}/auth-check")
async def auth_check(call: Call) -> ASGIApp:
    """Answer 200 when the user may read the repo's files."""
    call.open_files()
    return JSONResponse({})


@routes.on("GET", "{api}/auth-check/write")
async def auth_check_write(call: Call) -> ASGIApp:
    """Answer 200 when the user may also change the repo."""
    call.open_files()
    call.open_write()
    return JSONResponse({})


@routes.on("GET", "/api/whoami-v2")
async def whoami(call: Call) -> ASGIApp:
    """Describe the token's user; raises Unauthorized without a token."""
    if call.user is None:
        raise Unauthorized(NOBODY)
    user = call.user
    token = {"displayName": "local", "role": user.role.value, "createdAt": "2024-01-01T00:00:00Z"}
    orgs = [_account("org", org) | {"roleInOrg": role.value} for org, role in user.orgs.items()]
    flags = {"isPro": False, "canPay": False}
    auth = {"type": "access_token", "accessToken": token}
    return JSONResponse(_account("user", user.name) | flags | {"orgs": orgs, "auth": auth})


def _account(kind: str, name: str) -> dict[str, object]:
    return {"type": kind, "id": name, "name": name, "fullname": name}


@routes.on("GET", "{api}/discussions")
async def discussions(call: Call) -> ASGIApp:
    """List no pull requests: transformers looks for one that converts to safetensors."""
    call.open()
    return JSONResponse({"discussions": [], "count": 0, "start": 0, "numClosedDiscussions": 0})


@routes.on("GET", "/api/telemetry/{path:path}")
async def telemetry(call: Call) -> ASGIApp:
    """Take the libraries' usage pings and keep nothing."""
    return Response(status_code=204)
