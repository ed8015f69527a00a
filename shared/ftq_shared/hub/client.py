"""A Hub to look things up on and to write to.

hub = HubClient(settings.hf_endpoint, token, on_retry=print)
hub.model_info("org/name").sha
"""

from collections.abc import Iterable, Mapping
from typing import Any

from ftq_shared.errors import Refused
from ftq_shared.hub import words
from ftq_shared.hub.lookups import NOT_SERVED, HubLookups
from ftq_shared.hub.records import Kind, RepoState

_COMMIT_PREFIX = "ftq "  # how the titles of ftq's own commits begin
# How the Hub's web page titles a commit that only touched the card.
_CARD_EDITS = frozenset({"Update README.md", "Create README.md"})
_NO_CONTENT = frozenset({".gitattributes", "README.md"})


class HubClient(HubLookups):
    """Look-ups, and what a job needs of the repo that it writes to."""

    def write_access(self, repo: str) -> str:
        """Return the full id of `repo` (the user's own namespace added) when it may be written.

        A repo that does not exist yet is judged by its namespace, an existing one by the Hub.
        Raises Refused: `no_token`, `bad_token`, `no_write_access`.
        """
        if not self.token:
            raise self.refusals.no_token(repo)
        who = self.whoami()
        full = who.spelled(repo)
        if why := who.forbidden(full):
            raise self.refusals.no_write(full, why)

        def ask() -> str:
            self.api.auth_check(full, write=True)
            return str(self.api.model_info(full).id)  # as the Hub spells it, which ours may not

        try:
            return self.call(ask, kind="model", repo=full)
        except Refused as error:
            if error.code == "no_such_model":
                return full  # absent: it will be made
            if error.code not in ("access", "gated"):
                raise
            why = f"{who.name} may not change it ({error.message})"
            raise self.refusals.no_write(full, why) from error

    def create_repo(self, kind: Kind, repo: str, *, private: bool) -> None:
        """Make a repo; one that is there and may be written is fine.

        Raises Refused (`no_write_access`, `hub_refused`), HubUnreachable. For a while after it a
        404 for this repo counts as trouble: a Hub has copies that do not know it yet.
        """
        from huggingface_hub.errors import HfHubHTTPError

        def make() -> None:
            try:
                self.api.create_repo(repo, repo_type=kind, private=private)
            except HfHubHTTPError as error:
                status = error.response.status_code
                if status in (402, 403):  # in a namespace where nothing may be made
                    self._may_write(kind, repo, error)
                elif status != 409:
                    raise

        self.call(make, kind=kind, repo=repo, what=f"making {repo}")
        self._made.add((kind, repo.lower()))

    def _may_write(self, kind: Kind, repo: str, refused: Exception) -> None:
        """Raise `refused` unless the repo is there and may be written."""
        from huggingface_hub.errors import HfHubHTTPError

        try:
            self.api.auth_check(repo, repo_type=kind, write=True)
        except HfHubHTTPError:
            raise refused from None

    def card_faults(self, card: str) -> list[str] | None:
        """Return what the Hub refuses in a README.md for a model, None when it checks none.

        Raises as `call` does.
        """
        from huggingface_hub.errors import BadRequestError, HfHubHTTPError

        def ask() -> list[str] | None:
            try:
                self._post("/api/validate-yaml", {"content": card, "repoType": "model"})
            except BadRequestError as error:
                faults = error.response.json().get("errors", ())
                said = [str(fault.get("message")) for fault in faults]
                return said or [words.said(error) or "it gives no reason"]
            except HfHubHTTPError as error:
                if error.response.status_code in NOT_SERVED:
                    return None
                raise
            return []

        return self.call(ask, kind="model", repo="", what="checking the model card")

    def ignored(self, repo: str, names: Iterable[str]) -> list[str]:
        """Return those names that a push to a model repo would leave out; raises as `call` does."""
        # The beginning of each file belongs here too; to a .gitignore only the name matters.
        files = [{"path": name, "size": 1, "sample": ""} for name in names]

        def ask() -> list[str]:
            answer = self._post(f"/api/models/{repo}/preupload/main", {"files": files})
            return [str(file["path"]) for file in answer["files"] if file.get("shouldIgnore")]

        return self.call(ask, kind="model", repo=repo, what=f"looking at the .gitignore of {repo}")

    def _post(self, path: str, body: Mapping[str, object]) -> Any:
        """Ask what huggingface_hub has no call for; use it inside `call`."""
        from huggingface_hub.utils._headers import build_hf_headers
        from huggingface_hub.utils._http import get_session, hf_raise_for_status

        headers = build_hf_headers(token=self.token, library_name="ftq")
        answer = get_session().post(f"{self.endpoint}{path}", json=body, headers=headers)
        hf_raise_for_status(answer)
        return answer.json()

    def repo_state(self, repo: str) -> RepoState:
        """Return what is in a model repo; raises Refused when it cannot be looked at."""
        try:
            files = self.tree("model", repo)
        except Refused as error:
            if error.code == "no_such_model":
                return RepoState.ABSENT
            raise
        if set(files) <= _NO_CONTENT:
            return RepoState.EMPTY
        commits = self.call(lambda: self.api.list_repo_commits(repo), kind="model", repo=repo)
        titles = [commit.title for commit in commits if commit.title not in _CARD_EDITS]
        return (
            RepoState.OURS if titles and titles[0].startswith(_COMMIT_PREFIX) else RepoState.OTHER
        )

    def delete_repo(self, kind: Kind, repo: str) -> None:
        """Delete a repo; one that is gone already is fine. Raises Refused, HubUnreachable."""
        self.call(
            lambda: self.api.delete_repo(repo, repo_type=kind, missing_ok=True),
            kind=kind,
            repo=repo,
            what=f"deleting {repo}",
        )
