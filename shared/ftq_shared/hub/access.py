"""May this token write there, and is there something that must not be overwritten?"""

from typing import TYPE_CHECKING

from ftq_shared.errors import Refused
from ftq_shared.hub.records import Identity, RepoState

if TYPE_CHECKING:
    from ftq_shared.hub.client import HubClient

COMMIT_PREFIX = "ftq "  # how the titles of ftq's own commits begin
_NO_CONTENT = frozenset({".gitattributes", "README.md"})


def write_access(hub: "HubClient", repo: str) -> str:
    """Return the repo's full id; raises Refused when it cannot be written.

    A repo that does not exist yet is judged by its namespace, an existing one by the Hub.
    """
    if not hub.token:
        raise hub.refusals.no_token(repo)
    who = hub.whoami()
    full = repo if "/" in repo else f"{who.name}/{repo}"
    if why := _forbidden(who, full):
        raise hub.refusals.no_write(full, why)
    try:
        hub.call(lambda: hub.api.auth_check(full, write=True), kind="model", repo=full)
    except Refused as error:
        if error.code == "no_such_model":
            return full  # absent: it will be made
        raise hub.refusals.no_write(full, f"{who.name} may not change it") from error
    return full


def _forbidden(who: Identity, full: str) -> str:
    """Say why a token cannot write, empty when it can as far as the token tells."""
    namespace = full.split("/")[0]
    if who.role == "read":
        return f"the token of {who.name} has the role read"
    if namespace != who.name and namespace not in who.orgs:
        mine = ", ".join([who.name, *who.orgs])
        return f"{who.name} is no member of {namespace} (may write to: {mine})"
    if who.orgs.get(namespace) == "read":
        return f"{who.name} has the role read in {namespace}"
    if who.role == "fineGrained" and not who.writable & {namespace, full}:
        return f"the fine-grained token of {who.name} has no write permission there"
    return ""


def repo_state(hub: "HubClient", repo: str) -> RepoState:
    """Return what stands in a model repo; raises Refused when it cannot be looked at."""
    try:
        files = hub.call(lambda: hub.api.list_repo_files(repo), kind="model", repo=repo)
    except Refused as error:
        if error.code == "no_such_model":
            return RepoState.ABSENT
        raise
    if set(files) <= _NO_CONTENT:
        return RepoState.EMPTY
    commits = hub.call(lambda: hub.api.list_repo_commits(repo), kind="model", repo=repo)
    titles = [commit.title for commit in commits if not _card_edit(commit.title)]
    return RepoState.OURS if titles and titles[0].startswith(COMMIT_PREFIX) else RepoState.OTHER


def _card_edit(title: str) -> bool:
    """Return whether a commit only touched the card, as the Hub's web page titles it."""
    return title in ("Update README.md", "Create README.md")
