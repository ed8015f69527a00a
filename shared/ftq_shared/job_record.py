"""The job record as Python sees it: a frozen copy of the Redis hash."""

import json
import logging
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, NotRequired, TypedDict, TypeVar

from ftq_shared import keys
from ftq_shared.errors import ErrorInfo, FtqError
from ftq_shared.lifetimes import SPEC_MAX_BYTES
from ftq_shared.row_refs import RowRef, load_refs
from ftq_shared.states import JobState, Phase

if TYPE_CHECKING:  # the schema takes 0.2 s to import: lists and tails do without it
    from ftq_shared.spec import JobSpec

log = logging.getLogger(__name__)

RECORD_VERSION = 2  # a worker neither places, claims nor repairs a newer one
# Of a job that asks for nothing new, so that workers of before take it as well. A replay, and a job
# that leaves rows out by name, they would train whole.
PLAIN_VERSION = 1
CARDS_MAX = 64  # of one job
COUNT_MAX = 10**13  # of anything counted; Lua writes whole numbers of up to 14 digits
_LATEST_MS = 253_402_300_799_000  # the year 9999
_PATH_MAX = 4096  # bytes of an input's path
_COUNT = re.compile(r"[0-9]{1,15}", re.ASCII)

T = TypeVar("T")


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
    replay_of: NotRequired[str]  # the job whose step it repeats
    replay_step: NotRequired[int]


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
        """Read one entry; raises ValueError, KeyError, TypeError for what is none."""
        chunks = tuple(map(str, raw["chunks"]))
        size, hub = int(raw["size"]), str(raw.get("hub", ""))
        return cls(_inner_path(raw["path"]), size, str(raw["sha256"]), chunks, hub)


def _inner_path(path: str) -> str:
    """Return a path below a folder as it is. Raises ValueError for one that leads out of it."""
    parts = PurePosixPath(path).parts
    plain = path.isprintable() and len(path.encode(errors="replace")) <= _PATH_MAX
    if not parts or path.startswith("/") or ".." in parts or not plain:
        raise ValueError(f"{path!r} is no path below the job's folder")
    return path


def input_repo(job: str) -> str:
    """Return the name of the private Hub repo for a job's own files, without its namespace."""
    return f"ftq-inputs-{job}"


@dataclass(frozen=True)
class Replay:
    """What a job repeats that is a replay: a step of another job, with that job's files."""

    job: str
    step: int
    storage_id: str = ""  # where that job's files are; empty: the replay is bound to it anyway
    fresh_after: int = 0  # as in that job's record


def claim_of(token: str, nonce: str) -> str:
    """Return the name of a claim, and of the folder that only it writes to."""
    return f"{token.partition(':')[0]}-{nonce}"


