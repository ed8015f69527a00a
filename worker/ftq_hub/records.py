"""The values that the local Hub stores: repos, commits, files, users.

Their files hold their fields as JSON: written by `asdict`, read and checked by `from_json`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any, TypeVar

from pydantic import BeforeValidator, Field, TypeAdapter, ValidationError

T = TypeVar("T")
_ADAPTERS: dict[object, TypeAdapter[Any]] = {}  # by class; making one takes a millisecond


def from_json(kind: type[T], text: bytes) -> T:
    """Return JSON as a value of `kind`; unknown fields are left out.

    Raises ValueError, which names every field that is missing or of another type.
    """
    adapter: TypeAdapter[T] = _ADAPTERS.get(kind) or _ADAPTERS.setdefault(kind, TypeAdapter(kind))
    try:
        return adapter.validate_json(text)
    except ValidationError as error:
        wrong = [f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()]
        raise ValueError("; ".join(wrong)) from error


class RepoType(StrEnum):
    """The kinds of repo that are served; Spaces are not."""

    MODEL = "model"  # /<namespace>/<name>
    DATASET = "dataset"  # /datasets/<namespace>/<name>

    @property
    def plural(self) -> str:
        """The word used in URLs and folder names."""
        return f"{self.value}s"

    @property
    def url_prefix(self) -> str:
        """What stands before the repo id in a page or download URL; models have nothing."""
        return "" if self is RepoType.MODEL else "datasets/"


class Role(StrEnum):
    """What a token may do."""

    READ = "read"  # read what its user may read
    WRITE = "write"  # also change the repos of its user and their organisations


class OrgRole(StrEnum):
    """What a user may do in an organisation."""

    READ = "read"  # read its private repos
    CONTRIBUTOR = "contributor"  # also make repos, and change those
    WRITE = "write"  # also change all its repos
    ADMIN = "admin"  # here the same


def _roles(orgs: object) -> object:
    """Take a plain list of organisations as well: the user may write in each."""
    return dict.fromkeys(orgs, OrgRole.WRITE) if isinstance(orgs, list | tuple) else orgs


@dataclass(frozen=True)
class User:
    """Who a token belongs to: an entry of users.json."""

    name: Annotated[str, Field(alias="user")]  # also the namespace of the user's own repos
    role: Role = Role.READ  # what this token may do
    orgs: Annotated[Mapping[str, OrgRole], BeforeValidator(_roles)] = field(default_factory=dict)
    expires: float | None = None  # when the token ends to be good, in seconds since 1970

    def spelled(self, namespace: str) -> str:
        """Return a namespace of the user's as it is spelled; others as they are. Case is free."""
        own = {name.lower(): name for name in (*self.orgs, self.name)}
        return own.get(namespace.lower(), namespace)

    def role_in(self, namespace: str) -> OrgRole | None:
        """Return what the user may do there, None for a stranger."""
        namespace = self.spelled(namespace)
        return OrgRole.ADMIN if namespace == self.name else self.orgs.get(namespace)

    def to_json(self) -> dict[str, object]:
        return {
            "user": self.name,
            "orgs": dict(self.orgs),
            "role": self.role,
            "expires": self.expires,
        }


@dataclass(frozen=True)
class Repo:
    """What repo.json holds."""

    type: RepoType
    id: str  # namespace/name
    private: bool = False  # strangers are told that it does not exist
    gated: str | bool = False  # False, "auto" or "manual"; files only for those in `granted`
    created_at: str = ""  # ISO 8601, UTC
    granted: tuple[str, ...] = ()  # users with access to a gated or private repo
    downloads: int = 0  # shown by search, and what it sorts by
    creator: str = ""  # who made it: a contributor of an organisation may change it

    @property
    def namespace(self) -> str:
        return self.id.split("/")[0]


@dataclass(frozen=True)
class FileEntry:
    """One file of a commit."""

    sha256: str  # of the content, and the blob's name on disk
    size: int  # bytes
    oid: str  # git's object id; of the pointer text when `lfs`
    lfs: bool  # shown to clients as a large file

    @property
    def xet_hash(self) -> str:
        """The name by which xet clients ask for the content: to them only a name of 64 digits."""
        return self.sha256


@dataclass(frozen=True)
class Commit:
    """What commits/<sha>/manifest.json holds: the whole tree, so no history walk is needed."""

    sha: str  # 40 hex digits
    parent: str | None  # None for the first commit
    title: str
    message: str
    author: str
    date: str  # ISO 8601, UTC
    files: dict[str, FileEntry] = field(default_factory=dict)


@dataclass(frozen=True)
class Refs:
    """What refs.json holds; replacing it is what publishes a commit."""

    branches: dict[str, str] = field(default_factory=dict)  # name -> commit sha
    tags: dict[str, str] = field(default_factory=dict)  # name -> commit sha


def now_iso() -> str:
    """Return the present moment in the Hub's form, in UTC with milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
