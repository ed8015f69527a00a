"""The errors of the local Hub: each is one answer of the HTTP protocol.

    HubError                what a handler or the store raises; becomes a JSON answer
    ├── RepoNotFound        404  missing, or private and you are a stranger (without a token: 401)
    ├── RevisionNotFound    404  no such branch, tag or commit
    ├── EntryNotFound       404  no such file or folder at that revision
    ├── GatedRepo           403  (401 without a token) access was not granted
    ├── BadRequest          400  a malformed name, path or body
    ├── Unauthorized        401  no token, or an unknown one
    ├── Forbidden           403  a known user without the right to do this
    ├── Conflict            409  it exists already
    ├── StaleParent         412  the branch moved since `parent_commit`
    ├── TooLarge            413  a body beyond what is taken
    ├── RangeNotSatisfiable 416  no such bytes in the content
    ├── Unprocessable       422  a path that no repo may hold
    └── Moved               307  the repo has another name now

`error_code` is the X-Error-Code header, which is what the client tells its exceptions by.
"""

import re
from typing import ClassVar


class HubError(Exception):
    """Base: an answer with a status and a message; `headers` are added to the answer."""

    status: int = 500
    error_code: ClassVar[str] = ""

    def __init__(self, message: str, *, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.headers = headers or {}


class RepoNotFound(HubError):
    """Raised for a repo that is missing, or private to others."""

    status = 404
    error_code = "RepoNotFound"


class RevisionNotFound(HubError):
    """Raised for an unknown branch, tag or commit."""

    status = 404
    error_code = "RevisionNotFound"


class EntryNotFound(HubError):
    """Raised for a path that the revision does not hold."""

    status = 404
    error_code = "EntryNotFound"


class GatedRepo(HubError):
    """Raised for the files of a gated repo; anonymous readers are told 401, as the Hub does."""

    error_code = "GatedRepo"

    def __init__(self, message: str, *, anonymous: bool) -> None:
        super().__init__(message)
        self.status = 401 if anonymous else 403


class BadRequest(HubError):
    """Raised for a malformed name, path or body."""

    status = 400


class Unauthorized(HubError):
    """Raised when a token is needed and missing, or when it is unknown."""

    status = 401


class Forbidden(HubError):
    """Raised when the user is known but may not do this."""

    status = 403


class Conflict(HubError):
    """Raised when what shall be created exists."""

    status = 409


class TooLarge(HubError):
    """Raised for a body, or a part of it, that is larger than this hub takes."""

    status = 413


class RangeNotSatisfiable(HubError):
    """Raised for a Range header that asks for bytes that are not there."""

    status = 416


class Unprocessable(HubError):
    """Raised for a path that no repo may hold, alone or beside what is there."""

    status = 422


class Moved(HubError):
    """Raised for a repo that was renamed; the address is relative, as on the Hub."""

    status = 307

    def __init__(self, location: str) -> None:
        super().__init__(
            f"Temporary Redirect. Redirecting to {location}", headers={"Location": location}
        )


class StaleParent(HubError):
    """Raised when a commit names a parent that is no longer the head of its branch."""

    status = 412


def header_text(text: str) -> str:
    """Return text as a header can hold it: one line of printable ASCII."""
    return re.sub(r"[^ -~]+", " ", text.encode("ascii", "backslashreplace").decode()).strip()
