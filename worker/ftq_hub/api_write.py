"""The endpoints that change something: repos, commits, branches, tags, settings, access."""

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

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


@dataclass(frozen=True)
class _NamedRepo:
    """The body of a call that creates or deletes a repo."""

    name: str
    type: RepoType = RepoType.MODEL
    organization: str | None = None  # None: the user's own namespace
    visibility: str | None = None
    private: bool | None = None

    def repo_id(self, call: Call) -> str:
        if call.user is None:
            raise Unauthorized("Invalid username or password.")
        owner = self.organization or call.user.name
        return self.name if "/" in self.name else f"{owner}/{self.name}"


@dataclass(frozen=True)
class _Settings:
    """The body of a change of settings; None leaves a setting as it is."""

    visibility: str | None = None
    private: bool | None = None
    gated: str | bool | None = None


@dataclass(frozen=True)
class _File:
    """A file that the client wants to upload."""

    path: str
    size: int = 0


@dataclass(frozen=True)
class _Preupload:
    """The body of the question how files are to be uploaded."""

    files: tuple[_File, ...] = ()


class _UploadMode(TypedDict):
    """How one file is to be uploaded."""

    path: str
    uploadMode: str
    shouldIgnore: bool
    oid: str | None  # of the same file, where the repo has it already


@routes.on("POST", "/api/repos/create")
async def create_repo(call: Call) -> ASGIApp:
    """Create a repo; an existing one is answered 409 with its URL, which `exist_ok` reads."""
    body = await call.json(_NamedRepo)
    kind, repo_id = body.type, body.repo_id(call)
    call.check_write(repo_id.split("/")[0])
    private = body.visibility == "private" or bool(body.private)
    url = call.href(f"{kind.url_prefix}{repo_id}")
    try:
        call.store.create_repo(kind, repo_id, private=private)
    except Conflict as error:
        return JSONResponse({"error": error.message, "url": url}, 409)
    return JSONResponse({"url": url, "name": repo_id, "id": repo_id})


@routes.on("DELETE", "/api/repos/delete")
async def delete_repo(call: Call) -> ASGIApp:
    """Delete a repo; raises RepoNotFound."""
    body = await call.json(_NamedRepo)
    kind, repo_id = body.type, body.repo_id(call)
    namespace, _, name = repo_id.partition("/")
    call.params = {"kind": kind.plural, "ns": namespace, "name": name}
    call.open_write()
    call.store.delete_repo(kind, repo_id)
    return Response(status_code=200)


@routes.on("PUT", "{api}/settings")
async def settings(call: Call) -> ASGIApp:
    """Change who may see a repo, and its gate."""
    call.open_write()
    body = await call.json(_Settings)
    private = body.private if body.visibility is None else body.visibility == "private"
    repo = call.store.update_repo(call.kind, call.repo_id, private=private, gated=body.gated)
    return JSONResponse({"private": repo.private, "gated": repo.gated})


@routes.on("POST", "{api}/user-access-request/grant")
async def grant(call: Call) -> ASGIApp:
    """Let a user through the gate."""
    call.open_write()
    call.store.grant_access(call.repo_id, await call.text("user"), call.kind)
    return JSONResponse({})


@routes.on("POST", "/api/validate-yaml")
async def validate_yaml(call: Call) -> ASGIApp:
    """Check a README's metadata before it is pushed."""
    result = card.check_card(await call.text("content"))
    return JSONResponse(result.to_json(), 400 if result.errors else 200)


@routes.on("POST", "{api}/preupload/{rev}")
async def preupload(call: Call) -> ASGIApp:
    """Say how each file is to come: inside the commit, or as a large file before it."""
    _, files = call.open_write()
    commit = files.commit(call.revision)
    asked = (await call.json(_Preupload)).files
    return JSONResponse({"files": [_upload_mode(commit, file) for file in asked]})


def _upload_mode(commit: Commit, file: _File) -> _UploadMode:
    known = commit.files.get(file.path)
    lfs = (
        is_lfs(file.path, file.size) and file.size > 0
    )  # the client sends empty files inside the commit
    # The client compares this id with its file's, to leave out what did not change.
    oid = (known.sha256 if lfs else known.oid) if known and known.lfs == lfs else None
    mode = "lfs" if lfs else "regular"
    return {"path": file.path, "uploadMode": mode, "shouldIgnore": False, "oid": oid}


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
        title=body.header.summary,
        message=body.header.description,
        author=author,
        parent=body.header.parent,
    )


@routes.on("POST", "{api}/branch/{ref}")
async def create_branch(call: Call) -> ASGIApp:
    """Make a branch at a revision, main without one."""
    call.open_write()
    start = await call.text("startingPoint") or call.revision
    call.store.set_ref(call.kind, call.repo_id, "branches", call.params["ref"], start)
    return Response(status_code=201)


@routes.on("POST", "{api}/tag/{rev}")
async def create_tag(call: Call) -> ASGIApp:
    """Tag a revision."""
    call.open_write()
    name = await call.text("tag")
    call.store.set_ref(call.kind, call.repo_id, "tags", name, call.revision)
    return Response(status_code=201)


@routes.on("DELETE", "{api}/{what:branch|tag}/{ref}")
async def delete_ref(call: Call) -> ASGIApp:
    """Remove a branch or tag; raises BadRequest for main."""
    call.open_write()
    refs = "branches" if call.params["what"] == "branch" else "tags"
    call.store.delete_ref(call.kind, call.repo_id, refs, call.params["ref"])
    return Response(status_code=204)
