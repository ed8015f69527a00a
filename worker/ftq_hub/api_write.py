"""The endpoints that change something: repos, commits, branches, tags, settings, access."""

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

import anyio.to_thread
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import ASGIApp

from ftq_hub import card, commit_body
from ftq_hub.errors import BadRequest, Conflict, TooLarge, Unauthorized
from ftq_hub.files import check_path, temp_beside
from ftq_hub.gitrules import ATTRIBUTES, IGNORE, is_ignored, is_lfs
from ftq_hub.records import Commit, RepoType
from ftq_hub.repo_files import RepoFiles
from ftq_hub.routing import NOBODY, Call, Routes

routes = Routes()
MAX_COMMIT_BYTES = 1 << 30  # large files do not come in the commit; small ones are up to 10 MiB


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
            raise Unauthorized(NOBODY)
        owner, _, name = self.name.rpartition("/")
        return f"{call.user.spelled(owner or self.organization or call.user.name)}/{name}"


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
    gitIgnore: str | None = None  # noqa: N815  of this push; None: the repo's own counts


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
    call.check_create(repo_id.split("/")[0])
    private = body.visibility == "private" or bool(body.private)
    url = call.href(f"{kind.url_prefix}{repo_id}")
    try:
        call.store.create_repo(
            kind, repo_id, private=private, creator=call.user.name if call.user else ""
        )
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


@dataclass(frozen=True)
class _Move:
    """The body of a call that renames a repo."""

    fromRepo: str  # noqa: N815  the Hub's names
    toRepo: str  # noqa: N815
    type: RepoType = RepoType.MODEL


@routes.on("POST", "/api/repos/move")
async def move_repo(call: Call) -> ASGIApp:
    """Rename a repo, also into another namespace where the user may make one."""
    body = await call.json(_Move)
    namespace, _, name = body.fromRepo.partition("/")
    call.params = {"kind": body.type.plural, "ns": namespace, "name": name}
    repo, _ = call.open_write()
    call.check_create(body.toRepo.split("/")[0])
    call.store.move_repo(body.type, repo.id, body.toRepo)
    return JSONResponse({})


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
    text = await call.text("content")
    result = await anyio.to_thread.run_sync(card.check_card, text)
    if "text/plain" in call.request.headers.get("accept", ""):
        lines = [f"- Error: {error}" for error in result.errors]
        lines += [f"- Warning: {warning}" for warning in result.warnings]
        return PlainTextResponse("\n".join(lines), 400 if result.errors else 200)
    return JSONResponse(result.to_json(), 400 if result.errors else 200)


@routes.on("POST", "{api}/preupload/{rev}")
async def preupload(call: Call) -> ASGIApp:
    """Say how each file is to come: inside the commit, or as a large file before it."""
    _, files = call.open_write()
    commit = files.commit(call.revision)
    asked = await call.json(_Preupload)
    ignore = files.text(commit, IGNORE) if asked.gitIgnore is None else asked.gitIgnore
    attributes = files.text(commit, ATTRIBUTES)
    modes = [_upload_mode(commit, file, attributes, ignore) for file in asked.files]
    return JSONResponse({"files": modes})


def _upload_mode(commit: Commit, file: _File, attributes: str, ignore: str) -> _UploadMode:
    check_path(file.path)
    known = commit.files.get(file.path)
    lfs = is_lfs(attributes, file.path, file.size)
    # The client compares this id with its file's, to leave out what did not change.
    oid = (known.sha256 if lfs else known.oid) if known and known.lfs == lfs else None
    mode = "lfs" if lfs else "regular"
    ignored = is_ignored(ignore, file.path)
    return {"path": file.path, "uploadMode": mode, "shouldIgnore": ignored, "oid": oid}


@routes.on("POST", "{api}/commit/{rev}")
async def commit(call: Call) -> ASGIApp:
    """Make a commit; raises StaleParent, EntryNotFound, RevisionNotFound, BadRequest."""
    repo, files = call.open_write()
    if call.flag("create_pr"):
        raise BadRequest("this hub has no pull requests")
    author = call.user.name if call.user else ""
    with temp_beside(files.folder / "x") as spool:
        await _spool(call, spool)
        work = functools.partial(_commit, files, call.revision, spool, author)
        made = await anyio.to_thread.run_sync(work)
    url = call.href(f"{repo.type.url_prefix}{repo.id}/commit/{made.sha}")
    return JSONResponse({"success": True, "commitOid": made.sha, "commitUrl": url})


async def _spool(call: Call, spool: Path) -> None:
    size = 0
    async with await anyio.open_file(spool, "wb") as handle:
        async for chunk in call.request.stream():
            size += len(chunk)
            if size > MAX_COMMIT_BYTES:
                raise TooLarge(f"the commit is larger than {MAX_COMMIT_BYTES >> 20} MiB")
            await handle.write(chunk)


def _commit(files: RepoFiles, branch: str, spool: Path, author: str) -> Commit:
    body = commit_body.parse(spool, files.blobs)
    if body.readme and (errors := card.check_card(body.readme).errors):
        raise BadRequest("; ".join(errors))
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
