"""What can be judged of a replay, and of rows that are left out, before a worker looks at it."""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ftq_shared.errors import UsageError
from ftq_shared.events import Event, EventType
from ftq_shared.hosts import HostRecord
from ftq_shared.job_record import RECORD_VERSION, JobRecord
from ftq_shared.row_refs import ROWS_MAX, RowRef
from ftq_shared.states import JobState, Phase

_UNTRAINED = (Phase.VALIDATE, Phase.PREPARE)

Events = Callable[[], Iterable[Event]]  # what a job has told so far


@dataclass
class ReplayResult:
    """What a replay has found so far."""

    step: dict[str, Any] = field(default_factory=dict)  # of its `replayed` event
    rows: list[dict[str, Any]] = field(default_factory=list)  # of its `replay_row` events

    @classmethod
    def of(cls, events: Iterable[Event]) -> "ReplayResult":
        """Return what the events of a replay tell; of several attempts the last counts."""
        result = cls()
        for event in events:
            result.add(event)
        return result

    def add(self, event: Event) -> None:
        if event.type is EventType.PHASE_STARTED:
            self.step, self.rows = {}, []
        elif event.type is EventType.REPLAY_ROW:
            self.rows.append(dict(event.data))
        elif event.type is EventType.REPLAYED:
            self.step = dict(event.data)


def refuse_replay(
    record: JobRecord, step: int, events: Events, hosts: Sequence[HostRecord]
) -> None:
    """Raise UsageError where a step of this job cannot be replayed, as far as its record tells."""
    job = record.id
    if replay := record.replay:
        raise UsageError(
            f"{job} is itself a replay, of step {replay.step} of {replay.job}",
            code="is_replay",
            hint=f"ftq replay {replay.job} --step {step}",
        )
    if not record.state.terminal:
        raise UsageError(
            f"{job} is {record.state}: a step can be replayed once the job has ended",
            code="not_ended",
            hint=f"`ftq wait {job}`, or `ftq cancel {job}`; then again",
        )
    last = _last_step(record, step, events)
    if not last:
        raise UsageError(
            f"{job} has trained no step: it {_ended(record)} in {record.phase}",
            code="not_trained",
            hint=f"`ftq show {job}` says why it ended",
        )
    if step > last:
        raise UsageError(
            f"{job} has no step {step}: it has trained {last:,}",
            code="no_such_step",
            hint=f"--step takes a number from 1 to {last}",
        )
    _refuse_without_host(record, hosts)


def _ended(record: JobRecord) -> str:
    words = {JobState.CANCELLED: "was cancelled"}
    return words.get(record.state, str(record.state))


def _last_step(record: JobRecord, step: int, events: Events) -> int:
    """Return the last step that a job has trained; 0 for none.

    The record has the latest one. After a roll-back that is not the last: the events may know it.
    """
    known = _number(record.summary.get("step"))
    if not known or step <= known:
        return known
    steps = (_number(event.data.get("step")) for event in events() if event.type is EventType.STEP)
    return max(known, *steps, 0)


def _number(value: object) -> int:
    try:
        return max(0, int(str(value)))
    except ValueError:
        return 0


def _refuse_without_host(record: JobRecord, hosts: Sequence[HostRecord]) -> None:
    if not record.storage_id:
        raise UsageError(
            f"{record.id} was to start over: what it had trained belongs to no host any more",
            code="not_trained",
            hint=f"`ftq retry {record.id}` trains it again",
        )
    there = [h for h in hosts if h.storage_id == record.storage_id]
    online = [h for h in there if h.online and not h.draining]
    if not online:
        names = ", ".join(h.name for h in there) or record.summary.get("last_host") or "its host"
        raise UsageError(
            f"no worker is online that has the files of {record.id}",
            code="no_storage_host",
            hint=f"start `ftq worker` on {names} again",
        )
    if all(h.record_version < RECORD_VERSION for h in online):
        names = ", ".join(h.name for h in online)
        raise UsageError(
            f"the workers that have the files of {record.id} are of an older version: {names}",
            code="older_worker",
            hint="upgrade these workers, and start them again",
        )


def refuse_without_rows(
    record: JobRecord, phase: Phase | None, rows: Collection[RowRef], events: Events
) -> None:
    """Raise UsageError where rows cannot be left out of this job, as far as its events tell."""
    job = record.id
    if record.state not in (JobState.FAILED, JobState.CANCELLED):
        return  # it cannot be retried at all
    if record.replay:
        raise UsageError(
            f"{job} is a replay: it trains nothing for anybody",
            code="is_replay",
            hint=f"name the job itself: ftq retry {record.replay.job} --without-rows FILE",
        )
    if phase in _UNTRAINED:
        raise UsageError(
            f"--from {phase} reads the data again, and --without-rows names rows as they are now",
            code="rows_of_other_data",
            hint="leave one of them out; --from train trains from the beginning without the rows",
        )
    if record.phase in _UNTRAINED:
        raise UsageError(
            f"{job} has not come to training: it {_ended(record)} in {record.phase}",
            code="not_trained",
            hint="take the rows out of the data, and submit it again",
        )
    done = _number(record.summary.get("step")), _number(record.summary.get("steps"))
    if phase is None and (record.phase is Phase.PUBLISH or done[0] >= done[1] > 0):
        raise UsageError(
            f"{job} has trained all of its steps: none is left to go without these rows",
            code="trained_already",
            hint=f"`ftq retry {job} --from train --without-rows FILE` trains from the beginning",
        )
    _refuse_counts(record, rows, events)


def _refuse_counts(record: JobRecord, rows: Collection[RowRef], events: Events) -> None:
    """Raise UsageError for rows that the data cannot have, and where none would be left."""
    read = trained = 0
    for event in events():
        if event.type is EventType.DATASET:
            read = _number(event.data.get("rows"))
        elif event.type is EventType.GOLDEN:
            trained = _number(event.data.get("train_rows"))
    beyond = sorted(ref for ref in rows if read and ref.row >= read)
    if beyond:
        more = f" and {len(beyond) - 3} more" if len(beyond) > 3 else ""
        raise UsageError(
            f"--without-rows: there is no {', '.join(map(str, beyond[:3]))}{more}: the split that"
            f" {record.id} trains on has {read:,} rows",
            code="no_such_row",
            hint=f"rows are counted from 0: up to {read - 1}",
        )
    every = {*rows, *record.without_rows}
    if trained and len(every) >= trained:
        raise UsageError(
            f"--without-rows: {len(every):,} rows would be left out, and {trained:,} are trained:"
            " nothing would be left",
            code="all_rows_left_out",
            hint="delete the lines of rows that stay",
        )
    if len(every) > ROWS_MAX:
        raise UsageError(
            f"--without-rows: with those of before these are {len(every):,} rows, and at most"
            f" {ROWS_MAX:,} can be left out by name",
            code="too_many_rows",
            hint="take them out of the data, and submit it again",
        )
