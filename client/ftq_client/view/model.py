"""The state of one job as a screen shows it: a reducer over the job's events.

`JobView.apply` never raises for an event that `Event.from_json` accepts, whatever its fields
hold: an event of a newer worker, or a damaged one, must not end somebody's `ftq tail`.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import StrEnum

from ftq_client.view.format import number, seconds_of
from ftq_shared.events import Data, Event, EventType
from ftq_shared.states import JobState, Phase

KEPT_TASKS = 500  # of one job, so that no job can fill the memory
KEPT_POINTS = 2000  # of one series
KEPT_WARNINGS = 19


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
class ProgressTask:
    """A piece of work with a progress bar."""

    name: str
    unit: str
    done: float
    total: float | None
    started: float  # time of its first event
    base: float  # units that were done at that time
    updated: float  # time of its latest event

    @property
    def finished(self) -> bool:
        return self.total is not None and self.done >= self.total

    @property
    def rate(self) -> float | None:
        """Return units per second since the first event, None while nothing was done since."""
        passed = self.updated - self.started
        return (self.done - self.base) / passed if passed > 0 and self.done > self.base else None

    @property
    def eta_s(self) -> float | None:
        """Return the seconds that are left at this rate, None without a rate or a total."""
        rate = self.rate
        return (self.total - self.done) / rate if rate and self.total is not None else None


class Series:
    """The (step, value) points of a curve; beyond the limit every second point is dropped."""

    def __init__(self, limit: int = KEPT_POINTS) -> None:
        self.limit = limit
        self.points: list[tuple[int, float | None]] = []
        self.stride = 1  # steps between two points that are kept
        self.low: float | None = None  # the lowest finite value, dropped points included

    def add(self, step: int, value: object) -> None:
        """Add one step's value; anything but a finite number becomes a hole (None)."""
        known = number(value)
        if self.points and step <= self.points[-1][0]:
            self.rewind(step - 1)
        if known is not None and (self.low is None or known < self.low):
            self.low = known
        # People look at the curve for holes: one is kept wherever it comes.
        if not self.points or known is None or step - self.points[-1][0] >= self.stride:
            self.points.append((step, known))
        if len(self.points) > self.limit:
            self.points = self.points[::2]
            self.stride *= 2

    def rewind(self, step: int) -> None:
        """Drop the points after `step`: training computes these steps again."""
        while self.points and self.points[-1][0] > step:
            self.points.pop()

    @property
    def values(self) -> list[float | None]:
        return [value for _, value in self.points]


@dataclass
class JobView:
    """One job as a screen shows it; `apply` takes its events in order."""

    job: str
    name: str = ""
    attempt: int = 0
    host: str = ""
    phase: Phase | None = None
    state: JobState | None = None
    started: float | None = None  # time of the first event, in seconds since 1970
    updated: float = 0.0  # time of the latest event
    phases: dict[Phase, PhaseMark] = field(default_factory=lambda: {p: PhaseMark() for p in Phase})
    waiting: Data = field(default_factory=dict)  # empty unless it waits
    tasks: dict[str, ProgressTask] = field(default_factory=dict)  # of the current phase, by name
    doing: str = ""  # work of the current phase that cannot be counted
    doing_since: float = 0.0  # time
    idle_rules: int = 0  # cleaning rules that found nothing, until another event comes
    step: Data = field(default_factory=dict)  # the latest step
    losses: Series = field(default_factory=Series)
    validation: Data = field(default_factory=dict)  # the latest that has a loss
    before: Data = field(default_factory=dict)  # the golden set's scores
    after: Data = field(default_factory=dict)
    checkpoint: Data = field(default_factory=dict)  # the latest
    memory: Data = field(default_factory=dict)  # the latest measurement of a card
    published: Data = field(default_factory=dict)
    replayed: Data = field(default_factory=dict)  # what a replay has found of its step
    error: Data = field(default_factory=dict)
    resolved: dict[str, Data] = field(default_factory=dict)  # what `auto` came to, by field
    warnings: list[Data] = field(default_factory=list)  # the newest
    reason: str = ""  # why it ended, where its last state gives a reason

    def apply(self, event: Event) -> None:
        self.updated = max(self.updated, seconds_of(event.time))
        if self.started is None and self.updated:
            self.started = self.updated
        self.attempt = event.attempt or self.attempt
        self.host = event.host or self.host
        self.phase = event.phase or self.phase
        if event.type is not EventType.CLEANING:
            self.idle_rules = 0
        if event.type not in _BESIDE_WORK:
            self.doing = ""
        match event.type:
            case EventType.WAITING:
                self.waiting = event.data
            case EventType.CHECKPOINT:
                self.checkpoint = event.data
            case EventType.PUBLISHED:
                self.published = event.data
            case EventType.ERROR:
                self.error = event.data
            case EventType.RESOLVED:
                if len(self.resolved) < KEPT_TASKS:
                    self.resolved[str(event.data.get("field"))] = event.data
            case EventType.WARNING:
                self.warnings = [*self.warnings[-KEPT_WARNINGS:], event.data]
        if handler := _HANDLERS.get(event.type):
            handler(self, event)

    @property
    def terminal(self) -> bool:
        return self.state is not None and self.state.terminal

    @property
    def mark(self) -> PhaseMark | None:
        """Return the mark of the phase that the job is in, None before the first."""
        return self.phases[self.phase] if self.phase else None


