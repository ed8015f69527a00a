"""How a phase ends: from its process's exit to its last events and the job's next state.

A phase that ends in order says how (`Outcome`). Of one that dies without a word the exit status
tells. What an agent reports is then a table: see `_next_state`.
"""

import logging
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal, TypedDict

from redis.exceptions import RedisError

from ftq_shared.broker import is_damage, translated
from ftq_shared.errors import BrokerUnreachable, ErrorInfo, ErrorJson
from ftq_shared.events import EventType
from ftq_shared.job_record import JobRecord
from ftq_shared.paths import JobPaths, read_json, write_json
from ftq_shared.states import TERMINAL
from ftq_worker.agent.child import HostTrouble
from ftq_worker.agent.outbox import Outbox
from ftq_worker.agent.services import Services
from ftq_worker.host.messages import Ending, Outcome, StopReason

log = logging.getLogger(__name__)

LAST_LINES = 20  # of a dead child's output, shown as log events
LAST_BYTES = 2**16  # of its output file, in which they are looked for
AGAIN_S = 1.0  # between two tries to report to a broker that does not listen

# -- what a process's death means


def died(status: int | None, *, memory_ran_out: bool, lease_held: bool) -> Outcome:
    """Return the outcome of a phase whose process ended without a word. Any of them is requeued.

    `status` is an exit code, negative for a signal, None when nobody knows it. `memory_ran_out`:
    the kernel has killed a process for want of memory while this one ran. `lease_held`: its lease
    was not over.
    """
    code, words = _exit_reason(status, memory_ran_out=memory_ran_out, lease_held=lease_held)
    return Outcome(Ending.DIED, ErrorInfo(code, f"the phase's process {words}"))


def _exit_reason(status: int | None, *, memory_ran_out: bool, lease_held: bool) -> tuple[str, str]:
    """Return a code for programs, and words that end a sentence about the process."""
    if status is None:
        return "unknown", "ended, and nobody saw how"
    if status == -signal.SIGALRM and lease_held:
        return "frozen", (
            "stood still, as by a signal or in a host without time for it, until its own timer "
            "ended it; its lease was renewed all the while"
        )
    if status == -signal.SIGALRM:
        return "lease_lost", (
            "was ended by its own timer: its agent did not renew the lease in time"
        )
    if status == -signal.SIGKILL and memory_ran_out:
        return "out_of_memory_host", "was killed by the kernel: the host ran out of memory"
    if status == -signal.SIGKILL:
        return "killed", "was killed (signal 9), and not for want of memory"
    if status < 0:
        return "crashed", f"was ended by signal {-status} ({signal.Signals(-status).name})"
    return "exited", f"ended with exit code {status} and no word"


def not_run(code: str, reason: str, *, counts_attempt: bool = True) -> Outcome:
    """Return the outcome of a phase that this host could not run."""
    return Outcome(Ending.NOT_RUN, ErrorInfo(code, reason), counts_attempt)


# -- what is reported of it


def report_outcome(
    services: Services,
    record: JobRecord,
    outbox: Outbox,
    outcome: Outcome,
    stop_reason: StopReason | None,
    lost: Callable[[], bool],
) -> None:
    """Send the phase's last events, and the job's next state once the broker has all events."""
    if outcome.error:  # what stands in the record and in the storage is as free of secrets
        error = ErrorInfo.from_json(outbox.redactor.data(outcome.error.to_json()))
        outcome = replace(outcome, error=error)
    paths = JobPaths(services.storage, record.id)
    _emit_last(outbox, outcome, paths.output(record.claim))

    def report() -> None:
        if outbox.flush():
            _next_state(services, record, outcome, stop_reason)

    report_until_heard(record.id, report, lost)


def report_until_heard(job: str, report: Callable[[], object], lost: Callable[[], bool]) -> None:
    """Report to the broker, again until it listens or the claim is lost."""
    while not lost():
        try:
            with translated():
                report()
            return
        except (BrokerUnreachable, RedisError) as error:  # away, or full
            if is_damage(error):  # the lease runs out
                extra = {"action": "report_failed", "job": job}
                log.exception("a report on %s cannot be sent", job, extra=extra)
                return
            extra = {"action": "report_waits", "job": job}
            log.warning("a report on %s is sent again: %s", job, error, extra=extra)
            time.sleep(AGAIN_S)


