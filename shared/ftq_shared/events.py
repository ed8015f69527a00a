"""The closed set of events: what a job tells its watchers, and what each field means.

One event is one JSON object. `seq` counts 1, 2, 3 ... per job without a hole. `EVENTS` documents
every type and field; docs/events.md is checked against it, and `make_body` refuses what it does
not name, so an undocumented event cannot be sent.
"""

import json
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from ftq_shared.states import Phase

SCHEMA_VERSION = 1

# What an event carries. EVENTS documents the fields of each type; an event of a newer worker, or a
# damaged one, may lack any and hold any value: a reader takes what it finds.
Data = Mapping[str, object]


class EventType(StrEnum):
    """Every type of event; `EVENTS` says what each one carries."""

    STATE = "state"
    WAITING = "waiting"
    PHASE_STARTED = "phase_started"
    PHASE_FINISHED = "phase_finished"
    RESOLVED = "resolved"
    CHECK = "check"
    DATASET = "dataset"
    SAMPLE = "sample"
    CLEANING = "cleaning"
    GOLDEN = "golden"
    PROGRESS = "progress"
    STEP = "step"
    EVAL = "eval"
    CHECKPOINT = "checkpoint"
    RESUMED = "resumed"
    REPLAY_ROW = "replay_row"
    REPLAYED = "replayed"
    MEMORY = "memory"
    GUARD = "guard"
    VERIFICATION = "verification"
    PUBLISHED = "published"
    LOG = "log"
    WARNING = "warning"
    ERROR = "error"
    TRUNCATED = "truncated"


@dataclass(frozen=True)
class EventSpec:
    """What one event type means: a sentence, and one line for every field of its `data`."""

    meaning: str
    required: dict[str, str]
    optional: dict[str, str] = field(default_factory=dict)

    @property
    def fields(self) -> dict[str, str]:
        return self.required | self.optional


_METRICS = {
    "loss": "mean loss per trained token (or per example, for classification)",
    "accuracy": "share of correct labels, 0 to 1; classification only",
    "tokens_accuracy": "share of trained tokens predicted right, 0 to 1",
    "loss_low": "lower end of the 95 % confidence interval of the loss, where the rows show one",
    "loss_high": "upper end of the 95 % confidence interval of the loss",
    "accuracy_low": "lower end of the 95 % Wilson interval of the accuracy",
    "accuracy_high": "upper end of the 95 % Wilson interval of the accuracy",
    "f1_macro": "mean F1 over the labels, 0 to 1; classification only",
    "gain": "how much lower the loss is than at the best evaluation before, on the same rows",
    "gain_low": "lower end of the gain's 95 % confidence interval; the rows are paired",
    "rows": "rows that were scored",
    "seconds": "time it took",
}

