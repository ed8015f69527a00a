"""The `data` of each event type as the view reads it, field by field as in `EVENTS`.

The types say what a worker of this version sends. A newer or a damaged event may lack any field
and hold anything in the others: the view reads with `get`, and shows values through functions that
take every object.
"""

from collections.abc import Mapping
from typing import TypedDict, TypeVar, cast

from ftq_shared.events import Event

T = TypeVar("T")


def read(event: Event, kind: type[T]) -> T:
    """Return what an event carries, as the type of its kind; empty where it is no object."""
    return cast(T, event.data if isinstance(event.data, Mapping) else {})


class State(TypedDict, total=False):
    """The job changed state."""

    state: str
    reason: str
    outcome: str
    exit_code: int
    gpus: list[str]
    next: str


class Waiting(TypedDict, total=False):
    """The job cannot be placed."""

    reason: str
    unblock: str
    position: int


class PhaseStarted(TypedDict, total=False):
    """A child works on a phase."""

    pid: int
    devices: list[str]
    warm: bool


class PhaseFinished(TypedDict, total=False):
    """A phase has done its work."""

    seconds: float


class Resolved(TypedDict, total=False):
    """An `auto` field has its value."""

    field: str
    value: object
    reason: str


class Check(TypedDict, total=False):
    """One validation."""

    name: str
    ok: bool
    message: str
    hint: str
    seconds: float


class Dataset(TypedDict, total=False):
    """What the dataset looks like."""

    rows: int | None
    columns: list[str]
    splits: dict[str, int | None]
    shape: str
    task: str
    labels: int
    tokens: dict[str, int]
    source: str


class Sample(TypedDict, total=False):
    """A row as the model will see it."""

    row: int
    text: str
    trained: str
    label: object
    tokens: int
    set: str


class Cleaning(TypedDict, total=False):
    """What one cleaning rule did."""

    rule: str
    rows_in: int
    rows_out: int
    examples: list[dict[str, object]]
    reason: str


class Golden(TypedDict, total=False):
    """The golden set."""

    rows: int
    source: str
    sha256: str
    reason: str
    strata: dict[str, int]
    validation_rows: int
    removed_from_train: int


class Progress(TypedDict, total=False):
    """How far a piece of work has come."""

    task: str
    done: float
    unit: str
    total: float | None


class Step(TypedDict, total=False):
    """One optimizer step; None stands for a number that was not finite."""

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
    """The scores on a held-out set; None stands for a number that was not finite."""

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
    """What an exact resume needs is on disk."""

    step: int
    path: str
    bytes: int
    seconds: float
    best: bool


class Resumed(TypedDict, total=False):
    """Training goes on from a checkpoint."""

    step: int
    path: str
    reason: str


class Guard(TypedDict, total=False):
    """A guard acted."""

    name: str
    message: str
    action: str


class Verification(TypedDict, total=False):
    """The saved or pushed model was checked."""

    name: str
    ok: bool
    message: str
    before: object
    after: object


class Published(TypedDict, total=False):
    """The model is on the Hub."""

    repo: str
    revision: str
    url: str
    private: bool
    files: int


class Log(TypedDict, total=False):
    """A line that the phase's process printed."""

    line: str
    stream: str


class Warning(TypedDict, total=False):
    """Something to know that does not stop the job."""

    message: str
    hint: str
    code: str


class Error(TypedDict, total=False):
    """What ended the phase."""

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
    """Older events are no longer held one by one."""

    first: int
    last: int
    kept: int