@dataclass(frozen=True)
class Rest:
    """A claim that has ended, of whose events the broker has `stored`."""

    token: str
    nonce: str
    stored: int

    @property
    def claim(self) -> str:
        return claim_of(self.token, self.nonce)


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
        return claim_of(self.token, self.nonce)

    @property
    def rest(self) -> Rest | None:
        """The claim before this one, whose last events may be in its file alone."""
        token, _, more = self.summary.get("rest", "").partition(" ")
        nonce, _, stored = more.partition(" ")
        good = keys.is_token(token) and keys.is_name(nonce) and re.fullmatch("[0-9]{1,15}", stored)
        return Rest(token, nonce, int(stored)) if good else None

    @property
    def died_on(self) -> frozenset[str]:
        """Names of the hosts on which its attempts have died since it was submitted or retried."""
        told = _readable(list, self.summary.get("deaths")) or []
        return frozenset(str(it.get("host")) for it in told if isinstance(it, dict))

    @property
    def awaits(self) -> str:
        """The key of the lock that it waits for in the queue; '' when it waits for none."""
        key = self.summary.get("awaits", "")
        return key if key.startswith(keys.lock("")) else ""

    @property
    def error(self) -> ErrorInfo | None:
        """What ended the job, None when nothing did, or nothing that can be read."""
        raw = self.summary.get("error")
        return _readable(ErrorInfo.from_json, raw) if raw else None

    @property
    def inputs(self) -> tuple[InputFile, ...]:
        """The client's own files. Raises FtqError when the record says nothing that can be used."""
        try:
            raw = json.loads(self.summary.get("inputs") or "[]")
            return tuple(InputFile.from_json(entry) for entry in raw)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise damaged(self.id, f"its input files: {error}") from error

    @property
    def replay(self) -> Replay | None:
        """The step that it repeats; None for a job of its own. Raises FtqError as `inputs` does."""
        if not (of := self.summary.get("replay_of")):
            return None
        try:
            step = _count(self.summary.get("replay_step"))
            if not keys.is_job_id(of) or not step:
                raise ValueError(f"{of[:60]!r}, step {step}")
        except ValueError as error:
            raise damaged(self.id, f"what it repeats: {error}") from error
        return Replay(of, step)

    @property
    def without_rows(self) -> tuple[RowRef, ...]:
        """The rows that are left out of training by name. Raises FtqError as `inputs` does."""
        try:
            return load_refs(self.summary.get("without_rows", ""))
        except (ValueError, RecursionError) as error:
            raise damaged(self.id, f"the rows that it leaves out: {error}") from error

    @property
    def asks_for_rows(self) -> bool:
        """Whether the last retry has named these rows; else an earlier one did."""
        return self.summary.get("without_round") == str(self.round)

    @classmethod
    def from_hash(cls, raw: Mapping[str, str], job: str | None = None) -> "JobRecord":
        """Read a Redis hash, that of `job` where its key is known.

        Raises ValueError or KeyError when it is not a job's: whoever reads it leaves it alone.
        What is only shown is not looked at here.
        """
        get = raw.get
        _check_forms(raw, job)
        return cls(
            id=raw["id"],
            record_version=_count(raw["v"]),
            name=get("name", ""),
            owner=get("owner", ""),
            state=JobState(raw["state"]),
            phase=Phase(raw["phase"]),
            attempt=_count(raw["attempt"]),
            version=_count(raw["version"]),
            token=get("token", ""),
            last_token=get("last_token", ""),
            token_number=_count(get("token_number")),
            nonce=get("nonce", ""),
            host=get("host", ""),
            instance=get("instance", ""),
            gpus=_cards(get("gpus") or "[]"),
            slot=get("slot", ""),
            renewals=_count(get("beat")),
            cancel=get("cancel") == "1",
            priority=get("priority", "normal"),
            storage_id=get("storage_id", ""),
            round=_count(get("round")),
            fresh_after=_count(get("fresh_after")),
            seq=_count(get("seq")),
            created_ms=_count(get("created_ms"), most=_LATEST_MS),
            ended_ms=_count(get("ended_ms"), most=_LATEST_MS),
            exit_code=_count(get("exit_code"), most=255),
            endpoint=get("endpoint", ""),
            spec_json=get("spec", "{}"),
            summary={k: v for k, v in raw.items() if k not in _OWN_FIELDS},
        )

    def to_row(self) -> JobRow:
        """Return what `ftq list` and `ftq show` print, as plain data."""
        spec = _readable(dict, self.spec_json) or {}
        row: JobRow = {
            "id": self.id,
            "name": self.name,
            "state": str(self.state),
            "phase": str(self.phase),
            "attempt": self.attempt,
            "model": str(spec.get("model", "")),
            "dataset": str(spec.get("dataset", "")),
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
    if (step := _readable(_whole, summary.get("step"))) is not None:
        row["step"] = step
    if (steps := _readable(_whole, summary.get("steps"))) is not None:
        row["steps"] = steps
    if (loss := _readable(_finite, summary.get("loss"))) is not None:
        row["loss"] = loss
    if (eta_s := _readable(_finite, summary.get("eta_s"))) is not None:
        row["eta_s"] = eta_s
    if url := summary.get("url"):
        row["url"] = url
    if waiting := summary.get("waiting"):
        row["waiting"] = waiting
    if error := _readable(ErrorInfo.from_json, summary.get("error")):
        row["error"] = error.to_json()
    if of := summary.get("replay_of"):
        row["replay_of"] = of
    if (step := _readable(_whole, summary.get("replay_step"))) is not None:
        row["replay_step"] = step


def _readable(read: Callable[[Any], T], text: str | None) -> T | None:
    """Return what `read` makes of JSON; None for nothing, and for what it cannot read."""
    if not text:
        return None
    try:
        return read(json.loads(text))
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        return None


def _whole(value: Any) -> int:
    """Return a count, which may have been written as a float; raises ValueError."""
    return _count(str(int(value)))


def _finite(value: Any) -> float:
    """Raises ValueError for what is not finite, as NaN in JSON."""
    if not math.isfinite(number := float(value)):
        raise ValueError(f"{value} is not finite")
    return number


def _count(text: str | None, most: int = COUNT_MAX) -> int:
    """Return a counter of the record, 0 when it is not there; raises ValueError."""
    if not text:
        return 0
    if not _COUNT.fullmatch(text) or int(text) > most:
        raise ValueError(f"{text[:40]!r} is no number from 0 to {most}")
    return int(text)


def _cards(text: str) -> tuple[str, ...]:
    """Return the ids of a job's cards: as many processes start. Raises ValueError."""
    cards = json.loads(text)
    if not isinstance(cards, list) or len(cards) > CARDS_MAX:
        raise ValueError(f"{text[:60]!r} is no list of up to {CARDS_MAX} GPUs")
    if len(set(map(str, cards))) < len(cards) or not all(keys.is_card(str(c)) for c in cards):
        raise ValueError(f"{text[:60]!r} names what is no GPU, or one twice")
    return tuple(map(str, cards))


def _check_forms(raw: Mapping[str, str], job: str | None) -> None:
    """Raise ValueError when a text that becomes a path, a key or a setting has another form."""
    if not keys.is_job_id(raw["id"]) or job not in (None, raw["id"]):
        raise ValueError(f"its id is {raw['id'][:60]!r}")
    if (token := raw.get("token")) and not keys.is_token(token):
        raise ValueError(f"its token is {token[:60]!r}")
    for name in ("nonce", "host", "instance", "storage_id"):
        if (text := raw.get(name)) and not keys.is_name(text):
            raise ValueError(f"its {name} is {text[:60]!r}")
    if len(raw.get("spec", "")) > SPEC_MAX_BYTES:
        raise ValueError(f"its spec is longer than {SPEC_MAX_BYTES} bytes")
    for name in ("min_vram_gb", "max_runtime_s"):
        _finite(raw.get(name) or 0)


def damaged(job: str, why: object) -> FtqError:
    """Return the error for a record that cannot be read."""
    return FtqError(
        f"the record of {job} is damaged, or of another version: {why!s:.300}",
        code="record_damaged",
        hint="its administrator can look at the key ftq:job:" + job,
    )


def new_record(
    spec: "JobSpec",
    *,
    owner: str,
    endpoint: str,
    inputs: Iterable[InputFile],
    replay: Replay | None = None,
) -> dict[str, str]:
    """Return the fields that a submit writes into the record.

    A replay begins in train, in the storage of the job whose step it repeats.
    """
    record = {
        "v": PLAIN_VERSION,
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
    if replay:
        record |= {
            "v": RECORD_VERSION,
            "name": f"replay of {replay.job} step {replay.step}",
            "phase": Phase.TRAIN,
            "storage_id": replay.storage_id,
            "fresh_after": replay.fresh_after,
            "replay_of": replay.job,
            "replay_step": replay.step,
        }
    return {field: str(value) for field, value in record.items()}


# What the record holds by name; the rest is its summary.
_OWN_FIELDS = frozenset({field.name for field in fields(JobRecord)} | {"v", "spec", "beat"})


def read_record(raw: Mapping[str, str], job: str) -> JobRecord | None:
    """Read one record; one of a newer version or a damaged one is left to others, with a word."""
    try:
        return JobRecord.from_hash(raw, job)
    except (KeyError, ValueError, TypeError, RecursionError) as error:
        extra = {"action": "record_unreadable", "job": job}
        log.warning("record %s is not one of this version: %.300r", job, error, extra=extra)
        return None