EVENTS: dict[EventType, EventSpec] = {
    EventType.STATE: EventSpec(
        "The job changed state.",
        {"state": "the new state"},
        {
            "reason": "why, in words, where it is not the usual way",
            "outcome": "on a terminal state: succeeded, failed or cancelled",
            "exit_code": "on a terminal state: what `ftq tail` exits with",
            "gpus": "the GPU ids that were given to the phase",
            "next": "the phase that follows",
        },
    ),
    EventType.WAITING: EventSpec(
        "The job cannot be placed at the moment.",
        {"reason": "what is missing", "unblock": "what would let it go on"},
        {"position": "place in the queue, 1 is next"},
    ),
    EventType.PHASE_STARTED: EventSpec(
        "A child process has begun to work on a phase.",
        {"pid": "process id on the host"},
        {"devices": "devices the phase may use", "warm": "true when forked from a warm zygote"},
    ),
    EventType.PHASE_FINISHED: EventSpec(
        "A phase has done its work.", {"seconds": "time since the phase started"}
    ),
    EventType.RESOLVED: EventSpec(
        "A field that was `auto` now has its value.",
        {
            "field": "dotted name in the spec",
            "value": "the value that is used",
            "reason": "the rule and the facts behind it",
        },
    ),
    EventType.CHECK: EventSpec(
        "The result of one validation.",
        {
            "name": "what was looked at",
            "ok": "true, or false when the job is refused for it",
            "message": "what was found",
        },
        {"hint": "what to do, where it failed", "seconds": "time it took"},
    ),
    EventType.DATASET: EventSpec(
        "What the dataset looks like.",
        {"rows": "rows in the split that is used, null while unknown", "columns": "column names"},
        {
            "splits": "rows per split, null while unknown",
            "shape": "how the columns were understood, for example question/answer",
            "task": "the task that follows from them",
            "labels": "number of labels, for classification",
            "tokens": "percentiles of the row length in tokens: p50, p90, p99, max",
            "source": "where it was read from",
        },
    ),
    EventType.SAMPLE: EventSpec(
        "A row to look at, as the model will see it.",
        {"row": "index in the source split", "text": "the rendered row, cut to 2,000 characters"},
        {
            "trained": "the part of the text that the loss counts",
            "label": "its label, for classification",
            "tokens": "length in tokens",
            "set": "train, validation or golden",
        },
    ),
    EventType.CLEANING: EventSpec(
        "What one cleaning rule did.",
        {"rule": "name of the rule", "rows_in": "rows before it", "rows_out": "rows after it"},
        {
            "examples": "up to three findings: file, row, field, what was wrong",
            "reason": "why the rule is there",
        },
    ),
    EventType.GOLDEN: EventSpec(
        "The golden set is chosen and frozen: it judges the model, before and after.",
        {
            "rows": "its size",
            "source": "the split it was taken from",
            "sha256": "hash of its texts, in order",
            "reason": "how size and rows were chosen",
        },
        {
            "strata": "rows per stratum (label, or length bucket)",
            "validation_rows": "size of the validation set that was chosen beside it",
            "train_rows": "size of the training set that is left",
            "removed_from_train": "training rows that were equal to one of them",
        },
    ),
    EventType.PROGRESS: EventSpec(
        "How far a piece of work has come.",
        {"task": "what is being done", "done": "units done", "unit": "rows, bytes, files ..."},
        {"total": "units in all, null while unknown"},
    ),
    EventType.STEP: EventSpec(
        "One optimizer step.",
        {
            "step": "its number, from 1",
            "steps": "steps in all",
            "epoch": "epochs done, as a fraction",
            "loss": "mean training loss of this step; null when not finite, or when all its rows"
            " are left out by name",
            "lr": "learning rate that was used",
        },
        {
            "grad_norm": "norm of the gradient before clipping, null when not finite",
            "tokens_per_s": "tokens per second over the recent steps, padding not counted",
            "examples_per_s": "examples per second over the recent steps",
            "tokens_accuracy": "share of trained tokens predicted right in this step",
            "step_s": "seconds that this step took",
            "eta_s": "seconds until training ends, from recent steps, evaluations and saves;"
            " 0 at the last step",
            "nonfinite": "names of the fields that were not finite numbers",
        },
    ),
    EventType.EVAL: EventSpec(
        "The model was scored on a held-out set.",
        {"set": "validation or golden", "when": "before, during or after training"},
        {"step": "the optimizer step", "best": "true when it is clearly better than all before"}
        | _METRICS,
    ),
    EventType.CHECKPOINT: EventSpec(
        "Everything that an exact resume needs is on disk.",
        {"step": "the optimizer step", "path": "directory, relative to the job's folder"},
        {"bytes": "size on disk", "seconds": "time the save took", "best": "true when best so far"},
    ),
    EventType.RESUMED: EventSpec(
        "Training goes on from a checkpoint; steps after it are computed again.",
        {"step": "the step of the checkpoint"},
        {"path": "directory of the checkpoint", "reason": "why there was an interruption"},
    ),
    EventType.REPLAY_ROW: EventSpec(
        "A row of a step that is replayed; those with the highest loss come first.",
        {
            "step": "the replayed step",
            "tokens": "length in tokens",
            "text": "its beginning and end",
        },
        {
            "file": "the file it came from; absent where an older version has prepared it",
            "row": "position in its split, counted from 0",
            "line": "the line of the file, counted from 1",
            "trained": "tokens that the loss counts",
            "label": "its label, for classification",
            "loss": "its own mean loss before the step, without dropout",
            "grad_norm": "norm of the gradient of that loss",
            "nonfinite": "names of the fields that were not finite numbers",
        },
    ),
    EventType.REPLAYED: EventSpec(
        "A step of another job was repeated, with that job's files and settings.",
        {
            "job": "the other job",
            "step": "its step",
            "rows": "rows of the step that were trained",
            "loss": "loss of the repeated step, null when not finite",
            "recorded_loss": "loss of the step when the job trained it, null when not finite",
            "equal": "whether loss and gradient norm are the recorded ones, to the last digit",
        },
        {
            "grad_norm": "norm of the gradient of the repeated step, before clipping",
            "recorded_grad_norm": "the same when the job trained it",
            "lr": "learning rate of the step",
            "after_step": "the step of the checkpoint that it began from; 0: the base model",
            "repeated": "steps that were repeated on the way",
            "trained": "how often the job has trained this step; the last time counts",
            "ended": "how the other job has ended: succeeded, failed or cancelled",
            "nonfinite": "names of the fields that were not finite numbers",
        },
    ),
    EventType.MEMORY: EventSpec(
        "What the first steps held of a GPU's memory, beside what was counted before.",
        {
            "peak_bytes": "the most that tensors held at once",
            "card_bytes": "memory of the card",
        },
        {
            "counted_bytes": "what was counted of tensors, where it could be",
            "reserved_bytes": "the most that torch's allocator took for them",
            "step": "the step after which it was measured",
        },
    ),
    EventType.GUARD: EventSpec(
        "A guard acted: memory ran out, a loss diverged, too slow on the CPU, no gain any more.",
        {"name": "which guard", "message": "what it saw", "action": "what it did"},
    ),
    EventType.VERIFICATION: EventSpec(
        "The saved or pushed model was checked.",
        {"name": "what was checked", "ok": "the result", "message": "what was found"},
        {
            "before": "figure to compare with: the base model's, or what training measured",
            "after": "figure of the saved model",
        },
    ),
    EventType.PUBLISHED: EventSpec(
        "The model is on the Hub.",
        {"repo": "its id", "revision": "the commit", "url": "where to look at it"},
        {"private": "whether only its owners see it", "files": "number of files"},
    ),
    EventType.LOG: EventSpec(
        "A line that the phase's process printed.",
        {"line": "the text, control characters escaped, cut to 2,000 characters"},
        {"stream": "stdout or stderr"},
    ),
    EventType.WARNING: EventSpec(
        "Something to know that does not stop the job.",
        {"message": "what was found"},
        {"hint": "what to do about it", "code": "stable name, for programs"},
    ),
    EventType.ERROR: EventSpec(
        "What ended the phase.",
        {"code": "stable name, for programs", "message": "what was found"},
        {
            "hint": "what to do about it",
            "exit_code": "what `ftq tail` exits with",
            "file": "the file it was found in",
            "row": "the row, counted from 0",
            "line": "the line of the file, counted from 1",
            "field": "the field",
            "step": "the optimizer step",
            "nearest": "names that come near the one that was not found",
            "traceback": "for an unexpected error: where it was raised",
        },
    ),
    EventType.TRUNCATED: EventSpec(
        "Older events are no longer held one by one; made by the reader, never stored.",
        {"first": "first missing seq", "last": "last missing seq"},
        {"kept": "how many of the range follow as milestones"},
    ),
}

