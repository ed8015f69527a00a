"""How a run's end becomes its last events and the job's next state."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from redis.exceptions import RedisError

from ftq_shared.broker import translated
from ftq_shared.errors import BrokerUnreachable, ErrorInfo
from ftq_shared.events import EVENTS, EventType
from ftq_shared.job_record import JobRecord
from ftq_shared.paths import JobPaths, write_json
from ftq_shared.store import Outcome, is_damage
from ftq_worker.agent.child import HostTrouble
from ftq_worker.agent.outbox import Outbox
from ftq_worker.agent.services import Bench
from ftq_worker.host.ending import timeout_error
from ftq_worker.job.context import StopReason

log = logging.getLogger(__name__)

LAST_LINES = 20  # of a dead child's output, shown as log events
LAST_BYTES = 2**16  # of its output file, in which they are looked for


@dataclass(frozen=True)
class End:
    """How a run ended."""

    verdict: dict[str, Any]  # {"outcome"}, and {"error"} or {"reason", "code"} that belong to it
    stop_reason: StopReason | None  # when it was asked to stop
    had_trouble: bool  # whether the host, not the phase, said so


def settle(
    bench: Bench, record: JobRecord, outbox: Outbox, end: End, lost: Callable[[], bool]
) -> None:
    """Tell watchers and the record; the lease is renewed all the while."""
    # What stands in the record and in the storage is as free of secrets as an event.
    verdict: dict[str, Any] = outbox.redactor.data(end.verdict)
    _say_last(outbox, verdict, None if end.had_trouble else _output(bench, record))

    def report() -> None:
        if outbox.flush():
            _report(bench, record, verdict, end.stop_reason)

    tell(record.id, report, lost)


def tell(job: str, report: Callable[[], object], lost: Callable[[], bool]) -> None:
    """Report a claim's end to the broker, again until it listens or the claim is lost."""
    while not lost():
        try:
            with translated():
                report()
            return
        except (BrokerUnreachable, RedisError) as error:  # away, or full
            if is_damage(error):  # the lease runs out
                log.exception("result of %s cannot be told", job)
                return
            log.warning("result of %s waits: %s", job, error)
            time.sleep(1.0)


def _output(bench: Bench, record: JobRecord) -> Path:
    return JobPaths(bench.storage, record.id).output(record.claim)


def _say_last(outbox: Outbox, verdict: dict[str, Any], output: Path | None) -> None:
    """Send the last events of a phase that did not end well."""
    error = verdict.get("error", {})
    try:
        if verdict["outcome"] == "died" and output:
            for line in _last_lines(output):
                outbox.say(EventType.LOG, line=line[:2000])
            outbox.say(EventType.WARNING, message=verdict["reason"], code=verdict["code"])
        elif verdict["outcome"] == "host":
            known = EVENTS[EventType.WARNING].fields
            outbox.say(EventType.WARNING, **{k: v for k, v in error.items() if k in known})
        elif verdict["outcome"] == "failed":  # without what only programs that catch it need
            known = EVENTS[EventType.ERROR].fields
            outbox.say(EventType.ERROR, **{k: v for k, v in error.items() if k in known})
    except HostTrouble as trouble:  # the disk is full: the event is on its way all the same
        log.warning("%s", trouble)


def _last_lines(output: Path) -> list[str]:
    """Return the end of what a phase's processes printed."""
    with output.open("rb") as file:
        file.seek(max(0, output.stat().st_size - LAST_BYTES))
        return file.read().decode(errors="replace").splitlines()[-LAST_LINES:]


def _report(
    bench: Bench, record: JobRecord, verdict: dict[str, Any], stop_reason: StopReason | None
) -> None:
    """Carry out the state change that the outcome calls for."""
    outcome = verdict["outcome"]
    if outcome == "done" and record.phase.next:
        bench.store.finish(record.id, record.token, "next", next_phase=record.phase.next)
    elif outcome == "done":
        _finish(bench, record, "succeeded", None)
    elif outcome == "cancelled" or stop_reason is StopReason.CANCEL:
        _finish(bench, record, "cancelled", None)
    elif stop_reason is StopReason.DEADLINE:
        _finish(bench, record, "failed", timeout_error(record))
    elif outcome == "failed" and stop_reason is None:
        _finish(bench, record, "failed", ErrorInfo.from_json(verdict["error"]))
    else:
        drained = stop_reason is StopReason.DRAIN
        reason = verdict.get("reason") or verdict.get("error", {}).get("message", "")
        reason = "the host is going down" if drained else reason
        burn = verdict.get("burn", not drained)
        bench.store.requeue(record.id, record.token, reason, burn=burn)


def _finish(bench: Bench, record: JobRecord, state: Outcome, error: ErrorInfo | None) -> None:
    """End the job, in the record and in the storage."""
    if bench.store.finish(record.id, record.token, state, error=error) != "ok":
        return
    result = {
        "state": state,
        "error": error.to_json() if error else None,
        "round": record.round,
    }
    try:
        write_json(JobPaths(bench.storage, record.id).result, result)
    except OSError as write_error:  # a belt for a broker that loses its last second
        log.warning("result of %s is not in the storage: %s", record.id, write_error)