# Events that come while uncounted work goes on.
_BESIDE_WORK = {EventType.RESOLVED, EventType.LOG, EventType.WARNING}


def view_of(job: str, name: str, events: Iterable[Event]) -> JobView:
    """Return what a job's events so far have told."""
    view = JobView(job, name)
    for event in events:
        view.apply(event)
    return view


def _state(view: JobView, event: Event) -> None:
    data = event.data
    try:
        view.state = JobState(str(data.get("state")))
    except ValueError:  # a state of a newer version: shown as a line, not understood
        return
    if view.state is not JobState.QUEUED:
        view.waiting = {}
    if view.state.terminal:
        view.reason = str(data.get("reason") or "")
        _end(view)
        return
    view.error, view.reason = {}, ""
    if view.state is JobState.QUEUED and (mark := view.mark) and mark.mark is not Mark.DONE:
        mark.mark = Mark.PENDING  # interrupted, or retried
        view.tasks = {}


def _end(view: JobView) -> None:
    view.tasks = {}
    for mark in view.phases.values():
        if view.state is JobState.SUCCEEDED:
            mark.mark = Mark.DONE
        elif mark.mark is Mark.CURRENT:
            mark.mark = Mark.FAILED
    current = view.mark
    if view.state is not JobState.SUCCEEDED and current and current.mark is Mark.PENDING:
        current.mark = Mark.FAILED


def _phase_started(view: JobView, event: Event) -> None:
    view.tasks, view.waiting = {}, {}
    if event.phase is None:
        return
    order = list(Phase)
    at = order.index(event.phase)
    # A tail that starts late may lack the earlier phases' events: those phases are done.
    for phase in order[:at]:
        view.phases[phase].mark = Mark.DONE
    view.phases[event.phase] = PhaseMark(Mark.CURRENT, started=view.updated)
    for phase in order[at + 1 :]:
        view.phases[phase] = PhaseMark()


def _phase_finished(view: JobView, event: Event) -> None:
    view.tasks = {}
    if event.phase:
        seconds = event.data.get("seconds")
        mark = view.phases[event.phase]
        mark.mark, mark.seconds = Mark.DONE, number(seconds)


def _cleaning(view: JobView, event: Event) -> None:
    data = event.data
    rows = number(data.get("rows_in"))
    # A rule that changes rows and drops none has examples of what it found.
    if rows is not None and rows == number(data.get("rows_out")) and not data.get("examples"):
        view.idle_rules += 1


def _progress(view: JobView, event: Event) -> None:
    data = event.data
    name, done = str(data.get("task")), number(data.get("done")) or 0.0
    unit, total = str(data.get("unit") or ""), number(data.get("total"))
    if unit == "s" and total is None:
        view.doing, view.doing_since = name, view.updated - done
        return
    task = view.tasks.get(name)
    # Less done than before means that it began again.
    if task is None or done < task.done:
        if len(view.tasks) >= KEPT_TASKS:
            view.tasks.pop(next(iter(view.tasks)))
        view.tasks[name] = ProgressTask(name, unit, done, total, view.updated, done, view.updated)
        return
    task.unit, task.done, task.total, task.updated = unit, done, total, view.updated


def _step(view: JobView, event: Event) -> None:
    view.step = event.data
    at = number(view.step.get("step"))
    if at is not None:
        view.losses.add(int(at), view.step.get("loss"))


def _eval(view: JobView, event: Event) -> None:
    data = event.data
    match data.get("set"), data.get("when"):
        case "validation", _ if data.get("loss") is not None:
            view.validation = data
        case "golden", "before":
            view.before = data
        case "golden", "after":
            view.after = data


def _memory(view: JobView, event: Event) -> None:
    view.memory = event.data


def _replayed(view: JobView, event: Event) -> None:
    view.replayed = event.data


def _resumed(view: JobView, event: Event) -> None:
    at = number(event.data.get("step"))
    if at is not None:
        view.losses.rewind(int(at))


_HANDLERS: dict[EventType, Callable[[JobView, Event], None]] = {
    EventType.STATE: _state,
    EventType.PHASE_STARTED: _phase_started,
    EventType.PHASE_FINISHED: _phase_finished,
    EventType.CLEANING: _cleaning,
    EventType.PROGRESS: _progress,
    EventType.STEP: _step,
    EventType.EVAL: _eval,
    EventType.MEMORY: _memory,
    EventType.RESUMED: _resumed,
    EventType.REPLAYED: _replayed,
}
