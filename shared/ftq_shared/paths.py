"""Every file path of a job, in one class, and the marker that tells storages apart.

FTQ_STORAGE/
  storage_id                  which hosts share this storage
  jobs/<id>/
    marker                    written when the job is bound to this storage
    spec.json                 the spec as submitted
    inputs/                   the client's own files, as they arrived
    hub_inputs.json           which of them have to be fetched from a private Hub repo
    without_rows.json         rows that are left out of training by name
    validated.json            what validate found
    base.json                 the files of the base model on the Hub, and their sizes
    prepared/                 data sets ready to train (datasets' Arrow folders), and where each
                              training row came from (rows.arrow)
    prepared.json             what prepare found and decided
    report.html               the same for people: rows, lengths, labels, what was left out
    resolved.json             every `auto` with its value and reason
    attempts/<n>-<random>/    one folder per token: events.jsonl, output.log, checkpoints/, and
                              how each of its trainings began (runs.jsonl)
    checkpoint.json           the newest good checkpoint, switched by os.replace
    model/                    the trained model
    train.json                figures of the training
    tensorboard/              the same step by step, as TensorBoard's event files
    trackers/                 what wandb, trackio and mlflow keep of it
    golden.json               how the golden rows were scored in it, row by row
    release/                  what is published: adapter or whole model, verified, with its card
    verified.json             the hashes of the verified files
    published.json            repo, revision, url
    result.json               the terminal state
"""

import json
import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ftq_shared import keys
from ftq_shared.errors import UsageError


def write_atomic(path: Path, data: bytes | str, *, mode: int = 0o666) -> None:
    """Write a file so that a reader sees the old or the new content, never a part of it.

    `mode` holds from the first byte on, less the umask.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            file.write(data.encode() if isinstance(data, str) else data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:  # a full disk gets back what little there was room for
        part.unlink(missing_ok=True)
        raise


def write_json(path: Path, data: Any, *, mode: int = 0o666) -> None:
    """Write `data` as indented JSON, as `write_atomic` does."""
    text = json.dumps(data, indent=2, ensure_ascii=False, sort_keys=True) + "\n"
    write_atomic(path, text, mode=mode)


def read_json(path: Path) -> Any:
    """Read a JSON file; returns None when it is not there."""
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        return None


@dataclass(frozen=True)
class JobPaths:
    """The files of one job under the storage's root; what each holds is said above.

    Raises ValueError for what is no job id: it would lead out of the storage.
    """

    storage: Path
    job: str

    def __post_init__(self) -> None:
        if not keys.is_job_id(self.job):
            raise ValueError(f"{self.job!r} is no job id")

    @property
    def root(self) -> Path:
        return self.storage / "jobs" / self.job

    @property
    def marker(self) -> Path:
        return self.root / "marker"

    @property
    def spec(self) -> Path:
        return self.root / "spec.json"

    @property
    def inputs(self) -> Path:
        return self.root / "inputs"

    @property
    def hub_inputs(self) -> Path:
        return self.root / "hub_inputs.json"

    @property
    def validated(self) -> Path:
        return self.root / "validated.json"

    @property
    def base_files(self) -> Path:
        return self.root / "base.json"

    @property
    def prepared(self) -> Path:
        """Folder of the prepared data sets: train, validation, golden."""
        return self.root / "prepared"

    @property
    def row_sources(self) -> Path:
        """Where each row of the training set came from; absent in jobs of older versions."""
        return self.prepared / "rows.arrow"

    @property
    def without_rows(self) -> Path:
        return self.root / "without_rows.json"

    @property
    def prepared_report(self) -> Path:
        return self.root / "prepared.json"

    @property
    def data_report(self) -> Path:
        return self.root / "report.html"

    @property
    def resolved(self) -> Path:
        return self.root / "resolved.json"

    @property
    def model(self) -> Path:
        return self.root / "model"

    @property
    def release(self) -> Path:
        """The folder that was verified and that a push holds; absent before."""
        return self.root / "release"

    @property
    def fetched(self) -> Path:
        """The model that `ftq fetch` brings: verified, or as it was trained where none was."""
        return self.release if self.release.is_dir() else self.model

    @property
    def reports(self) -> list[Path]:
        """What `ftq fetch` puts beside it: what it was trained on, how, and its scores."""
        every = (self.data_report, self.train_report, self.tensorboard)
        return [path for path in every if path.exists()]

    @property
    def tensorboard(self) -> Path:
        """Folder of TensorBoard's event files, one for each attempt."""
        return self.root / "tensorboard"

    @property
    def trackers(self) -> Path:
        """What other trackers keep of the job, a folder each."""
        return self.root / "trackers"

    @property
    def train_report(self) -> Path:
        return self.root / "train.json"

    @property
    def golden_scores(self) -> Path:
        return self.root / "golden.json"

    @property
    def verified(self) -> Path:
        return self.root / "verified.json"

    @property
    def published(self) -> Path:
        return self.root / "published.json"

    @property
    def result(self) -> Path:
        """The terminal state; repair believes it over a record that a broker rolled back."""
        return self.root / "result.json"

    @property
    def checkpoint(self) -> Path:
        return self.root / "checkpoint.json"

    def claim_dir(self, claim: str) -> Path:
        """The folder of one claim; only the holder of its token writes there.

        Raises ValueError for a name that would lead out of the job's folder.
        """
        if not keys.is_name(claim):
            raise ValueError(f"{claim!r} is no claim")
        return self.root / "attempts" / claim

    def events(self, claim: str) -> Path:
        """The events of one claim, one JSON body a line, from the first on."""
        return self.claim_dir(claim) / "events.jsonl"

    def runs(self, claim: str) -> Path:
        """How each training of one claim began, one JSON object a line."""
        return self.claim_dir(claim) / "runs.jsonl"

    def output(self, claim: str) -> Path:
        return self.claim_dir(claim) / "output.log"

    def checkpoints(self, claim: str) -> Path:
        return self.claim_dir(claim) / "checkpoints"


def open_storage(location: str) -> tuple[Path, str]:
    """Return the storage's root and its id, making both where they are missing.

    Raises UsageError for a URL that is not a folder that this host can see.
    """
    if "://" in location and not location.startswith("file://"):
        raise UsageError(
            f"FTQ_STORAGE: {location!r} is not a folder",
            hint="this version needs a local or mounted (NFS, FUSE) folder; mount the bucket",
        )
    root = Path(location.removeprefix("file://")).expanduser().absolute()
    try:
        root.mkdir(parents=True, exist_ok=True)
        marker = root / "storage_id"
        if not marker.exists():
            _write_once(marker, secrets.token_hex(8))
        storage_id = marker.read_text().strip()
    except (OSError, ValueError) as error:
        raise UsageError(
            f"FTQ_STORAGE: {root}: {getattr(error, 'strerror', None) or error}",
            hint="choose a folder you can write to",
        ) from error
    if not keys.is_name(storage_id):
        raise UsageError(
            f"FTQ_STORAGE: {marker} does not hold the storage's id: {storage_id[:60]!r}",
            code="bad_storage",
            hint="put back what it held; jobs that were started here are bound to that id",
        )
    return root, storage_id


def _write_once(path: Path, text: str) -> None:
    """Create a file unless somebody else just did; the first one wins."""
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    part.write_text(text)
    try:
        os.link(part, path)
    except FileExistsError:
        pass  # another host was faster; its id is the storage's
    finally:
        part.unlink()
