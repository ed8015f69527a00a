"""The values that the local Hub stores: repos, commits, files, users."""

from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any


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


@dataclass(frozen=True)
class User:
    """Who a token belongs to."""

    name: str  # also the namespace of the user's own repos
    role: Role = Role.WRITE  # what this token may do
    orgs: tuple[str, ...] = ()  # other namespaces the user may read and write

    def owns(self, namespace: str) -> bool:
        """Whether the namespace is the user's or one of their organisations."""
        return namespace == self.name or namespace in self.orgs

    def to_json(self) -> dict[str, Any]:
        """Return the fields as users.json holds them."""
        return {"user": self.name, "orgs": list(self.orgs), "role": self.role.value}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "User":
        """Read what `to_json` wrote."""
        return cls(data["user"], Role(data.get("role", "read")), tuple(data.get("orgs", ())))


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

    @property
    def namespace(self) -> str:
        """The part before the slash."""
        return self.id.split("/")[0]

    def to_json(self) -> dict[str, Any]:
        """Return the fields as repo.json holds them."""
        return asdict(self) | {"type": self.type.value, "granted": list(self.granted)}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Repo":
        """Read what `to_json` wrote; unknown keys are ignored."""
        known = {key: data[key] for key in cls.__dataclass_fields__ if key in data}
        return cls(**known | {"type": RepoType(data["type"]), "granted": tuple(data["granted"])})


@dataclass(frozen=True)
class FileEntry:
    """One file of a commit."""

    sha256: str  # of the content, and the blob's name on disk
    size: int  # bytes
    oid: str  # git's object id; of the pointer text when `lfs`
    lfs: bool  # shown to clients as a large file


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

    def to_json(self) -> dict[str, Any]:
        """Return the fields as manifest.json holds them."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Commit":
        """Read what `to_json` wrote."""
        files = {path: FileEntry(**entry) for path, entry in data["files"].items()}
        return cls(**data | {"files": files})


@dataclass(frozen=True)
class Refs:
    """What refs.json holds; replacing it is what publishes a commit."""

    branches: dict[str, str] = field(default_factory=dict)  # name -> commit sha
    tags: dict[str, str] = field(default_factory=dict)  # name -> commit sha

    def to_json(self) -> dict[str, Any]:
        """Return the fields as refs.json holds them."""
        return asdict(self)


def now_iso() -> str:
    """Return the present moment in the Hub's form, in UTC with milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
