"""What a screen needs to know of one job: a reducer over its events, free of any terminal.

`JobView.apply` never raises for an event that `Event.from_json` accepts, whatever its fields
hold: a newer worker, or an odd value, must not end somebody's `ftq tail`.
"""

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from ftq_client.view.format import number, seconds_of
from ftq_client.view.series import Series
from ftq_shared.events import Event, EventType
from ftq_shared.states import JobState, Phase

KEPT = 500  # evaluations, and entries of each table: bounded, whatever a job sends


class Mark(StrEnum):
    """How far a phase has come."""

    PENDING = "pending"  # not yet its turn
    CURRENT = "current"  # a child works on it
    DONE = "done"  # finished
    FAILED = "failed"  # the job ended in it


@dataclass
class PhaseMark:
    """One phase on the phase line."""

    mark: Mark = Mark.PENDING
    started: float | None = None  # seconds since 1970, by the events' own clock
    seconds: float | None = None  # how long it took, once it is done


@dataclass
class Task:
    """A piece of work with a progress bar."""

    name: str
    unit: str
    done: float
    total: float | None
    started: float  # when it was first heard of, and how much was done then
    base: float
    updated: float

    @property
    def finished(self) -> bool:
        """Return whether nothing is left to do."""
        return self.total is not None and self.done >= self.total

    @property
    def rate(self) -> float | None:
        """Return units per second since it was first heard of, None before that can be told."""
        passed = self.updated - self.started
        return (self.done - self.base) / passed if passed > 0 and self.done > self.base else None

    @property
    def eta_s(self) -> float | None:
        """Return the seconds that are left at this rate, None while unknown."""
        rate = self.rate
        return (self.total - self.done) / rate if rate and self.total is not None else None


@dataclass
class JobView:
    """One job as its events tell it; `apply` takes them in order."""

    job: str
    name: str = ""
    seq: int = 0
    attempt: int = 0
    host: str = ""
    phase: Phase | None = None
    state: JobState | None = None
    started: float | None = None  # time of the first event and of the latest
    updated: float = 0.0
    phases: dict[Phase, PhaseMark] = field(default_factory=lambda: {p: PhaseMark() for p in Phase})
    gpus: list[Any] = field(default_factory=list)
    waiting: dict[str, Any] = field(default_factory=dict)  # empty unless it waits
    checks: dict[str, dict[str, Any]] = field(default_factory=dict)  # by name
    tasks: dict[str, Task] = field(default_factory=dict)  # of the phase that runs, by name
    dataset: dict[str, Any] = field(default_factory=dict)
    cleaning: dict[str, dict[str, Any]] = field(default_factory=dict)  # by rule
    idle_rules: int = 0  # of the cleaning that goes on: rules that found nothing
    golden: dict[str, Any] = field(default_factory=dict)
    resolved: dict[str, dict[str, Any]] = field(default_factory=dict)  # by field
    step: dict[str, Any] = field(default_factory=dict)  # the latest step
    losses: Series = field(default_factory=Series)
    evals: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=KEPT))
    before: dict[str, Any] = field(default_factory=dict)  # the golden scores
    after: dict[str, Any] = field(default_factory=dict)
    checkpoint: dict[str, Any] = field(default_factory=dict)  # the latest
    verifications: dict[str, dict[str, Any]] = field(default_factory=dict)  # by name
    published: dict[str, Any] = field(default_factory=dict)
    error: dict[str, Any] = field(default_factory=dict)
    warnings: int = 0
    reason: str = ""  # why it ended, where that is said
    exit_code: int | None = None  # of a job that ended

    def apply(self, event: Event) -> None:
        """Take in one event."""
        self.seq = max(self.seq, event.seq)
        self.updated = max(self.updated, seconds_of(event.time))
        if self.started is None:
            self.started = self.updated
        self.attempt = event.attempt or self.attempt
        self.host = event.host or self.host
        self.phase = event.phase or self.phase
        data = event.data if isinstance(event.data, Mapping) else {}
        if event.type is not EventType.CLEANING:
            self.idle_rules = 0
        if handler := _HANDLERS.get(event.type):
            handler(self, dict(data), event)

    @property
    def terminal(self) -> bool:
        """Return whether the job has ended."""
        return self.state is not None and self.state.terminal

    @property
    def mark(self) -> PhaseMark | None:
        """Return the mark of the phase that the job is in, None before the first."""
        return self.phases[self.phase] if self.phase else None


Handler = Callable[[JobView, dict[str, Any], Event], None]


def _state(view: JobView, data: dict[str, Any], event: Event) -> None:
    try:
        view.state = JobState(data.get("state", ""))
    except ValueError:  # a state of a newer version: shown as a line, not understood
        return
    if view.state is not JobState.QUEUED:
        view.waiting = {}
    if view.state.terminal:
        _ended(view, data)
        return
    view.error, view.reason, view.exit_code = {}, "", None
    gpus = data.get("gpus")
    view.gpus = gpus if isinstance(gpus, list) else view.gpus
    if view.state is JobState.QUEUED and (mark := view.mark) and mark.mark is not Mark.DONE:
        mark.mark = Mark.PENDING  # interrupted, or asked to try again
        view.tasks = {}


