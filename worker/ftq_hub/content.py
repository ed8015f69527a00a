"""The content of large files, on a port of its own: signed URLs that end, and no tokens.

The Hub sends readers of a large file on to another host. So does this one, to its second port: a
client that takes its token along, or uses a URL for too long, is refused here as there.
"""

import hmac
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

from starlette.responses import FileResponse, StreamingResponse
from starlette.types import ASGIApp

from ftq_hub.errors import BadRequest, EntryNotFound, Forbidden
from ftq_hub.files import CHUNK_BYTES
from ftq_hub.routing import Call, Routes
from ftq_hub.xet_format import VirtualXorb

routes = Routes()


class FilePart(FileResponse):
    """Sends a file, or the range of it that was asked for, in chunks."""

    chunk_size = CHUNK_BYTES


def signed_url(call: Call, what: str, sha256: str) -> str:
    """Return where some content of the repo can be read for a while; `what` names it."""
    until = int(time.time() + call.request.app.content_url_s)
    query = urlencode({"until": until, "sign": call.signature(what, sha256, until)})
    return call.content_href(f"{call.kind.plural}/{call.repo_id}/{what}/{sha256}?{query}")


def _blob(call: Call) -> Path:
    """Return what a URL opens; raises Forbidden when it is not, or no longer, good."""
    if "authorization" in call.request.headers:
        raise BadRequest("Only one auth mechanism allowed: the URL is signed, send no token along")
    what, sha256 = call.params["what"], call.params["sha256"]
    until = call.number("until", 0)
    sent = call.request.query_params.get("sign", "")
    genuine = hmac.compare_digest(call.signature(what, sha256, until).encode(), sent.encode())
    if not genuine or until < time.time():
        raise Forbidden("Request has expired")
    path = call.store.files(call.kind, call.repo_id).blobs.path(sha256)
    if not path.is_file():
        raise EntryNotFound(f"there is no content {sha256}")
    return path


@routes.on("GET", "/{kind:models|datasets}/{ns}/{name}/{what:file}/{sha256}")
async def file(call: Call) -> ASGIApp:
    """Serve a large file, whole or in part."""
    path = _blob(call)
    return FilePart(path, headers={"ETag": f'"{path.name}"'}, media_type="application/octet-stream")


@routes.on("GET", "/{kind:models|datasets}/{ns}/{name}/{what:xorb-[0-9]+}/{sha256}")
async def xorb(call: Call) -> ASGIApp:
    """Serve the range of a xorb that a xet client asks for."""
    made = VirtualXorb(_blob(call), int(call.params["what"].removeprefix("xorb-")))
    first, last = call.byte_range(made.size)
    headers = {
        "Content-Length": str(last - first + 1),
        "Content-Range": f"bytes {first}-{last}/{made.size}",
    }
    return StreamingResponse(_pieces(made, first, last), 206, headers)


def _pieces(made: VirtualXorb, first: int, last: int) -> Iterator[bytes]:
    for start in range(first, last + 1, CHUNK_BYTES):
        yield made.read(start, min(CHUNK_BYTES, last + 1 - start))