def _emit_last(outbox: Outbox, outcome: Outcome, output: Path) -> None:
    """Emit the last events of a phase that is requeued; a job's error is told by the broker."""
    error = outcome.error
    if error is None or outcome.ending is Ending.NOT_RUN:
        return
    try:
        if outcome.ending is Ending.DIED:
            for line in _last_lines(output):
                outbox.emit(EventType.LOG, line=line[:2000])
        if outcome.ending in (Ending.DIED, Ending.HOST):
            hint = {"hint": error.hint} if error.hint else {}
            outbox.emit(EventType.WARNING, message=error.message, code=error.code, **hint)
    except HostTrouble as trouble:  # the disk is full: the event is on its way all the same
        extra = {"action": "events_unwritten", "job": outbox.job}
        log.warning("%s", trouble, extra=extra)


def _last_lines(output: Path) -> list[str]:
    """Return the end of what a phase's processes printed."""
    with output.open("rb") as file:
        file.seek(max(0, output.stat().st_size - LAST_BYTES))
        return file.read().decode(errors="replace").splitlines()[-LAST_LINES:]


def _next_state(
    services: Services, record: JobRecord, outcome: Outcome, stop_reason: StopReason | None
) -> None:
    """Carry out the state change that the outcome calls for; the first case that fits holds."""
    match outcome.ending, stop_reason:
        case Ending.DONE, _ if record.phase.next and not record.replay:
            services.store.finish(record.id, record.token, "next", next_phase=record.phase.next)
        case Ending.DONE, _:
            _finish(services, record, "succeeded", None)
        case (Ending.CANCELLED, _) | (_, StopReason.CANCEL):
            _finish(services, record, "cancelled", None)
        case _, StopReason.DEADLINE:
            _finish(services, record, "failed", _timeout_error(record))
        case Ending.FAILED, None:
            _finish(services, record, "failed", outcome.error)
        case _:  # it is requeued; a drain is no fault of the job
            drained = stop_reason is StopReason.DRAIN
            reason = "the host is going down" if drained else outcome.reason
            counts = outcome.counts_attempt and not drained
            services.store.requeue(
                record.id, record.token, reason, counts_attempt=counts, awaits=outcome.lock
            )


def _timeout_error(record: JobRecord) -> ErrorInfo:
    limit = f"{float(record.summary['max_runtime_s']):g} s"
    return ErrorInfo(
        "timeout",
        f"training took longer than resources.max_runtime ({limit}), over all attempts; "
        "the last checkpoint is kept",
        f"`ftq retry {record.id}` goes on from it for as long again",
    )


# -- what stays in the storage

Final = Literal["succeeded", "failed", "cancelled"]


class Result(TypedDict):
    """A job's end as it stands in its folder, believed over a broker that was rolled back."""

    state: Final
    error: ErrorJson | None
    round: int  # of the record: a retry makes older results void


def _finish(services: Services, record: JobRecord, state: Final, error: ErrorInfo | None) -> None:
    """End the job, in the record and in the storage."""
    if services.store.finish(record.id, record.token, state, error=error) != "ok":
        return
    result = Result(state=state, error=error.to_json() if error else None, round=record.round)
    try:
        write_json(JobPaths(services.storage, record.id).result, result)
    except OSError as write_error:  # it only matters to a broker that loses its last second
        extra = {"action": "result_unwritten", "job": record.id}
        log.warning("result of %s: %s", record.id, write_error, extra=extra)


def read_result(path: Path) -> Result | None:
    """Return what an earlier owner wrote at a job's end; None when there is nothing to believe."""
    try:
        result = read_json(path)
    except ValueError as error:
        extra = {"action": "result_damaged", "job": path.parent.name}
        log.warning("%s is damaged and not believed: %s", path, error, extra=extra)
        return None
    if not isinstance(result, dict) or result.get("state") not in TERMINAL:
        return None
    return Result(state=result["state"], error=result.get("error"), round=result.get("round", -1))
