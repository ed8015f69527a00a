"""Downloads: HEAD and GET of one file, whole or in part."""

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import anyio
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from ftq_hub.files import CHUNK_BYTES
from ftq_hub.records import Commit, FileEntry
from ftq_hub.routing import Call, Routes

routes = Routes()
_RANGE = re.compile(r"bytes=(\d*)-(\d*)")


@dataclass(frozen=True)
class Span:
    """The bytes of an answer: `start` inclusive, `stop` exclusive."""

    start: int
    stop: int

    @property
    def length(self) -> int:
        return self.stop - self.start


def parse_range(header: str | None, size: int) -> Span | None:
    """Return the asked span cut to the file, None for the whole file.

    A header of another form is ignored, as HTTP wants it. Raises ValueError when the span
    lies behind the end.
    """
    match = _RANGE.fullmatch((header or "").strip())
    if match is None or match.groups() == ("", ""):
        return None
    first, last = match.groups()
    if not first:
        span = Span(max(0, size - int(last)), size)
    else:
        span = Span(int(first), min(size, int(last) + 1) if last else size)
    if span.length <= 0:
        raise ValueError(f"range {header} lies outside of {size} bytes")
    return span


class FileResponse:
    """Sends a part of a file in chunks, so that its size does not matter."""

    def __init__(self, path: Path, span: Span, status: int, headers: dict[str, str]) -> None:
        self._path, self._span, self._status = path, span, status
        self._headers = headers | {"Content-Length": str(span.length)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer; for a HEAD the headers alone."""
        raw = [(key.lower().encode(), value.encode()) for key, value in self._headers.items()]
        await send({"type": "http.response.start", "status": self._status, "headers": raw})
        if scope["method"] != "HEAD":
            await self._send_span(send)
        await send({"type": "http.response.body", "body": b""})

    async def _send_span(self, send: Send) -> None:
        left = self._span.length
        async with await anyio.open_file(self._path, "rb") as handle:
            await handle.seek(self._span.start)
            while left:
                chunk = await handle.read(min(CHUNK_BYTES, left))
                left -= len(chunk)
                await send({"type": "http.response.body", "body": chunk, "more_body": True})


@routes.on("GET", "{files}/resolve/{rev}/{path:path}")
@routes.on("GET", "{files}/raw/{rev}/{path:path}")
@routes.on("GET", "{api}/resolve/{rev}/{path:path}")
async def resolve(call: Call) -> ASGIApp:
    """Serve a file of a revision; raises EntryNotFound, RevisionNotFound, GatedRepo."""
    _, files = call.open_files()
    commit = files.commit(call.revision)
    entry = files.entry(commit, call.params["path"])
    headers = _file_headers(commit, entry, call.params["path"])
    try:
        span = parse_range(call.request.headers.get("range"), entry.size)
    except ValueError:
        return Response(status_code=416, headers={"Content-Range": f"bytes */{entry.size}"})
    path = files.blobs.path(entry.sha256)
    if span is None:
        return FileResponse(path, Span(0, entry.size), 200, headers)
    headers["Content-Range"] = f"bytes {span.start}-{span.stop - 1}/{entry.size}"
    return FileResponse(path, span, 206, headers)


def _file_headers(commit: Commit, entry: FileEntry, path: str) -> dict[str, str]:
    etag = entry.sha256 if entry.lfs else entry.oid
    name = quote(path.rsplit("/", 1)[-1])
    headers = {
        "Accept-Ranges": "bytes",
        "Content-Disposition": f"inline; filename*=UTF-8''{name}",
        # Never HTML: a repo's file must not run as a page of this server.
        "Content-Type": "application/octet-stream" if entry.lfs else "text/plain; charset=utf-8",
        "ETag": f'"{etag}"',
        "X-Content-Type-Options": "nosniff",
        "X-Repo-Commit": commit.sha,
    }
    if entry.lfs:
        headers |= {"X-Linked-Etag": f'"{entry.sha256}"', "X-Linked-Size": str(entry.size)}
    return headers