# Types that are dropped first when a job's log grows beyond its limit: everything else stays.
BULK_TYPES = frozenset({EventType.STEP, EventType.PROGRESS, EventType.LOG})


@dataclass(frozen=True)
class Event:
    """One event as a reader gets it. `seq` 0 means that the broker has not numbered it yet."""

    job: str
    seq: int
    attempt: int
    host: str
    time: str  # RFC 3339, UTC, milliseconds
    phase: Phase | None
    type: EventType
    data: Mapping[str, Any]  # the fields that EVENTS documents for the type; read it as Data

    def to_json(self) -> str:
        """Return the event as one line of JSON, without the line's end."""
        return _line({"v": SCHEMA_VERSION, **vars(self)})

    @classmethod
    def from_json(cls, line: str | bytes) -> "Event":
        """Read one event; a field of the wrong kind is as if it were not there.

        Raises ValueError when it is no event at all, or of an unknown type.
        """
        try:
            raw = json.loads(line, parse_float=_finite_float, parse_int=_int, parse_constant=_none)
        except RecursionError as error:
            raise ValueError("nested too deeply") from error
        if not isinstance(raw, dict) or not isinstance(raw.get("job"), str):
            raise ValueError("no JSON object with a job")
        data = _shallow(raw.get("data"))
        return cls(
            job=raw["job"],
            seq=_number(raw.get("seq")),
            attempt=_number(raw.get("attempt")),
            host=_text(raw.get("host")),
            time=_text(raw.get("time")),
            phase=Phase(raw["phase"]) if raw.get("phase") in _PHASES else None,
            type=EventType(_text(raw.get("type"))),
            # Lua's cjson cannot tell an empty object from an empty list.
            data=data if isinstance(data, dict) else {},
        )