def _ended(view: JobView, data: dict[str, Any]) -> None:
    view.reason = str(data.get("reason") or "")
    code = number(data.get("exit_code"))
    view.exit_code = None if code is None else int(code)
    view.tasks = {}
    for mark in view.phases.values():
        if view.state is JobState.SUCCEEDED:
            mark.mark = Mark.DONE
        elif mark.mark is Mark.CURRENT:
            mark.mark = Mark.FAILED
    current = view.mark
    if view.state is not JobState.SUCCEEDED and current and current.mark is Mark.PENDING:
        current.mark = Mark.FAILED


def _phase_started(view: JobView, data: dict[str, Any], event: Event) -> None:
    view.tasks, view.waiting = {}, {}
    if event.phase is None:
        return
    order = list(Phase)
    at = order.index(event.phase)
    # A late tail may not have the older phases' events: what lies before is done.
    for phase in order[:at]:
        view.phases[phase].mark = Mark.DONE
    view.phases[event.phase] = PhaseMark(Mark.CURRENT, started=view.updated)
    for phase in order[at + 1 :]:
        view.phases[phase] = PhaseMark()


def _phase_finished(view: JobView, data: dict[str, Any], event: Event) -> None:
    view.tasks = {}
    if event.phase:
        mark = view.phases[event.phase]
        mark.mark, mark.seconds = Mark.DONE, number(data.get("seconds"))


def _progress(view: JobView, data: dict[str, Any], event: Event) -> None:
    name, done = str(data.get("task")), number(data.get("done")) or 0.0
    unit, total = str(data.get("unit") or ""), number(data.get("total"))
    task = view.tasks.get(name)
    # Less done than before means that it began again.
    if task is None or done < task.done:
        if len(view.tasks) >= KEPT:
            view.tasks.pop(next(iter(view.tasks)))
        view.tasks[name] = Task(name, unit, done, total, view.updated, done, view.updated)
        return
    task.unit, task.done, task.total, task.updated = unit, done, total, view.updated


def _step(view: JobView, data: dict[str, Any], event: Event) -> None:
    view.step = data
    at = number(data.get("step"))
    if at is not None:
        view.losses.add(int(at), data.get("loss"))


def _resumed(view: JobView, data: dict[str, Any], event: Event) -> None:
    at = number(data.get("step"))
    if at is not None:
        view.losses.rewind(int(at))


def _eval(view: JobView, data: dict[str, Any], event: Event) -> None:
    view.evals.append(data)
    if data.get("set") == "golden" and data.get("when") == "before":
        view.before = data
    elif data.get("set") == "golden" and data.get("when") == "after":
        view.after = data


def _cleaning(view: JobView, data: dict[str, Any], event: Event) -> None:
    _table("cleaning", "rule")(view, data, event)
    rows = number(data.get("rows_in"))
    # A rule that changes rows and drops none has examples of what it found.
    if rows is not None and rows == number(data.get("rows_out")) and not data.get("examples"):
        view.idle_rules += 1


def _warning(view: JobView, data: dict[str, Any], event: Event) -> None:
    view.warnings += 1


def _keep(attribute: str) -> Handler:
    """Return a handler that keeps the latest data under `attribute`."""

    def handle(view: JobView, data: dict[str, Any], event: Event) -> None:
        setattr(view, attribute, data)

    return handle


def _table(attribute: str, key: str) -> Handler:
    """Return a handler that keeps the data in a table, by what its field `key` holds."""

    def handle(view: JobView, data: dict[str, Any], event: Event) -> None:
        table: dict[str, dict[str, Any]] = getattr(view, attribute)
        name = str(data.get(key))
        if name in table or len(table) < KEPT:
            table[name] = data

    return handle


_HANDLERS: dict[EventType, Handler] = {
    EventType.STATE: _state,
    EventType.WAITING: _keep("waiting"),
    EventType.PHASE_STARTED: _phase_started,
    EventType.PHASE_FINISHED: _phase_finished,
    EventType.RESOLVED: _table("resolved", "field"),
    EventType.CHECK: _table("checks", "name"),
    EventType.DATASET: _keep("dataset"),
    EventType.CLEANING: _cleaning,
    EventType.GOLDEN: _keep("golden"),
    EventType.PROGRESS: _progress,
    EventType.STEP: _step,
    EventType.EVAL: _eval,
    EventType.CHECKPOINT: _keep("checkpoint"),
    EventType.RESUMED: _resumed,
    EventType.VERIFICATION: _table("verifications", "name"),
    EventType.PUBLISHED: _keep("published"),
    EventType.WARNING: _warning,
    EventType.ERROR: _keep("error"),
}
