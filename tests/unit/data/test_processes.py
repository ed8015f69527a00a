"""Work that is spread over processes: in order, stopped in a moment, and no death goes unseen."""

import multiprocessing
import os
import signal
import threading
import time
from pathlib import Path

import pytest
from tests.support.data_jobs import make_context, make_spec

from ftq_shared.errors import JobCancelled, Refused
from ftq_worker.data.processes import spread
from ftq_worker.job.context import Devices, HostFault, PhaseContext, StopReason


@pytest.fixture
def ctx(tmp_path: Path) -> PhaseContext:
    return make_context(tmp_path, make_spec(), devices=Devices(cpu_threads=2))


def test_results_come_in_order_from_other_processes(ctx: PhaseContext) -> None:
    def work(part: int) -> tuple[int, int]:
        time.sleep(0.02 * (part % 3))
        return part, os.getpid()

    found = list(spread(ctx, work, iter(range(30))))
    assert [part for part, _ in found] == list(range(30))
    assert 1 < len({pid for _, pid in found} - {os.getpid()}) <= 2
    assert multiprocessing.active_children() == []


def test_an_error_of_the_work_comes_whole(ctx: PhaseContext) -> None:
    def work(part: int) -> int:
        if part == 9:
            raise Refused("no", code="bad_row", hint="mend it", file="rows.jsonl", line=9)
        return part

    found = []
    with pytest.raises(Refused) as caught:
        found.extend(spread(ctx, work, range(30)))
    assert (caught.value.code, caught.value.hint) == ("bad_row", "mend it")
    assert caught.value.where == {"file": "rows.jsonl", "line": 9}
    assert multiprocessing.active_children() == []


def test_a_cancel_kills_what_still_works(ctx: PhaseContext) -> None:
    started = time.monotonic()
    stop = threading.Timer(0.5, ctx.control.stop, [StopReason.CANCEL])
    stop.start()
    with pytest.raises(JobCancelled):
        list(spread(ctx, lambda part: time.sleep(60 * (part > 3)), range(30)))
    stop.join()
    assert time.monotonic() - started < 10
    assert multiprocessing.active_children() == []


def test_a_process_that_is_killed_is_the_hosts_fault(ctx: PhaseContext) -> None:
    def work(part: int) -> None:
        if part == 9:
            os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(HostFault) as caught:
        list(spread(ctx, work, range(30)))
    assert caught.value.code == "worker_died"