_PHASES = [str(phase) for phase in Phase]  # a list: what is looked up may be unhashable
_DEPTH = 8  # levels that a field may have; no field that we know has more than three


def _finite_float(text: str) -> float | None:
    value = float(text)
    return value if math.isfinite(value) else None  # 1e999


def _int(text: str) -> int | None:
    return int(text) if len(text) < 300 else None  # a longer one is beyond any float


def _none(_: str) -> None:
    """Read NaN and Infinity, which are no JSON."""


def _number(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else 0


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _shallow(value: object, depth: int = 0) -> object:
    """Return JSON data with null for what is nested deeper than any reader can follow."""
    if not isinstance(value, dict | list):
        return value
    if depth > _DEPTH:
        return None
    if isinstance(value, list):
        return [_shallow(item, depth + 1) for item in value]
    return {key: _shallow(item, depth + 1) for key, item in value.items()}


def rfc3339(unix_s: float) -> str:
    """Return a time as events carry it: RFC 3339, UTC, milliseconds."""
    moment = datetime.fromtimestamp(unix_s, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def utc_now() -> str:
    """Return the present time as events carry it."""
    return rfc3339(time.time())


def finite(data: Mapping[str, object]) -> Mapping[str, object]:
    """Return `data` with every non-finite number as None, named in `nonfinite`."""
    bad = [k for k, v in data.items() if isinstance(v, float) and not math.isfinite(v)]
    if not bad:
        return data
    return {**data, **dict.fromkeys(bad), "nonfinite": bad}


def make_body(
    type_: EventType, data: Mapping[str, object], *, attempt: int, host: str, phase: Phase | None
) -> str:
    """Return an event's JSON without `v`, `job` and `seq`, which the append script adds.

    Raises ValueError when a field is missing or not documented in `EVENTS`.
    """
    spec = EVENTS[type_]
    data = finite(data)
    missing = spec.required.keys() - data.keys()
    unknown = data.keys() - spec.fields.keys() - {"nonfinite"}
    if missing or unknown:
        raise ValueError(f"event {type_}: missing {sorted(missing)}, unknown {sorted(unknown)}")
    return _line(
        {
            "attempt": attempt,
            "host": host,
            "time": utc_now(),
            "phase": phase,
            "type": type_,
            "data": data,
        }
    )


def _line(fields: Mapping[str, object]) -> str:
    return json.dumps(fields, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
