"""Look-ups on a Hub, by the real huggingface_hub client.

Every call names its endpoint and token; nothing is taken from the environment. A call is
repeated while the Hub is away; after the time of `Retry` it raises HubUnreachable. What the Hub
refuses is raised as Refused.
"""

import io
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING, BinaryIO, TypeVar, cast

from ftq_shared.errors import FtqError, Refused
from ftq_shared.hub import nearest
from ftq_shared.hub.records import (
    Identity,
    Kind,
    RepoRecord,
    SearchHit,
    identity,
    record,
    search_hit,
)
from ftq_shared.hub.refusals import Refusals
from ftq_shared.hub.transport import Retry, Transient, Transport
from ftq_shared.settings import DEFAULT_ENDPOINT

if TYPE_CHECKING:
    from huggingface_hub import DatasetInfo, HfApi, ModelInfo

T = TypeVar("T")

# A config or tokenizer file beyond this is not what it says it is.
_MAX_TEXT_BYTES = 32 * 2**20
_QUICK = Retry(total_s=0.0, request_s=5.0, asked_s=0.0)
NOT_SERVED = (404, 405, 501)  # what a mirror answers to questions that it does not know


class HubLookups:
    """A Hub as one person sees it.

    `token` is a token, True for the one that `hf auth login` stored on this machine, False or
    None for nobody. `on_retry` is called with a sentence before each new try; what it raises ends
    the call.
    """

    def __init__(
        self,
        endpoint: str | None,
        token: str | bool | None,
        on_retry: Callable[[str], None] = lambda text: None,
        retry: Retry | None = None,
    ) -> None:
        self.endpoint = (endpoint or DEFAULT_ENDPOINT).rstrip("/")
        self.token: str | bool = token or False
        self.refusals = Refusals(self.endpoint, has_token=bool(token))
        self._on_retry = on_retry
        self._made: set[tuple[Kind, str]] = set()  # repos that this client has made, in small
        self._transport = Transport(self.endpoint, on_retry, retry or Retry())

    @cached_property
    def api(self) -> "HfApi":
        """The real client, for calls that are not here; use it inside `call`."""
        from huggingface_hub import HfApi

        return HfApi(endpoint=self.endpoint, token=self.token, library_name="ftq")

    def call(
        self,
        function: Callable[[], T],
        *,
        kind: Kind,
        repo: str,
        revision: str | None = None,
        what: str = "",
    ) -> T:
        """Return `function()`: tried again while the Hub is away, its errors translated.

        Raises Refused, HubUnreachable or UsageError; other errors pass through.
        """
        from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

        def once() -> T:
            try:
                return function()
            except (RepositoryNotFoundError, RevisionNotFoundError) as error:
                known = (kind, repo.lower()) in self._made
                if known and error.response.status_code == 404:
                    raise Transient("does not show yet what was just made") from error
                raise

        try:
            return self._transport.call(what or f"looking up {kind} {repo}", once)
        except Exception as error:
            translated = self.refusals.translate(error, kind, repo, revision)
            if translated is None or translated is error:
                raise
            raise translated from error

    # Repos

    def model_info(self, repo: str, revision: str | None = None) -> RepoRecord:
        """Return a model, pinned to a commit.

        Raises Refused: `no_such_model` with the nearest names, `no_such_revision`, `access`.
        """
        return self._info("model", repo, revision)

    def dataset_info(self, repo: str, revision: str | None = None) -> RepoRecord:
        """Return a dataset, pinned to a commit; raises as `model_info` does."""
        return self._info("dataset", repo, revision)

    def _info(self, kind: Kind, repo: str, revision: str | None) -> RepoRecord:
        ask = self.api.model_info if kind == "model" else self.api.dataset_info
        try:
            info = self.call(
                lambda: ask(repo, revision=revision, files_metadata=True),
                kind=kind,
                repo=repo,
                revision=revision,
            )
        except Refused as error:
            if error.code == f"no_such_{kind}":
                better = self.refusals.missing(kind, repo, self.nearest(kind, repo))
            elif error.code == "no_such_revision":
                better = self.refusals.no_revision(
                    kind, repo, revision, self._revisions(kind, repo)
                )
            else:
                raise
            # The message stays: it has the Hub's words.
            raise Refused(
                error.message, code=better.code, hint=better.hint, **better.where
            ) from error
        found = record(kind, info)
        if any(file.size is None for file in info.siblings or ()):
            found = replace(found, files=self.tree(kind, found.id, found.sha))
        return found

    def tree(self, kind: Kind, repo: str, revision: str | None = None) -> dict[str, int]:
        """Return every file with its size in bytes.

        Raises as `call` does, and Refused (`no_file_list`) for a mirror that lists no files.
        """
        from huggingface_hub.errors import EntryNotFoundError
        from huggingface_hub.hf_api import RepoFile

        def ask() -> dict[str, int]:
            entries = self.api.list_repo_tree(
                repo, recursive=True, revision=revision, repo_type=kind
            )
            return {entry.path: entry.size for entry in entries if isinstance(entry, RepoFile)}

        what = f"listing the files of {repo}"
        try:
            return self.call(ask, kind=kind, repo=repo, revision=revision, what=what)
        except EntryNotFoundError as error:
            raise Refused(
                f"the Hub at {self.endpoint} does not list the files of {kind} {repo}",
                code="no_file_list",
                hint="set HF_ENDPOINT to a Hub that does; a mirror may hand out files only",
            ) from error

    def check_access(self, kind: Kind, repo: str) -> None:
        """Raise Refused (`gated`, `access`, `no_such_...`) when the files may not be read."""
        self.call(lambda: self.api.auth_check(repo, repo_type=kind), kind=kind, repo=repo)

    def _revisions(self, kind: Kind, repo: str) -> list[str]:
        try:
            refs = self._quick(kind).call(
                lambda: self.api.list_repo_refs(repo, repo_type=kind), kind=kind, repo=repo
            )
        except FtqError:
            return []
        return [ref.name for ref in (*refs.branches, *refs.tags)][:10]

    # Search

    def search_models(self, query: str, limit: int = 10) -> list[SearchHit]:
        """Return models whose id holds the words, most downloaded first; empty when none does."""
        return self._search("model", query, None, limit)

    def search_datasets(self, query: str, limit: int = 10) -> list[SearchHit]:
        """Return datasets whose id holds the words; empty when none does."""
        return self._search("dataset", query, None, limit)

    def _search(self, kind: Kind, query: str, author: str | None, limit: int) -> list[SearchHit]:
        ask: Callable[..., Iterable[ModelInfo | DatasetInfo]] = (
            self.api.list_models if kind == "model" else self.api.list_datasets
        )

        from huggingface_hub.errors import HfHubHTTPError

        def run() -> list[SearchHit]:
            results = ask(search=query or None, author=author, limit=limit, sort="downloads")
            try:
                return [search_hit(info) for info in islice(results, limit)]
            except HfHubHTTPError as error:
                status = error.response.status_code
                if status in NOT_SERVED or (status == 401 and not self.token):
                    raise self.refusals.no_search(kind) from error
                raise

        return self.call(run, kind=kind, repo=query, what=f"searching {kind}s for {query!r}")

    def nearest(self, kind: Kind, name: str) -> list[str]:
        """Return up to five ids that come near `name`; empty when the Hub finds none.

        Trouble with the Hub is not raised: the names only adorn an error that is raised anyway.
        """
        quick = self._quick(kind)

        def ids(query: str, author: str | None) -> list[str]:
            return [item.id for item in quick._search(kind, query, author, 50)]

        try:
            return nearest.find(name, ids)
        except FtqError:
            return []

    def _quick(self, kind: Kind) -> "HubLookups":
        """Return a client that gives up at once, for what only helps."""
        return HubLookups(self.endpoint, self.token, self._on_retry, _QUICK)

    # Files

    def read_text(self, kind: Kind, repo: str, path: str, revision: str) -> str | None:
        """Return a small text file, None when it is not there. Raises Refused for a huge one."""
        content = self.read_head(kind, repo, path, revision, _MAX_TEXT_BYTES + 1)
        if content is None:
            return None
        if len(content) > _MAX_TEXT_BYTES:
            raise Refused(f"{repo}: {path} is larger than 32 MiB", code="file_too_large", file=path)
        return content.decode("utf-8", "replace")

    def read_head(
        self, kind: Kind, repo: str, path: str, revision: str, size_bytes: int
    ) -> bytes | None:
        """Return up to `size_bytes` of a file's beginning, None when it is not there."""
        from huggingface_hub import hf_hub_url
        from huggingface_hub.errors import EntryNotFoundError
        from huggingface_hub.utils._headers import build_hf_headers
        from huggingface_hub.utils._http import get_session, hf_raise_for_status

        url = hf_hub_url(repo, path, repo_type=kind, revision=revision, endpoint=self.endpoint)
        headers = build_hf_headers(token=self.token, library_name="ftq")
        headers["range"] = f"bytes=0-{size_bytes - 1}"

        def fetch() -> bytes:
            content = io.BytesIO()
            with get_session().stream("GET", url, headers=headers) as answer:
                if answer.status_code == 416:  # an empty file has no byte 0
                    return b""
                if answer.status_code >= 400:
                    answer.read()
                hf_raise_for_status(answer)
                for chunk in answer.iter_bytes():
                    content.write(chunk)
                    if content.tell() >= size_bytes:
                        break
            return content.getvalue()[:size_bytes]

        try:
            return self.call(fetch, kind=kind, repo=repo, revision=revision, what=f"reading {path}")
        except Refused:
            raise
        except EntryNotFoundError:
            return None

    def open(self, kind: Kind, repo: str, path: str, revision: str) -> BinaryIO:
        """Return a file to seek in; reads fetch ranges. Wrap its reads in `call`."""
        from huggingface_hub import HfFileSystem

        system = HfFileSystem(endpoint=self.endpoint, token=self.token, skip_instance_cache=True)
        prefix = "datasets/" if kind == "dataset" else ""
        name = f"{prefix}{repo}@{revision}/{path}"
        opened = self.call(
            lambda: system.open(name, "rb", block_size=2**18),
            kind=kind,
            repo=repo,
            revision=revision,
            what=f"opening {path}",
        )
        return cast("BinaryIO", opened)

    # People

    def whoami(self) -> Identity:
        """Return who the token belongs to; raises Refused `bad_token` for an unknown one."""
        if not self.token:
            raise Refused("no token was given", code="no_token", hint=self.refusals.give_token())
        try:
            return identity(self.call(self.api.whoami, kind="model", repo="", what="log-in"))
        except Refused as error:
            raise (self.refusals.bad_token() if error.code == "access" else error) from error
