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
    license: str | None  # in words, for people
    tags: tuple[str, ...]
    files: Mapping[str, int]  # path -> bytes
    card: Mapping[str, Any]  # front matter of the README
    downloads: int | None = None
    parameters: int | None = None  # models: from the safetensors totals
    pipeline_tag: str | None = None  # models: what the Hub takes them for
    # The licence as the card states it, and as another card may state it again.
    licenses: tuple[str, ...] = ()  # ids of the Hub's list
    license_name: str | None = None  # beside the id `other`
    license_link: str | None = None


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
        namespace = self.spelled(repo).split("/")[0]
        if self.role == "read":
            return f"the token of {self.name} has the role read"
        if namespace != self.name and namespace not in self.orgs:
            mine = ", ".join([self.name, *self.orgs])
            return f"{self.name} is no member of {namespace} (may write to: {mine})"
        if self.orgs.get(namespace) == "read":
            return f"{self.name} has the role read in {namespace}"
        allowed = {entity.lower() for entity in self.writable}
        if self.role == "fineGrained" and not allowed & {namespace.lower(), repo.lower()}:
            return f"the fine-grained token of {self.name} has no write permission there"
        return ""

    def spelled(self, repo: str) -> str:
        """Return name or namespace/name in full, an own namespace as the Hub spells it.

        The Hub takes names in any case, and keeps one spelling.
        """
        namespace, _, name = repo.rpartition("/")
        own = {name.lower(): name for name in (*self.orgs, self.name)}
        return f"{own.get(namespace.lower(), namespace) or self.name}/{name}"


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
    licenses = _licenses(card, tags)
    license_name, license_link = (_text(card.get(f"license_{part}")) for part in ("name", "link"))
    return RepoRecord(
        kind=kind,
        id=info.id,
        sha=info.sha or "",
        private=bool(info.private),
        gated=bool(info.gated),
        license=_license_words(licenses, license_name),
        tags=tags,
        files={file.rfilename: file.size or 0 for file in info.siblings or ()},
        card=card,
        downloads=info.downloads,
        parameters=sum(totals.parameters.values()) if totals and totals.parameters else None,
        pipeline_tag=getattr(info, "pipeline_tag", None),
        licenses=licenses,
        license_name=license_name,
        license_link=license_link,
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


def _licenses(card: Mapping[str, Any], tags: tuple[str, ...]) -> tuple[str, ...]:
    """Return the ids that a card or, without one, the tags state."""
    value = card.get("license") or [
        tag.removeprefix("license:") for tag in tags if tag.startswith("license:")
    ]
    return tuple(str(one) for one in (value if isinstance(value, list) else [value]) if one)


def _license_words(licenses: tuple[str, ...], name: str | None) -> str | None:
    """Return licences for people: `other` is called by its own name where it has one."""
    return ", ".join(name or one if one == "other" else one for one in licenses) or None


def _text(value: object) -> str | None:
    return str(value) if value else None
