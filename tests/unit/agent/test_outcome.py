"""How a death is named: by what killed it, so that people know what to do."""

import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.support.agents import services, store_with_run

from ftq_shared import keys
from ftq_shared.errors import ErrorInfo
from ftq_shared.redaction import Redactor
from ftq_worker.agent.outcome import died, report_outcome
from ftq_worker.host.disk import disk_full
from ftq_worker.host.messages import Ending, Outcome, read_report, report_line

JOB = "ft-aaaaaaaa"


@pytest.mark.parametrize(
    ("status", "memory", "code", "words"),
    [
        (None, False, "unknown", "nobody saw how"),
        (-signal.SIGALRM, False, "lease_lost", "did not renew the lease"),
        (-signal.SIGKILL, True, "out_of_memory_host", "ran out of memory"),
        (-signal.SIGKILL, False, "killed", "signal 9"),
        (-signal.SIGSEGV, True, "crashed", "SIGSEGV"),
        (3, False, "exited", "exit code 3"),
    ],
)
def test_classes(status: int | None, memory: bool, code: str, words: str) -> None:
    error = died(status, memory_ran_out=memory, lease_held=False).error
    assert error
    assert error.code == code
    assert words in error.message


def test_a_process_that_stood_still_has_not_lost_its_lease() -> None:
    error = died(-signal.SIGALRM, memory_ran_out=False, lease_held=True).error
    assert error
    assert error.code == "frozen"


@pytest.mark.parametrize(
    "error",
    [
        OSError(28, "No space left on device"),
        RuntimeError("I/O error: No space left on device (os error 28)"),
        RuntimeError("SafetensorError: Error while serializing: IoError (os error 28)"),
    ],
)
def test_a_full_disk_is_known_by_any_of_its_names(error: Exception, tmp_path: Path) -> None:
    found = disk_full(error, tmp_path)
    assert found
    assert found.code == "disk_full"
    assert str(tmp_path) in found.message


def test_a_full_disk_is_seen_behind_a_librarys_own_error(tmp_path: Path) -> None:
    error = ValueError("could not save")
    error.__cause__ = OSError(28, "No space left on device")
    assert disk_full(error, tmp_path)


def test_other_errors_are_the_jobs(tmp_path: Path) -> None:
    assert disk_full(ValueError("bad value"), tmp_path) is None


def test_a_phase_that_gives_way_waits_in_the_queue_and_costs_nothing(tmp_path: Path) -> None:
    store = store_with_run()
    record = store.get(JOB)
    said = Outcome(Ending.BUSY, ErrorInfo("busy", "ft-first222 publishes to me/x"), False, "hub/x")
    assert read_report(report_line(said)) == said
    outbox: Any = SimpleNamespace(redactor=Redactor([]), job=JOB, flush=lambda: True)
    nothing: Any = None
    here = services(store, tmp_path, nothing, nothing)
    report_outcome(here, record, outbox, said, None, lambda: False)
    waits = store.get(JOB)
    assert (waits.state, waits.attempt, waits.awaits) == ("queued", 1, keys.lock("hub/x"))
