"""The Hub's refusals as ftq's errors: translated here and nowhere else."""

import re

from ftq_shared.errors import FtqError, HubUnreachable, Refused, Where
from ftq_shared.hub.records import Kind
from ftq_shared.redaction import Redactor

_HOW = (
    "give one with `hf auth login`, HF_TOKEN or `--token-stdin` of `ftq submit` and `ftq retry`; "
    "tokens are made at {endpoint}/settings/tokens"
)


class Refusals:
    """Words for one Hub, and for a client with or without a token."""

    def __init__(self, endpoint: str, *, has_token: bool) -> None:
        self.endpoint = endpoint
        self.has_token = has_token

    def page(self, kind: Kind, repo: str) -> str:
        return f"{self.endpoint}/{'datasets/' if kind == 'dataset' else ''}{repo}"

    def give_token(self) -> str:
        return _HOW.format(endpoint=self.endpoint)

    def translate(
        self, error: Exception, kind: Kind, repo: str, revision: str | None = None
    ) -> FtqError | None:
        """Return the error to raise, None for one that is not the Hub's."""
        from huggingface_hub import errors as hub

        if isinstance(error, FtqError):
            return error
        if isinstance(error, hub.EntryNotFoundError):
            return None  # a missing file means something else to every caller
        if isinstance(error, FileNotFoundError) and isinstance(error.__cause__, Exception):
            return self.translate(error.__cause__, kind, repo, revision)  # HfFileSystem wraps
        if isinstance(error, hub.GatedRepoError):  # first: it is a RepositoryNotFoundError too
            return self.gated(kind, repo)
        if isinstance(error, hub.RevisionNotFoundError):
            return self.no_revision(kind, repo, revision)
        if isinstance(error, hub.RepositoryNotFoundError | hub.HFValidationError):
            return self.missing(kind, repo)
        if isinstance(error, hub.DisabledRepoError):
            return Refused(f"{kind} {repo} was disabled on the Hub", code="disabled")
        if isinstance(error, hub.HfHubHTTPError):
            return self._status(error.response.status_code, kind, repo)
        if isinstance(error, ConnectionError | TimeoutError):
            return self._transfer(error, kind, repo)
        return None

    def _transfer(self, error: OSError, kind: Kind, repo: str) -> FtqError:
        """Translate what hf_xet raises once its own tries, over a minute or more, are used up."""
        text = str(error)
        if status := re.search(r"\((40[134]) [A-Z]", text):  # (403 Forbidden)
            return self._status(int(status[1]), kind, repo)
        return HubUnreachable(
            f"the Hub at {self.endpoint} broke a transfer of {kind} {repo} off several times "
            f"({Redactor().text(text)[:200]})",
            hint="check the network; `ftq retry JOB` goes on when the Hub is back",
        )

    def _status(self, status: int, kind: Kind, repo: str) -> FtqError:
        if status == 401 and self.has_token:
            return self.bad_token()
        if status in (401, 403):
            return self.no_access(kind, repo)
        if status == 404:
            return self.missing(kind, repo)
        return HubUnreachable(
            f"the Hub at {self.endpoint} answered {status} for {kind} {repo}", code="hub_error"
        )

    def gated(self, kind: Kind, repo: str) -> Refused:
        """The repo is there; its files are for those who were let in."""
        token = "" if self.has_token else f", then {self.give_token()}"
        return Refused(
            f"{kind} {repo} is gated and "
            + ("this token was not let in" if self.has_token else "no token was given"),
            code="gated",
            hint=f"ask for access at {self.page(kind, repo)}{token}",
        )

    def missing(self, kind: Kind, repo: str, nearest: list[str] | None = None) -> Refused:
        """No such repo, or a private one: the Hub does not tell these apart."""
        near = f"did you mean {', '.join(nearest)}? " if nearest else ""
        private = (
            "If it is private, this token may not read it"
            if self.has_token
            else f"If it is private, a token is needed: {self.give_token()}"
        )
        where: Where = {"nearest": nearest} if nearest else {}
        return Refused(
            f"there is no {kind} {repo} at {self.endpoint}",
            code=f"no_such_{kind}",
            hint=f"{near}{private}",
            **where,
        )

    def no_revision(
        self, kind: Kind, repo: str, revision: str | None, known: list[str] | None = None
    ) -> Refused:
        """The repo is there, the branch, tag or commit is not."""
        there = f"it has {', '.join(known)}" if known else f"see {self.page(kind, repo)}/tree/main"
        where: Where = {"nearest": known} if known else {}
        return Refused(
            f"{kind} {repo} has no revision {revision!r}",
            code="no_such_revision",
            hint=f"{there}; leave @{revision} out for the newest",
            **where,
        )

    def bad_token(self) -> Refused:
        """The token itself is not known to the Hub."""
        return Refused(
            f"the Hub at {self.endpoint} does not know the token that was given",
            code="bad_token",
            hint=f"it may be expired, or of another Hub; {self.give_token()}",
        )

    def no_access(self, kind: Kind, repo: str) -> Refused:
        """The Hub knows who asks, and says no."""
        why = "this token may not" if self.has_token else "without a token nobody may"
        return Refused(
            f"{why} read {kind} {repo}",
            code="access",
            hint=f"ask its owner at {self.page(kind, repo)}, or {self.give_token()}",
        )

    def no_token(self, repo: str) -> Refused:
        return Refused(
            f"no token was given, and publishing to {repo} needs one that may write",
            code="no_token",
            hint=self.give_token(),
        )

    def no_write(self, repo: str, why: str) -> Refused:
        return Refused(
            f"no write access to {repo}: {why}",
            code="no_write_access",
            hint=f"choose a repo of your own, or {self.give_token()} with the role write",
        )
