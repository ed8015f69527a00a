"""The Hub as a phase sees it: the job's endpoint and token, retries shown, stops noticed.

Every download of a phase comes through here, because `transformers` and `datasets` with a Hub id
take the endpoint from the environment at import, and none of them notices a stop.
"""

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ftq_shared.errors import FtqError
from ftq_shared.hub import HubClient, Retry
from ftq_shared.hub.records import Kind
from ftq_worker.job.context import Control, PhaseContext
from ftq_worker.job.progress import Progress

if TYPE_CHECKING:
    from huggingface_hub.utils.tqdm import tqdm

# What a model's repo has beside its weights and code.
MODEL_TEXT_FILES = (".json", ".txt", ".model", ".jinja")

_NOTICE_EVERY_S = 0.25


def hub_of(ctx: PhaseContext, retry: Retry | None = None) -> HubClient:
    """Return a client whose waits are shown as warnings and end when the job is stopped.

    Its calls raise Refused, HubUnreachable (exit 7), and JobCancelled or Interrupted.
    """
    hint = "nothing is lost: `ftq retry` goes on from here if the Hub stays away"

    def on_retry(text: str) -> None:
        ctx.control.check()
        ctx.warn(text, hint=hint)

    def pause(seconds: float) -> None:
        ctx.doing("wait for the Hub")
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            ctx.control.check()
            time.sleep(min(left, _NOTICE_EVERY_S))

    return HubClient(ctx.endpoint, ctx.hub_token, on_retry, retry or Retry(sleep=pause))


class RepoFiles(Protocol):
    """What a download has to know of a repo; a RepoRecord knows it."""

    @property
    def kind(self) -> Kind:
        """What it holds."""

    @property
    def id(self) -> str:
        """Its name."""

    @property
    def sha(self) -> str:
        """The commit."""

    @property
    def files(self) -> Mapping[str, int]:
        """Bytes by path."""


def download(ctx: PhaseContext, repo: RepoFiles, names: list[str], task: str) -> Path:
    """Bring files of a repo into the host's Hub cache; return the folder of the snapshot.

    It is whole: every name is there with the size that the repo lists. Emits progress in bytes
    under the name `task`. Raises what `download_file` raises, and FtqError (`download_damaged`).
    """
    hub = hub_of(ctx)
    total = sum(repo.files[name] for name in names)
    progress = Progress(ctx.emit, ctx.control, task, "bytes", total)
    folder, done = Path(), 0
    for name in names:
        path = _whole(hub, repo, name, progress)
        done += repo.files[name]
        progress.at(done)  # a file that is in the cache moves no bar
        # The snapshot's folder is as many levels up as the name has parts.
        folder = path.parents[name.count("/")]
    progress.finish()
    return folder


def _whole(hub: HubClient, repo: RepoFiles, name: str, progress: Progress) -> Path:
    """Bring one file of a repo; a copy in the cache that was cut off is brought again."""
    # Only now: a child in a fresh interpreter would pay for the import in every phase.
    from huggingface_hub.errors import EntryNotFoundError

    found = "it is not there"
    for force in (False, True):
        try:
            path = download_file(hub, repo.kind, repo.id, repo.sha, name, progress, force=force)
        except EntryNotFoundError:
            break
        if (size := path.stat().st_size) == repo.files[name]:
            return path
        found = f"{size:,} bytes came"
    raise FtqError(
        f"{hub.endpoint} lists {name} of {repo.kind} {repo.id} with {repo.files[name]:,} bytes, "
        f"but {found}",
        code="download_damaged",
        hint="is HF_ENDPOINT a mirror that is not up to date? `ftq retry JOB` asks again",
        file=name,
    )


def download_file(
    hub: HubClient,
    kind: Kind,
    repo: str,
    revision: str,
    name: str,
    progress: Progress,
    folder: Path | None = None,
    *,
    force: bool = False,
) -> Path:
    """Bring one file into `folder`, by default the Hub cache; return where it lies.

    `force` brings it again where the cache has it.

    Raises what HubClient.call raises, and JobCancelled or Interrupted soon after a stop.
    """
    from huggingface_hub import hf_hub_download

    start = progress.done

    def once() -> str:
        progress.at(start)  # a new try begins the file again
        with stoppable(progress.control):
            return hf_hub_download(
                repo,
                name,
                repo_type=kind,
                revision=revision,
                local_dir=folder,
                force_download=force,
                token=hub.token,
                endpoint=hub.endpoint,
                library_name="ftq",
                tqdm_class=_byte_bar(progress),
            )

    what = f"downloading {name}"
    return Path(hub.call(once, kind=kind, repo=repo, revision=revision, what=what))


@contextmanager
def stoppable(control: Control) -> Iterator[None]:
    """Break a transfer of hf_xet off when the phase must stop: by itself it tries for minutes.

    Raises what Control.check raises then.
    """
    from huggingface_hub.utils._xet import abort_xet_session

    over = threading.Event()

    def watch() -> None:
        while not over.wait(_NOTICE_EVERY_S):
            if control.stop_requested() and not over.is_set():
                abort_xet_session()  # type: ignore[no-untyped-call]

    threading.Thread(target=watch, name="stop a transfer", daemon=True).start()
    try:
        yield
    except RuntimeError:  # as hf_xet calls a transfer that was broken off
        control.check()
        raise
    finally:
        over.set()


def _byte_bar(progress: Progress) -> "type[tqdm]":
    """Return a class of progress bars that draw nothing and count bytes."""
    from huggingface_hub.utils.tqdm import tqdm

    class Bar(tqdm):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            # Xet has a bar for what arrives beside the one for what is written: the same bytes.
            self._counts = not str(kwargs.get("desc")).endswith(": downloading bytes")
            super().__init__(*args, **(kwargs | {"disable": True}))  # type: ignore[no-untyped-call]

        def update(self, n: float | None = 1) -> bool | None:
            progress.advance(int(n or 0) if self._counts else 0)
            return None

    return Bar
