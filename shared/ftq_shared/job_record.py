"""The job record as Python sees it: a frozen copy of the Redis hash."""

import json
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, NotRequired, TypedDict

from ftq_shared.errors import ErrorInfo
from ftq_shared.states import JobState, Phase

if TYPE_CHECKING:  # the schema takes 0.2 s to import: lists and tails do without it
    from ftq_shared.spec import JobSpec

log = logging.getLogger(__name__)

RECORD_VERSION = 1  # a worker neither places, claims nor repairs a newer one


class InputFields(TypedDict):
    """An `InputFile` in JSON: what `vars` gives."""

    path: str
    size: int
    sha256: str
    chunks: list[str]
    hub: NotRequired[str]  # clients before 0.2 do not say it


class JobRow(TypedDict):
    """A job as `ftq list --json` prints it; what is not there yet is left out."""

    id: str
    name: str
    state: str
    phase: str
    attempt: int
    model: str
    dataset: str
    host: str
    gpus: list[str]
    priority: str
    owner: str
    created: float  # Unix time
    ended: float | None
    events: int
    step: NotRequired[int]
    steps: NotRequired[int]
    loss: NotRequired[float]
    eta_s: NotRequired[float]
    url: NotRequired[str]
    waiting: NotRequired[str]
    error: NotRequired[Mapping[str, object]]
    exit_code: NotRequired[int]


@dataclass(frozen=True)
class InputFile:
    """One file of the client's own that travels with the job."""

    path: str  # relative to the job's inputs folder, for example dataset/rows.jsonl
    size: int  # bytes
    sha256: str  # of the whole file
    chunks: tuple[str, ...] = ()  # SHA-256 of each 1 MiB chunk; empty: it is not with the broker
    hub: str = ""  # repo@commit of the private dataset repo that holds it; '': it is not there

    @classmethod
    def from_json(cls, raw: InputFields) -> "InputFile":
        return cls(
            raw["path"], raw["size"], raw["sha256"], tuple(raw["chunks"]), raw.get("hub", "")
        )


def input_repo(job: str) -> str:
    """Return the name of the private Hub repo for a job's own files, without its namespace."""
    return f"ftq-inputs-{job}"


