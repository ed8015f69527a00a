"""Downloads: a small file is served here, for a large one the reader is sent on."""

from urllib.parse import quote

from starlette.responses import Response
from starlette.types import ASGIApp

from ftq_hub import content
from ftq_hub.content import FilePart
from ftq_hub.records import Commit, FileEntry
from ftq_hub.routing import Call, Routes

routes = Routes()


@routes.on("GET", "{files}/resolve/{rev}/{path:path}")
@routes.on("GET", "{files}/raw/{rev}/{path:path}")
@routes.on("GET", "{api}/resolve/{rev}/{path:path}")
async def resolve(call: Call) -> ASGIApp:
    """Serve a small file of a revision, whole or in part, and send a reader of a large one on.

    Raises EntryNotFound, RevisionNotFound, GatedRepo.
    """
    _, files = call.open_files()
    commit = files.commit(call.revision)
    entry = files.entry(commit, call.params["path"])
    headers = _file_headers(commit, entry, call.params["path"])
    if not entry.lfs:
        return FilePart(files.blobs.path(entry.sha256), headers=headers)
    api = f"api/{call.kind.plural}/{call.repo_id}"
    token = call.href(f"{api}/xet-read-token/{commit.sha}")
    headers |= {
        "Location": content.signed_url(call, "file", entry.sha256),
        "Link": f'<{token}>; rel="xet-auth"',
        "X-Xet-Hash": entry.xet_hash,
    }
    return Response(status_code=302, headers=headers)


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
