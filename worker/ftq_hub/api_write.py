"""The endpoints that change something: repos, commits, branches, tags, settings, access."""

import functools
from pathlib import Path
from typing import Any

import anyio.to_thread
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp

from ftq_hub import card, commit_body
from ftq_hub.errors import BadRequest, Conflict, Unauthorized
from ftq_hub.files import is_lfs, temp_beside
from ftq_hub.records import Commit, RepoType
from ftq_hub.repo_files import RepoFiles
from ftq_hub.routing import Call, Routes

routes = Routes()


def _named_repo(data: dict[str, Any], call: Call) -> tuple[RepoType, str]:
    """Return the repo that a body names; without an organisation it is the user's own."""
    if call.user is None:
        raise Unauthorized("Invalid username or password.")
    try:
        kind = RepoType(data.get("type") or "model")
    except ValueError as error:
        raise BadRequest(f"this hub has no repos of type {data.get('type')!r}") from error
    name = str(data.get("name", ""))
    return kind, name if "/" in name else f"{data.get('organization') or call.user.name}/{name}"


@routes.on("POST", "/api/repos/create")
async def create_repo(call: Call) -> ASGIApp:
    """Create a repo; an existing one is answered 409 with its URL, which `exist_ok` reads."""
    data = await call.json()
    kind, repo_id = _named_repo(data, call)
    call.check_write(repo_id.split("/")[0])
    private = data.get("visibility") == "private" or bool(data.get("private"))
    url = call.href(f"{kind.url_prefix}{repo_id}")
    try:
        call.store.create_repo(kind, repo_id, private=private)
    except Conflict as error:
        return JSONResponse({"error": error.message, "url": url}, 409)
    return JSONResponse({"url": url, "name": repo_id, "id": repo_id})


@routes.on("DELETE", "/api/repos/delete")
async def delete_repo(call: Call) -> ASGIApp:
    """Delete a repo; raises RepoNotFound."""
    kind, repo_id = _named_repo(await call.json(), call)
    namespace, _, name = repo_id.partition("/")
    call.params = {"kind": kind.plural, "ns": namespace, "name": name}
    call.open_write()
    call.store.delete_repo(kind, repo_id)
    return Response(status_code=200)


@routes.on("PUT", "{api}/settings")
async def settings(call: Call) -> ASGIApp:
    """Change who may see a repo, and its gate."""
    call.open_write()
    data = await call.json()
    visibility = data.get("visibility")
    private = data.get("private") if visibility is None else visibility == "private"
    repo = call.store.update_repo(call.kind, call.repo_id, private=private, gated=data.get("gated"))
    return JSONResponse({"private": repo.private, "gated": repo.gated})


@routes.on("POST", "{api}/user-access-request/grant")
async def grant(call: Call) -> ASGIApp:
    """Let a user through the gate."""
    call.open_write()
    user = str((await call.json()).get("user", ""))
    call.store.grant_access(call.repo_id, user, call.kind)
    return JSONResponse({})


@routes.on("POST", "/api/validate-yaml")
async def validate_yaml(call: Call) -> ASGIApp:
    """Check a README's metadata before it is pushed."""
    result = card.check_card(str((await call.json()).get("content", "")))
    return JSONResponse(result.to_json(), 400 if result.errors else 200)


@routes.on("POST", "{api}/preupload/{rev}")
async def preupload(call: Call) -> ASGIApp:
    """Say how each file is to come: inside the commit, or as a large file before it."""
    _, files = call.open_write()
    commit = files.commit(call.revision)
    asked = (await call.json()).get("files", [])
    rows = [_mode(commit, str(row["path"]), int(row.get("size", 0))) for row in asked]
    return JSONResponse({"files": rows})


def _mode(commit: Commit, path: str, size: int) -> dict[str, Any]:
    known = commit.files.get(path)
    lfs = is_lfs(path, size) and size > 0  # the client sends empty files inside the commit
    # The client compares this id with its file's, to leave out what did not change.
    oid = (known.sha256 if lfs else known.oid) if known and known.lfs == lfs else None
    mode = "lfs" if lfs else "regular"
    return {"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": oid}


@routes.on("POST", "{api}/commit/{rev}")
async def commit(call: Call) -> ASGIApp:
    """Make a commit; raises StaleParent, EntryNotFound, RevisionNotFound, BadRequest."""
    repo, files = call.open_write()
    if call.flag("create_pr"):
        raise BadRequest("this hub has no pull requests")
    user = call.check_write(repo.namespace)
    with temp_beside(files.folder / "x") as spool:
        await _spool(call, spool)
        work = functools.partial(_commit, files, call.revision, spool, user.name)
        made = await anyio.to_thread.run_sync(work)
    url = call.href(f"{repo.type.url_prefix}{repo.id}/commit/{made.sha}")
    return JSONResponse({"success": True, "commitOid": made.sha, "commitUrl": url})


async def _spool(call: Call, spool: Path) -> None:
    async with await anyio.open_file(spool, "wb") as handle:
        async for chunk in call.request.stream():
            await handle.write(chunk)


def _commit(files: RepoFiles, branch: str, spool: Path, author: str) -> Commit:
    body = commit_body.parse(spool, files.blobs)
    return files.add_commit(
        branch.removeprefix("refs/heads/"),
        body.apply,
        title=str(body.header["summary"]),
        message=str(body.header.get("description", "")),
        author=author,
        parent=body.header.get("parentCommit"),
    )


@routes.on("POST", "{api}/branch/{ref}")
async def create_branch(call: Call) -> ASGIApp:
    """Make a branch at a revision, main without one."""
    call.open_write()
    start = str((await call.json()).get("startingPoint") or call.revision)
    call.store.set_ref(call.kind, call.repo_id, "branches", call.params["ref"], start)
    return Response(status_code=201)


@routes.on("POST", "{api}/tag/{rev}")
async def create_tag(call: Call) -> ASGIApp:
    """Tag a revision."""
    call.open_write()
    name = str((await call.json()).get("tag", ""))
    call.store.set_ref(call.kind, call.repo_id, "tags", name, call.revision)
    return Response(status_code=201)


@routes.on("DELETE", "{api}/branch/{ref}")
async def delete_branch(call: Call) -> ASGIApp:
    """Remove a branch; main stays."""
    call.open_write()
    call.store.delete_ref(call.kind, call.repo_id, "branches", call.params["ref"])
    return Response(status_code=204)


@routes.on("DELETE", "{api}/tag/{ref}")
async def delete_tag(call: Call) -> ASGIApp:
    """Remove a tag."""
    call.open_write()
    call.store.delete_ref(call.kind, call.repo_id, "tags", call.params["ref"])
    return Response(status_code=204)
