"""Large files: the LFS batch call, the upload that it points to, and the check after it."""

import hmac
import time
from dataclasses import dataclass
from typing import NotRequired, TypedDict

from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp

from ftq_hub.errors import BadRequest, EntryNotFound, Forbidden
from ftq_hub.files import check_sha256
from ftq_hub.repo_files import RepoFiles
from ftq_hub.routing import Call, Routes

routes = Routes()
_TYPE = "application/vnd.git-lfs+json"
_UPLOAD_S = 24 * 3600  # how long an upload URL is good for


@dataclass(frozen=True)
class _Object:
    """A large file that the client has."""

    oid: str  # its sha256
    size: int  # bytes


@dataclass(frozen=True)
class _Batch:
    """The body of a batch call."""

    operation: str
    objects: tuple[_Object, ...] = ()


class _Target(TypedDict):
    """Where an object goes; without actions it is stored already."""

    oid: str
    size: int
    authenticated: NotRequired[bool]
    actions: NotRequired[dict[str, dict[str, str]]]  # upload and verify: the href of each


@routes.on("POST", "{files}.git/info/lfs/objects/batch")
async def batch(call: Call) -> ASGIApp:
    """Say where each object goes; one that is stored already has no action.

    The answer is always `basic`, a plain PUT; multipart is not served.
    """
    _, files = call.open_write()
    body = await call.json(_Batch)
    if body.operation != "upload":
        raise BadRequest("only uploads use LFS here; downloads use /resolve/")
    rows = [_target(call, files, check_sha256(row.oid), row.size) for row in body.objects]
    return JSONResponse({"transfer": "basic", "objects": rows}, media_type=_TYPE)


def _target(call: Call, files: RepoFiles, oid: str, size: int) -> _Target:
    if files.blobs.has(oid):
        return {"oid": oid, "size": size}
    until = int(time.time()) + _UPLOAD_S
    sign = call.signature(oid, size, until)
    path = f"_lfs/{call.kind.plural}/{call.repo_id}/{oid}"
    upload = call.href(f"{path}?size={size}&until={until}&sign={sign}")
    # The upload carries no token, as on the Hub, where it goes to another host: its URL is the key.
    actions = {
        "upload": {"href": upload},
        "verify": {"href": call.href(f"{path}/verify")},
    }
    return {"oid": oid, "size": size, "authenticated": True, "actions": actions}


@routes.on("PUT", "/_lfs/{kind:models|datasets}/{ns}/{name}/{oid}")
async def upload(call: Call) -> ASGIApp:
    """Store an object as it arrives; raises Forbidden for a bad URL, BadRequest for a bad hash."""
    query, oid = call.request.query_params, call.params["oid"]
    size, until = call.number("size", 0), call.number("until", 0)
    sign = call.signature(oid, size, until)
    if until < time.time() or not hmac.compare_digest(sign, query.get("sign", "")):
        raise Forbidden("this upload URL is not, or no longer, valid")
    files = call.store.files(call.kind, call.repo_id)
    with files.blobs.writer() as writer:
        async for chunk in call.request.stream():
            writer.write(chunk)
            if writer.size > size:
                raise BadRequest(f"more than the announced {size} bytes arrived")
        writer.commit(expected=oid)
    return Response(headers={"ETag": f'"{oid}"'})


@routes.on("POST", "/_lfs/{kind:models|datasets}/{ns}/{name}/{oid}/verify")
async def verify(call: Call) -> ASGIApp:
    """Confirm that an object is stored with the size the client counted."""
    _, files = call.open_write()
    path = files.blobs.path(call.params["oid"])
    size = (await call.json(_Object)).size
    if not path.is_file() or path.stat().st_size != size:
        raise EntryNotFound(f"object {call.params['oid']} of {size} bytes was not received")
    return Response()
