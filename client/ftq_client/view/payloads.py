# ruff: noqa: D101  `EVENTS` says what each type and field means
"""The `data` of each event type, field by field as `EVENTS` documents it.

The types say what a worker of this version sends. An event of a newer worker, or a damaged one, may
lack any field and hold any value: so the view reads fields with `get`, and shows them through
functions that take every object.
"""

from collections.abc import Mapping
from typing import TypedDict, TypeVar, cast

from ftq_shared.events import Event

T = TypeVar("T")


def read(event: Event, kind: type[T]) -> T:
    """Return an event's data as `kind`, the class of its type; empty where it is no object."""
    return cast(T, event.data if isinstance(event.data, Mapping) else {})


class State(TypedDict, total=False):
    state: str
    reason: str
    outcome: str
    exit_code: int
    gpus: list[str]
    next: str


class Waiting(TypedDict, total=False):
    reason: str
    unblock: str
    position: int


class PhaseStarted(TypedDict, total=False):
    pid: int
    devices: list[str]
    warm: bool


class PhaseFinished(TypedDict, total=False):
    seconds: float


class Resolved(TypedDict, total=False):
    field: str
    value: object
    reason: str


class Check(TypedDict, total=False):
    name: str
    ok: bool
    message: str
    hint: str
    seconds: float


class Dataset(TypedDict, total=False):
    rows: int | None
    columns: list[str]
    splits: dict[str, int | None]
    shape: str
    task: str
    labels: int
    tokens: dict[str, int]
    source: str


class Sample(TypedDict, total=False):
    row: int
    text: str
    trained: str
    label: object
    tokens: int
    set: str


class Cleaning(TypedDict, total=False):
    rule: str
    rows_in: int
    rows_out: int
    examples: list[dict[str, object]]
    reason: str


class Golden(TypedDict, total=False):
    rows: int
    source: str
    sha256: str
    reason: str
    strata: dict[str, int]
    validation_rows: int
    removed_from_train: int


class Progress(TypedDict, total=False):
    task: str
    done: float
    unit: str
    total: float | None


class Step(TypedDict, total=False):
    step: int
    steps: int
    epoch: float
    loss: float | None
    lr: float
    grad_norm: float | None
    tokens_per_s: float
    examples_per_s: float
    tokens_accuracy: float
    step_s: float
    eta_s: float
    nonfinite: list[str]


class Eval(TypedDict, total=False):
    set: str
    when: str
    step: int
    best: bool
    loss: float | None
    accuracy: float | None
    tokens_accuracy: float | None
    loss_low: float | None
    loss_high: float | None
    accuracy_low: float | None
    accuracy_high: float | None
    f1_macro: float | None
    rows: int
    seconds: float


class Checkpoint(TypedDict, total=False):
    step: int
    path: str
    bytes: int
    seconds: float
    best: bool


class Resumed(TypedDict, total=False):
    step: int
    path: str
    reason: str


class Guard(TypedDict, total=False):
    name: str
    message: str
    action: str


class Verification(TypedDict, total=False):
    name: str
    ok: bool
    message: str
    before: object
    after: object


class Published(TypedDict, total=False):
    repo: str
    revision: str
    url: str
    private: bool
    files: int


class Log(TypedDict, total=False):
    line: str
    stream: str


class Warning(TypedDict, total=False):
    message: str
    hint: str
    code: str


class Error(TypedDict, total=False):
    code: str
    message: str
    hint: str
    exit_code: int
    file: str
    row: int
    line: int
    field: str
    step: int
    nearest: list[str]
    traceback: str


class Truncated(TypedDict, total=False):
    first: int
    last: int
    kept: int