@dataclass(frozen=True)
class JobRecord:
    """One job. Empty strings stand for what is not there."""

    id: str
    record_version: int
    name: str
    owner: str  # user@machine that submitted it
    state: JobState
    phase: Phase
    attempt: int  # this and the other counters: docs/architecture.md, "What is counted"
    version: int
    token: str  # "<number>:<64 random bits>"; '' when nobody owns the job
    last_token: str  # the one before, which has ended; '' before the first
    token_number: int  # of the newest token
    nonce: str  # of the claim; '' when nobody has claimed
    host: str
    instance: str
    gpus: tuple[str, ...]
    slot: str  # cpu or gpu
    renewals: int
    cancel: bool
    priority: str
    storage_id: str  # the storage group that the job is bound to
    round: int
    fresh_after: int  # checkpoints of tokens up to this number are not resumed from
    seq: int
    created_ms: int
    ended_ms: int
    exit_code: int
    endpoint: str  # the Hub that the job is for
    spec_json: str
    summary: Mapping[str, str]  # everything else: step, steps, loss, eta_s, url, waiting ...

    @property
    def spec(self) -> "JobSpec":
        """The spec; raises ValueError when it is from another version."""
        from ftq_shared.spec import JobSpec

        return JobSpec.model_validate_json(self.spec_json)

    def is_held_by(self, running: Mapping[str, str]) -> bool:
        """Return whether a host works on it under a token that this record has forgotten.

        The record is then one that a broker has rolled back. A token with a lower number does not
        count: its claim has ended, only its host has not said so yet.
        """
        token = running.get(self.id, "")
        number = token.partition(":")[0]
        forgotten = number.isdecimal() and int(number) >= self.token_number
        return forgotten and token not in (self.last_token, self.token)

    @property
    def claim(self) -> str:
        """Name of the folder that only the present owner writes to.

        The token alone would not do: a broker that rolled back lets one be claimed twice.
        """
        return f"{self.token.partition(':')[0]}-{self.nonce}"

    @property
    def error(self) -> ErrorInfo | None:
        """What ended the job, None when nothing did."""
        raw = self.summary.get("error")
        return ErrorInfo.from_json(json.loads(raw)) if raw else None

    @property
    def inputs(self) -> tuple[InputFile, ...]:
        raw = json.loads(self.summary.get("inputs") or "[]")
        return tuple(InputFile.from_json(entry) for entry in raw)

    @classmethod
    def from_hash(cls, raw: Mapping[str, str]) -> "JobRecord":
        """Read a Redis hash; raises ValueError or KeyError when it is not a job's."""
        get = raw.get
        return cls(
            id=raw["id"],
            record_version=int(raw["v"]),
            name=get("name", ""),
            owner=get("owner", ""),
            state=JobState(raw["state"]),
            phase=Phase(raw["phase"]),
            attempt=int(raw["attempt"]),
            version=int(raw["version"]),
            token=get("token", ""),
            last_token=get("last_token", ""),
            token_number=int(get("token_number", "0")),
            nonce=get("nonce", ""),
            host=get("host", ""),
            instance=get("instance", ""),
            gpus=tuple(json.loads(get("gpus") or "[]")),
            slot=get("slot", ""),
            renewals=int(get("beat") or 0),
            cancel=get("cancel") == "1",
            priority=get("priority", "normal"),
            storage_id=get("storage_id", ""),
            round=int(get("round") or 0),
            fresh_after=int(get("fresh_after") or 0),
            seq=int(get("seq", "0")),
            created_ms=int(get("created_ms", "0")),
            ended_ms=int(get("ended_ms") or 0),
            exit_code=int(get("exit_code") or 0),
            endpoint=get("endpoint", ""),
            spec_json=get("spec", "{}"),
            summary={k: v for k, v in raw.items() if k not in _OWN_FIELDS},
        )

    def to_row(self) -> JobRow:
        """Return what `ftq list` and `ftq show` print, as plain data."""
        spec = json.loads(self.spec_json)
        row: JobRow = {
            "id": self.id,
            "name": self.name,
            "state": str(self.state),
            "phase": str(self.phase),
            "attempt": self.attempt,
            "model": spec.get("model"),
            "dataset": spec.get("dataset"),
            "host": self.host or (self.state.terminal and self.summary.get("last_host")) or "",
            "gpus": list(self.gpus),
            "priority": self.priority,
            "owner": self.owner,
            "created": self.created_ms / 1000,
            "ended": self.ended_ms / 1000 or None,
            "events": self.seq,
        }
        _add_summary(row, self.summary)
        if self.state.terminal:
            row["exit_code"] = self.exit_code
        return row


def _add_summary(row: JobRow, summary: Mapping[str, str]) -> None:
    """Add what has become known of a job since it was submitted."""
    if step := summary.get("step"):
        row["step"] = int(step)
    if steps := summary.get("steps"):
        row["steps"] = int(steps)
    if loss := summary.get("loss"):
        row["loss"] = float(loss)
    if eta_s := summary.get("eta_s"):
        row["eta_s"] = float(eta_s)
    if url := summary.get("url"):
        row["url"] = url
    if waiting := summary.get("waiting"):
        row["waiting"] = waiting
    if error := summary.get("error"):
        row["error"] = json.loads(error)


def new_record(
    spec: "JobSpec", *, owner: str, endpoint: str, inputs: Iterable[InputFile]
) -> dict[str, str]:
    """Return the fields that a submit writes into the record."""
    record = {
        "v": RECORD_VERSION,
        "spec": spec.canonical(),
        "name": spec.name or "",
        "owner": owner,
        "phase": Phase.VALIDATE,
        "priority": spec.resources.priority,
        "max_attempts": spec.resources.max_attempts,
        "gpu_request": spec.resources.gpus,
        "min_vram_gb": spec.resources.min_vram_gb or 0,
        "max_runtime_s": spec.resources.max_runtime or 0,
        "endpoint": endpoint,
        "inputs": json.dumps([vars(f) for f in inputs]),
    }
    return {field: str(value) for field, value in record.items()}


# What the record holds by name; the rest is its summary.
_OWN_FIELDS = frozenset({field.name for field in fields(JobRecord)} | {"v", "spec", "beat"})


def read_record(raw: Mapping[str, str]) -> JobRecord | None:
    """Read one record; one of a newer version or a damaged one is left to others, with a word."""
    try:
        return JobRecord.from_hash(raw)
    except (KeyError, ValueError, TypeError) as error:
        job = raw.get("id", "?")
        extra = {"action": "record_unreadable", "job": job}
        log.warning("record %s is not one of this version: %r", job, error, extra=extra)
        return None
