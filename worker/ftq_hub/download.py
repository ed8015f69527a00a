"""Downloads: HEAD and GET of one file, whole or in part."""

from urllib.parse import quote

from starlette.responses import FileResponse
from starlette.types import ASGIApp

from ftq_hub.files import CHUNK_BYTES
from ftq_hub.records import Commit, FileEntry
from ftq_hub.routing import Call, Routes

routes = Routes()


class _File(FileResponse):
    """Sends a file, or the range of it that was asked for, in chunks."""

    chunk_size = CHUNK_BYTES


@routes.on("GET", "{files}/resolve/{rev}/{path:path}")
@routes.on("GET", "{files}/raw/{rev}/{path:path}")
@routes.on("GET", "{api}/resolve/{rev}/{path:path}")
async def resolve(call: Call) -> ASGIApp:
    """Serve a file of a revision; raises EntryNotFound, RevisionNotFound, GatedRepo."""
    _, files = call.open_files()
    commit = files.commit(call.revision)
    entry = files.entry(commit, call.params["path"])
    headers = _file_headers(commit, entry, call.params["path"])
    return _File(files.blobs.path(entry.sha256), headers=headers)


def _file_headers(commit: Commit, entry: FileEntry, path: str) -> dict[str, str]:
    etag = entry.sha256 if entry.lfs else entry.oid
    name = quote(path.rsplit("/", 1)[-1])
    headers = {
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
