"""Xet: how a client with hf_xet sends and fetches large files, whatever else is offered.

To send, it asks for a token, posts xorbs, then a shard that says which files they make. The
files are put together at once and stored as plain blobs. Each token opens a session with an
address of its own, so that a client, which remembers by address what it has sent, never leaves
out what this hub no longer has. To fetch, it asks which ranges of which xorbs make a file; they
are made of the blob as they are read.
"""

import hmac
import secrets
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import anyio.to_thread
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp

from ftq_hub import content
from ftq_hub.errors import BadRequest, EntryNotFound, Forbidden
from ftq_hub.files import check_sha256, temp_beside
from ftq_hub.repo_files import RepoFiles
from ftq_hub.routing import Call, Routes
from ftq_hub.xet_format import CHUNK_SIZE, ShardFile, parse_shard, read_chunks, xorb_ranges

routes = Routes()
SESSION_S = 6 * 3600  # how long a session may upload, and how long its xorbs are kept
MAX_XORB_BYTES = 128 << 20  # clients fill them to 64 MiB
_CAS = "/_xet/{kind:models|datasets}/{ns}/{name}/{session}"


@routes.on("GET", "{api}/xet-write-token/{rev}")
async def write_token(call: Call) -> ASGIApp:
    """Open a session for uploads: an address and a token for it."""
    _, files = call.open_write()
    _remove_old_sessions(files)
    return _session(call, "write")


@routes.on("GET", "{api}/xet-read-token/{rev}")
async def read_token(call: Call) -> ASGIApp:
    """Open a session for downloads."""
    call.open_files()
    return _session(call, "read")


def _session(call: Call, mode: str) -> JSONResponse:
    until = int(time.time()) + SESSION_S
    session = f"{until}-{mode}-{secrets.token_hex(8)}"
    cas = call.href(f"_xet/{call.kind.plural}/{call.repo_id}/{session}")
    token = call.signature("xet", session)
    headers = {
        "X-Xet-Cas-Url": cas,
        "X-Xet-Access-Token": token,
        "X-Xet-Token-Expiration": str(until),
    }
    return JSONResponse({"casUrl": cas, "exp": until, "accessToken": token}, headers=headers)


def _remove_old_sessions(files: RepoFiles) -> None:
    for folder in (files.folder / "xet").glob("*-*"):
        until = folder.name.partition("-")[0]
        if until.isdecimal() and int(until) < time.time():
            shutil.rmtree(folder, ignore_errors=True)


def _open_session(call: Call, mode: str) -> tuple[RepoFiles, Path]:
    """Return the repo and the session's folder; raises Forbidden without its token."""
    session = call.params["session"]
    sent = call.request.headers.get("authorization", "").removeprefix("Bearer ")
    until, _, rest = session.partition("-")
    if not rest.startswith(f"{mode}-"):
        raise Forbidden(f"this xet session is not there to {mode}")
    genuine = hmac.compare_digest(sent.encode(), call.signature("xet", session).encode())
    if not genuine or int(until) < time.time():
        raise Forbidden("this xet session is not, or no longer, open")
    files = call.store.files(call.kind, call.repo_id)
    return files, files.folder / "xet" / session


@routes.on("POST", _CAS + "/v1/xorbs/default/{xorb}")
async def put_xorb(call: Call) -> ASGIApp:
    """Keep a xorb for the shards of its session. Its hash is not checked; each file's is."""
    _, folder = _open_session(call, "write")
    target = folder / check_sha256(call.params["xorb"])  # as long as a sha256, though none
    size = 0
    with temp_beside(target) as temp:
        with temp.open("wb") as handle:
            async for chunk in call.request.stream():
                handle.write(chunk)
                size += len(chunk)
                if size > MAX_XORB_BYTES:
                    raise BadRequest(f"a xorb is larger than {MAX_XORB_BYTES} bytes")
        temp.replace(target)
    return JSONResponse({"was_inserted": True})


@routes.on("POST", _CAS + "/v1/shards")
async def put_shard(call: Call) -> ASGIApp:
    """Put the shard's files together and store them; raises BadRequest when a part is missing."""
    files, folder = _open_session(call, "write")
    shard = parse_shard(await call.body())
    await anyio.to_thread.run_sync(_store_files, files, folder, shard)
    return JSONResponse({"result": 1})


def _store_files(files: RepoFiles, folder: Path, shard: list[ShardFile]) -> None:
    for file in shard:
        with files.blobs.writer() as writer:
            for piece in _content(folder, file):
                writer.write(piece)
            writer.commit(expected=file.sha256)


def _content(folder: Path, file: ShardFile) -> Iterator[bytes]:
    for segment in file.segments:
        xorb = folder / segment.xorb
        if not xorb.is_file():
            raise BadRequest(f"the xet shard needs xorb {segment.xorb}, which was not uploaded")
        yield from read_chunks(xorb, segment.first, segment.stop)


@routes.on("GET", _CAS + "/v1/reconstructions/{hash}")
async def reconstruction(call: Call) -> ASGIApp:
    """Say which chunks make a file, or the part of it that the Range header asks for."""
    files, _ = _open_session(call, "read")
    sha256 = check_sha256(call.params["hash"])  # a file's name in xet is its sha256 here
    blob = files.blobs.path(sha256)
    if not blob.is_file():
        raise EntryNotFound(f"there is no content {sha256}")
    first, last = call.byte_range(blob.stat().st_size)
    terms: list[dict[str, object]] = []
    fetch: dict[str, list[dict[str, object]]] = {}
    for xorb, start, stop in xorb_ranges(blob, first, last):
        chunks = {"start": start, "end": stop}
        from_byte, to_byte = xorb.span(start, stop)
        url = content.signed_url(call, f"xorb-{xorb.number}", sha256)
        length = xorb.length(start, stop)
        terms.append({"hash": xorb.name, "unpacked_length": length, "range": chunks})
        fetch[xorb.name] = [
            {"range": chunks, "url": url, "url_range": {"start": from_byte, "end": to_byte - 1}}
        ]
    offset = first % CHUNK_SIZE
    return JSONResponse({"offset_into_first_range": offset, "terms": terms, "fetch_info": fetch})


@routes.on("POST", "/v1/telemetry")
async def telemetry(call: Call) -> ASGIApp:
    """Take the usage ping of hf_xet and keep nothing."""
    return Response(status_code=204)
