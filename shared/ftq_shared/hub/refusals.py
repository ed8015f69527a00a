"""The Hub's refusals as ftq's errors: translated here and nowhere else."""

import re
from typing import TYPE_CHECKING

from ftq_shared.errors import FtqError, HubUnreachable, Refused, Where
from ftq_shared.hub import words
from ftq_shared.hub.records import Kind

if TYPE_CHECKING:
    import httpx2
    from huggingface_hub.errors import HfHubHTTPError

_HOW = (
    "give one with `hf auth login`, HF_TOKEN or `--token-stdin` of `ftq submit` and `ftq retry`; "
    "tokens are made at {endpoint}/settings/tokens"
)
# How create_commit begins when the Hub refuses the front matter of a README.md.
_BAD_CARD = "Invalid metadata in README.md."
# What hf_xet puts into its RuntimeErrors when a transfer failed.
_XET = re.compile(r"\b(CAS Client|Task|Network) error", re.IGNORECASE)


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
        if isinstance(error, hub.LocalEntryNotFoundError | FileNotFoundError) and isinstance(
            error.__cause__, Exception
        ):  # a download, and HfFileSystem, put it over what the Hub said
            return self.translate(error.__cause__, kind, repo, revision)
        if isinstance(error, hub.EntryNotFoundError):
            return None  # a missing file means something else to every caller
        if isinstance(error, hub.HfHubHTTPError):
            return _with(words.said(error), self._answer(error, kind, repo, revision))
        if isinstance(error, hub.FileMetadataError):  # a mirror or a portal
            return HubUnreachable(
                f"{self.endpoint} hands out files of {kind} {repo}, but not as a Hub does: "
                f"{words.plain(str(error))}",
                code="not_a_hub",
                hint="check HF_ENDPOINT, and whether a proxy takes headers of the answers away",
            )
        if isinstance(error, hub.HFValidationError):
            return self.missing(kind, repo)
        if isinstance(error, ValueError) and str(error).startswith(_BAD_CARD):
            return self.bad_card(repo, str(error).removeprefix(_BAD_CARD))
        xet = isinstance(error, RuntimeError) and _XET.search(str(error))
        if xet or isinstance(error, ConnectionError | TimeoutError):
            return self._transfer(error, kind, repo)
        return None

    def _answer(
        self, error: "HfHubHTTPError", kind: Kind, repo: str, revision: str | None
    ) -> FtqError:
        """Translate a refusal by its status first: its class depends on the address asked."""
        from huggingface_hub import errors as hub

        status = error.response.status_code
        if isinstance(error, hub.GatedRepoError):  # first: it is a RepositoryNotFoundError too
            return self.gated(kind, repo)
        if status == 401 and self.has_token:
            return self.bad_token()
        if isinstance(error, hub.RevisionNotFoundError):
            return self.no_revision(kind, repo, revision)
        if isinstance(error, hub.RepositoryNotFoundError):
            return self.missing(kind, repo)
        if isinstance(error, hub.DisabledRepoError):
            return Refused(f"{kind} {repo} was disabled on the Hub", code="disabled")
        return self._status(status, kind, repo, writes=_writes(error.response.request))

    def _transfer(self, error: Exception, kind: Kind, repo: str) -> FtqError:
        """Translate what hf_xet raises once its own tries, over a minute or more, are used up."""
        text = words.plain(str(error))
        if status := re.search(r"\((40[134]) [A-Z]", text):  # (403 Forbidden)
            return _with(text, self._status(int(status[1]), kind, repo, writes=False))
        return HubUnreachable(
            f"the Hub at {self.endpoint} broke a transfer of {kind} {repo} off several times "
            f"({text})",
            hint="check the network; `ftq retry JOB` goes on when the Hub is back",
        )

    def _status(self, status: int, kind: Kind, repo: str, *, writes: bool) -> FtqError:
        if status == 401 and self.has_token:
            return self.bad_token()
        if status in (401, 403):
            if not writes:
                return self.no_access(kind, repo)
            return (
                self.no_write(repo, "the Hub refuses it") if self.has_token else self.no_token(repo)
            )
        if status == 404:
            return self.missing(kind, repo)
        if 400 <= status < 500:
            return Refused(
                f"the Hub at {self.endpoint} refuses {'to change ' if writes else ''}{kind} {repo} "
                f"(status {status})",
                code="hub_refused",
                hint=f"see {self.page(kind, repo)}; a quota or a plan is changed at "
                f"{self.endpoint}/settings",
            )
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

    def bad_card(self, repo: str, why: str) -> Refused:
        """The Hub reads a model card's front matter strictly, and does not take this one."""
        return Refused(
            f"the Hub at {self.endpoint} refuses the model card of {repo}: {words.plain(why)}",
            code="card_refused",
            hint="the card takes its licence from the base model, its names from model and dataset;"
            " the saved model is kept, and `ftq fetch` brings it",
        )

    def ignored(self, repo: str, names: list[str]) -> Refused:
        """The Hub drops what a repo's own .gitignore matches, without an error."""
        more = f" and {len(names) - 1} more files" if len(names) > 1 else ""
        return Refused(
            f"the .gitignore of {repo} matches {names[0]}{more}, and the Hub drops such files",
            code="files_ignored",
            hint=f"take the pattern out at {self.page('model', repo)}/edit/main/.gitignore, "
            "or publish to another repo",
            field="publish.repo",
        )

    def no_search(self, kind: Kind) -> Refused:
        """Mirrors often hand out files and know nothing of searches."""
        return Refused(
            f"the Hub at {self.endpoint} serves no search for {kind}s",
            code="no_search",
            hint="name the repo in full, or set HF_ENDPOINT to a Hub that can be searched",
        )


def _with(said: str, error: FtqError) -> FtqError:
    """Add the Hub's own words to an error; they often say what no status can."""
    if said and said not in error.message:
        error.message = f"{error.message}; the Hub says: {said}"
        error.args = (error.message,)
    return error


def _writes(request: "httpx2.Request") -> bool:
    """Whether a request was to change something; some questions are asked by POST."""
    path = request.url.path
    asks = request.method in ("GET", "HEAD") or "/paths-info/" in path
    return not asks or "/xet-write-token/" in path
