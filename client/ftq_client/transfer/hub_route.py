"""The third route of the client's own files: a private Hub repo of the person's, with consent.

The repo is a dataset named `ftq-inputs-<job>`; the worker deletes it once prepare is done.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ftq_client.transfer.files import OwnFile, size_of
from ftq_shared.errors import FtqError, HubUnreachable, Refused
from ftq_shared.hub import HubClient, Retry
from ftq_shared.job_record import InputFile, input_repo

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd

# For the deletion after an error: the person waits for that error meanwhile.
_CLEAR_UP = Retry(total_s=5.0, request_s=5.0, asked_s=5.0)


@dataclass(frozen=True)
class HubRoute:
    """A Hub, the token that files are sent with, the question for consent, and the progress."""

    endpoint: str
    token: str | None
    agree: Callable[[str], bool]  # gets the question
    report: Callable[[str], None]  # gets a sentence for each step of an upload

    def consents(self, job: str, why: str) -> bool:
        """Ask whether a job's files may go this way; nothing has been sent yet."""
        return self.agree(
            f"{why}. Send them through a private repo {input_repo(job)} of yours on"
            f" {self.endpoint}? It is deleted after prepare."
        )

    def send(self, job: str, files: Sequence[OwnFile]) -> list[InputFile]:
        """Upload the files in one commit and return where they lie.

        Leaves nothing behind when it fails. Raises Refused without a token that may write, and
        HubUnreachable.
        """
        hub = HubClient(self.endpoint, self.token, self.report)
        with _no_job_yet():
            if not self.token:
                raise Refused(
                    "sending files through the Hub needs a token that may write; none was given",
                    code="no_token",
                    hint=hub.refusals.give_token(),
                )
            repo = hub.write_access(input_repo(job))
            try:
                _make_private(hub, repo)
                with _quiet():
                    return self._upload(hub, repo, job, files)
            except BaseException:  # Ctrl-C as well: an upload may take long
                self.take_back(repo)
                raise

    def take_back(self, repo: str) -> None:
        """Delete a repo that no job will use; a failure is reported, not raised."""
        hub = HubClient(self.endpoint, self.token, retry=_CLEAR_UP)
        try:
            hub.delete_repo("dataset", repo)
        except FtqError as error:
            page = hub.refusals.page("dataset", repo)
            self.report(
                f"the private repo {repo} could not be deleted: {error.message};"
                f" delete it at {page}/settings"
            )

    @contextmanager
    def uncertain(self, job: str, inputs: Sequence[InputFile]) -> Iterator[None]:
        """Name the repo that stays when the broker's answer to the submit is lost."""
        try:
            yield
        except BaseException:
            for repo in _repos(inputs):
                self.report(
                    f"your files are in the private repo {repo}: unless `ftq list` shows {job},"
                    f" delete it at {self.endpoint}/datasets/{repo}/settings"
                )
            raise

    def forget(self, inputs: Sequence[InputFile]) -> None:
        """Delete the repo that holds these files, if any."""
        for repo in _repos(inputs):
            self.take_back(repo)

    def _upload(
        self, hub: HubClient, repo: str, job: str, files: Sequence[OwnFile]
    ) -> list[InputFile]:
        """Send each file ahead, so that each has its own progress and retries; then commit."""
        self.report(f"sending {_mib(files)} MiB through {hub.refusals.page('dataset', repo)}")
        sent = []
        for number, file in enumerate(files, 1):
            self.report(f"uploading {file.path}, {_mib([file])} MiB ({number} of {len(files)})")
            sent.append(_send_ahead(hub, repo, file))
        commit = _commit(hub, repo, f"ftq {job}: files for the job", files, sent)
        return [
            InputFile(
                file.path,
                operation.upload_info.size,
                operation.upload_info.sha256.hex(),
                hub=f"{repo}@{commit}",
            )
            for file, operation in zip(files, sent, strict=True)
        ]


def _make_private(hub: HubClient, repo: str) -> None:
    """Make the repo, and see that it is private. Raises Refused."""
    hub.create_repo("dataset", repo, private=True)
    if not hub.dataset_info(repo).private:
        raise Refused(
            f"the Hub made {repo} public, so nothing was sent through it",
            code="not_private",
            hint="use another route, or ask whoever runs this Hub",
        )


def _send_ahead(hub: HubClient, repo: str, file: OwnFile) -> "CommitOperationAdd":
    """Upload one file ahead of the commit; small ones travel in the commit itself."""

    def once() -> "CommitOperationAdd":
        operation = _operation(file)
        hub.api.preupload_lfs_files(repo, [operation], repo_type="dataset")
        return operation

    return hub.call(once, kind="dataset", repo=repo, what=f"uploading {file.path}")


def _operation(file: OwnFile) -> "CommitOperationAdd":
    from huggingface_hub import CommitOperationAdd

    return CommitOperationAdd(file.path, file.source if file.content is None else file.content)


def _commit(
    hub: HubClient,
    repo: str,
    title: str,
    files: Sequence[OwnFile],
    sent: Sequence["CommitOperationAdd"],
) -> str:
    first = list(sent)

    def once() -> str:
        # The client marks operations as used up; a second try needs new ones.
        operations = [first.pop(0) for _ in range(len(first))] or [_operation(f) for f in files]
        made = hub.api.create_commit(repo, operations, commit_message=title, repo_type="dataset")
        return str(made.oid)

    return hub.call(once, kind="dataset", repo=repo, what=f"committing to {repo}")


@contextmanager
def _no_job_yet() -> Iterator[None]:
    """Give a Hub that is away a hint that fits: there is no job that could be retried."""
    try:
        yield
    except HubUnreachable as error:
        hint = "no job was made; check the network and HF_ENDPOINT, then submit again"
        raise HubUnreachable(error.message, code=error.code, hint=hint) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Hold huggingface_hub's own bars back where they would fill a log."""
    from huggingface_hub.utils.tqdm import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    if sys.stderr.isatty() or are_progress_bars_disabled():
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()


def _repos(inputs: Sequence[InputFile]) -> set[str]:
    return {file.hub.partition("@")[0] for file in inputs if file.hub}


def _mib(files: Sequence[OwnFile]) -> str:
    return f"{size_of(files) / 2**20:.1f}"
