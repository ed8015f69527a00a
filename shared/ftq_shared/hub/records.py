"""What a Hub says about repos and people, as plain records."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from huggingface_hub import DatasetInfo, ModelInfo

Kind = Literal["model", "dataset"]


@dataclass(frozen=True)
class RepoRecord:
    """A repo at one commit."""

    kind: Kind
    id: str  # as the Hub spells it now; a repo may have been renamed
    sha: str  # the commit
    private: bool
    gated: bool
    license: str | None
    tags: tuple[str, ...]
    files: Mapping[str, int]  # path -> bytes
    card: Mapping[str, Any]  # front matter of the README
    downloads: int | None = None
    parameters: int | None = None  # models: from the safetensors totals
    pipeline_tag: str | None = None  # models: what the Hub takes them for


@dataclass(frozen=True)
class SearchHit:
    """One result of a search."""

    id: str
    downloads: int | None = None
    likes: int | None = None
    gated: bool = False
    private: bool = False
    pipeline_tag: str | None = None


@dataclass(frozen=True)
class Identity:
    """Who a token belongs to and what it may do."""

    name: str
    orgs: Mapping[str, str] = field(default_factory=dict)  # name -> role there
    role: str = "write"  # read, write or fineGrained
    writable: frozenset[str] = frozenset()  # fineGrained: users, orgs and repos it may change

    def forbidden(self, repo: str) -> str:
        """Say why the token cannot write to namespace/name; empty when nothing here forbids it."""
        namespace = repo.split("/")[0]
        if self.role == "read":
            return f"the token of {self.name} has the role read"
        if namespace != self.name and namespace not in self.orgs:
            mine = ", ".join([self.name, *self.orgs])
            return f"{self.name} is no member of {namespace} (may write to: {mine})"
        if self.orgs.get(namespace) == "read":
            return f"{self.name} has the role read in {namespace}"
        if self.role == "fineGrained" and not self.writable & {namespace, repo}:
            return f"the fine-grained token of {self.name} has no write permission there"
        return ""


class RepoState(StrEnum):
    """What is in the repo that a job wants to write to."""

    ABSENT = "absent"  # it will be made
    EMPTY = "empty"  # nothing but .gitattributes and a README
    OURS = "ours"  # the newest content was pushed by ftq
    OTHER = "other"  # something that ftq did not put there


def record(kind: Kind, info: "ModelInfo | DatasetInfo") -> RepoRecord:
    """Return the record of what huggingface_hub answers."""
    data: Any = info.card_data  # a class without types
    card = data.to_dict() if data is not None else {}
    tags = tuple(info.tags or ())
    totals = getattr(info, "safetensors", None)
    return RepoRecord(
        kind=kind,
        id=info.id,
        sha=info.sha or "",
        private=bool(info.private),
        gated=bool(info.gated),
        license=_license(card, tags),
        tags=tags,
        files={file.rfilename: file.size or 0 for file in info.siblings or ()},
        card=card,
        downloads=info.downloads,
        parameters=sum(totals.parameters.values()) if totals and totals.parameters else None,
        pipeline_tag=getattr(info, "pipeline_tag", None),
    )


def search_hit(info: "ModelInfo | DatasetInfo") -> SearchHit:
    """Return one search result of huggingface_hub."""
    return SearchHit(
        id=info.id,
        downloads=info.downloads,
        likes=info.likes,
        gated=bool(info.gated),
        private=bool(info.private),
        pipeline_tag=getattr(info, "pipeline_tag", None),
    )


def identity(answer: Mapping[str, Any]) -> Identity:
    """Return who `whoami` names. A token of unknown kind is taken for a write token."""
    token = (answer.get("auth") or {}).get("accessToken") or {}
    scopes = (token.get("fineGrained") or {}).get("scoped") or ()
    writable = {
        str(scope["entity"]["name"])
        for scope in scopes
        if any(str(name).startswith("repo.write") for name in scope.get("permissions", ()))
    }
    return Identity(
        name=str(answer["name"]),
        orgs={org["name"]: str(org.get("roleInOrg", "write")) for org in answer.get("orgs") or ()},
        role=str(token.get("role", "write")),
        writable=frozenset(writable),
    )


def _license(card: Mapping[str, Any], tags: tuple[str, ...]) -> str | None:
    """Return the licence's id; `other` is replaced by its own name where the card has one."""
    value = card.get("license") or next(
        (tag.removeprefix("license:") for tag in tags if tag.startswith("license:")), None
    )
    if isinstance(value, list):
        value = ", ".join(map(str, value))
    if value == "other":
        value = card.get("license_name") or value
    return str(value) if value else None
