"""What a replay has to do: from which checkpoint, over which runs, and what was recorded.

A step was trained by the last run that has recorded it. What that run had to begin with was made by
itself, or by the run whose checkpoint it went on from, and so on back to a checkpoint that is still
there or to the base model. Each such part of the way is a leg: it is trained with the settings that
its own run had. So a step is repeated as it was done also where the rate was lowered, or passes
were halved, between it and the checkpoint.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ftq_shared.errors import FtqError, Refused, UsageError
from ftq_shared.paths import JobPaths
from ftq_worker.training import checkpoints
from ftq_worker.training.checkpoints import Checkpoint
from ftq_worker.training.runs import Run, claim_folders, token_of

OPTIMIZER = "optimizer"  # in the name of a checkpoint's file that a step needs


@dataclass(frozen=True)
class Recorded:
    """One step as a job has told it: the data of its `step` event."""

    run: int  # index in the job's runs
    data: dict[str, Any]


@dataclass
class StepRecords:
    """Every time that a job's runs have recorded a step."""

    steps: dict[int, list[Recorded]] = field(default_factory=dict)  # oldest first

    def last(self, step: int, run: int | None = None) -> Recorded | None:
        """Return the last time that a step was trained, in runs up to `run`."""
        every = self.steps.get(step, [])
        return next((it for it in reversed(every) if run is None or it.run <= run), None)


@dataclass(frozen=True)
class Leg:
    """A part of the way: trained as one run of the job was, up to and including a step."""

    run: Run
    index: int  # of the run
    until: int


@dataclass(frozen=True)
class Plan:
    """How a step is repeated."""

    step: int
    start: Checkpoint | None  # None: the base model
    legs: tuple[Leg, ...]  # in order; the last one ends with the step
    recorded: Recorded
    trained: int  # how often the job has trained the step

    @property
    def after_step(self) -> int:
        return self.start.step if self.start else 0

    @property
    def repeated(self) -> int:
        """Steps on the way."""
        return self.step - 1 - self.after_step


def read_steps(paths: JobPaths, runs: Sequence[Run], fresh_after: int) -> StepRecords:
    """Read what the claims of the present training have told of their steps, from their files."""
    records = StepRecords()
    for folder in claim_folders(paths):
        if token_of(folder.name) <= fresh_after:
            continue
        mine = [(i, run) for i, run in enumerate(runs) if run.claim == folder.name]
        for time, data in _step_events(paths, folder.name):
            index = max((i for i, run in mine if run.begun <= time), default=None)
            if index is not None and isinstance(data.get("step"), int):
                records.steps.setdefault(data["step"], []).append(Recorded(index, data))
    return records


def _step_events(paths: JobPaths, claim: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield time and data of a claim's steps; what cannot be read is left out."""
    try:
        text = paths.events(claim).read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return
    for line in text.splitlines():
        if '"type":"step"' not in line:
            continue
        try:
            event = json.loads(line)
            yield str(event["time"]), dict(event["data"])
        except (ValueError, KeyError, TypeError):
            continue


def make_plan(
    paths: JobPaths, runs: Sequence[Run], records: StepRecords, step: int, data: str
) -> Plan:
    """Return how a step is repeated.

    Raises UsageError for a step that is not recorded, Refused where it cannot be trained as it was.

    `data` names the prepared data as they are now, see `checkpoints.data_id`.
    """
    recorded = records.last(step)
    if recorded is None:
        raise _not_recorded(paths.job, step, runs, records)
    run = runs[recorded.run]
    if run.data != data:
        raise Refused(
            f"step {step} was trained on data that are no longer there: {paths.job} was prepared"
            " anew since",
            code="other_data",
            hint="a step that was trained after that can be replayed",
            step=step,
        )
    start, legs = _Way(paths, runs, data).to(recorded.run, step - 1)
    last = replace(legs[-1], until=step)
    return Plan(step, start, (*legs[:-1], last), recorded, len(records.steps[step]))


def _not_recorded(job: str, step: int, runs: Sequence[Run], records: StepRecords) -> FtqError:
    known = sorted(records.steps)
    if not runs:
        return Refused(
            f"{job} was trained by an older version, which did not write down how",
            code="not_recorded",
            hint=f"`ftq retry {job} --from train` trains it again; its steps can be replayed then",
        )
    there = f"it has trained steps {known[0]} to {known[-1]}" if known else "it has trained none"
    return UsageError(
        f"{job} has recorded no step {step}: {there}",
        code="no_such_step",
        hint=f"`ftq tail {job} --no-follow` shows its steps",
        step=step,
    )


class _Way:
    """Finds the way to a step, back from it."""

    def __init__(self, paths: JobPaths, runs: Sequence[Run], data: str) -> None:
        self._paths, self._runs, self._data = paths, runs, data
        every = checkpoints.candidates(paths)
        self._kept = [c for c in every if c.data in ("", data) and _can_go_on(c)]

    def to(self, index: int, step: int) -> tuple[Checkpoint | None, list[Leg]]:
        """Return where to begin and the legs, to stand after `step` as a run of the job did."""
        run = self._runs[index]
        here = Leg(run, index, step)
        for found in self._own(run, step):
            if checkpoints.damage(found) is None:
                return found, [here]
        if run.after_step == 0:
            return None, [here]
        before = self._parent(index)
        if before is None:
            raise Refused(
                f"how {self._paths.job} came to step {run.after_step} is not recorded, and the"
                " checkpoint of that step is not kept",
                code="not_recorded",
                hint=f"a step after one of the checkpoints can be replayed: {self._words()}",
            )
        start, legs = self.to(before, run.after_step)
        if _alike(legs[-1].run, run):  # an exact resume: as if there had been no interruption
            return start, [*legs[:-1], here]
        return start, [*legs, here]

    def _own(self, run: Run, step: int) -> list[Checkpoint]:
        """Return what a run has saved up to `step`, and what it began with, newest first."""
        begun = self._paths.root / run.checkpoint if run.checkpoint else None
        return [
            c
            for c in self._kept
            if (c.token == run.token and run.after_step < c.step <= step)
            or (c.path == begun and c.step <= step)
        ]

    def _parent(self, index: int) -> int | None:
        """Return the run that has written the checkpoint which a run went on from."""
        run = self._runs[index]
        claim = run.checkpoint.split("/")[1] if run.checkpoint.count("/") else ""
        earlier = [
            i
            for i, other in enumerate(self._runs[:index])
            if other.claim == claim and other.after_step < run.after_step
        ]
        return max(earlier, default=None)

    def _words(self) -> str:
        steps = sorted({c.step for c in self._kept})
        return ", ".join(map(str, steps)) or "none is kept"


def _can_go_on(checkpoint: Checkpoint) -> bool:
    """Return whether it holds the optimizer: the one at the end of a training does not."""
    return any(OPTIMIZER in name for name in checkpoint.files)


def _alike(one: Run, other: Run) -> bool:
    """Return whether two runs compute the same; when they save is nobody's business."""
    settings = [
        replace(run.settings, save_every_s=None, counted_bytes=None) for run in (one, other)
    ]
    threads = one.cpu_threads == other.cpu_threads
    return settings[0] == settings[1] and one.left_out == other.left_out and threads
