"""Work over the rows of a job, spread over the processes that its phase may use.

A process is forked where its work begins: it shares tables, tokenizer and imports with the phase,
and is told only which part is next. Results come in the order of the parts, so that they are the
same whatever the number of processes.
"""

import gc
import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from typing import Any, TypeVar

from ftq_worker.host.linux import end_with_parent
from ftq_worker.job.context import HostFault, PhaseContext

MOST = 8  # processes; docs/decisions/0014 says why
_LOOK_S = 0.2  # between two looks whether the phase must stop
_AHEAD = 4  # parts that are handed out for each process, so that none waits for the next
_ALONE = 2  # parts that are done before a fork is worth its time

Part = TypeVar("Part")
Result = TypeVar("Result")

_work: Callable[[Any], Any]  # what this process, one of several, does with a part


def spread(
    ctx: PhaseContext, work: Callable[[Part], Result], parts: Iterable[Part]
) -> Iterator[Result]:
    """Yield `work(part)` for each part, in order; `ctx.devices.cpu_threads` work at a time.

    Parts and results are pickled, `work` is not. Waiting is a safe point to stop at, and what still
    works then is killed. Raises HostFault (`worker_died`) when a process does not come back.
    """
    coming = iter(parts)
    yield from map(work, islice(coming, _ALONE))
    count = min(ctx.devices.cpu_threads, MOST)
    first = next(coming, None)
    if first is None:
        return
    if count == 1:
        yield work(first)
        yield from map(work, coming)
        return
    before = {child.pid for child in multiprocessing.active_children()}
    fork = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(count, fork, _begin, (work, os.getpid())) as pool:
        waiting = deque([pool.submit(_do, first)])
        try:
            for part in coming:
                waiting.append(pool.submit(_do, part))
                if len(waiting) > _AHEAD * count:
                    yield _wait(ctx, waiting.popleft())
            while waiting:
                yield _wait(ctx, waiting.popleft())
        except BaseException:
            for child in multiprocessing.active_children():
                if child.pid not in before:
                    child.kill()
            raise


def _begin(work: Callable[[Any], Any], parent: int) -> None:
    """Prepare a process of the pool: it ends with the phase and leaves shared memory shared."""
    global _work
    end_with_parent(parent, signal.SIGKILL)
    gc.freeze()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # its threads are not there after a fork
    _work = work


def _do(part: Any) -> Any:
    return _work(part)


def _wait(ctx: PhaseContext, coming: "Future[Result]") -> Result:
    while True:
        ctx.control.check()
        try:
            return coming.result(_LOOK_S)
        except TimeoutError:
            if coming.done():  # just now, or the error is the work's own
                return coming.result()
        except BrokenProcessPool as error:
            raise HostFault(
                "a process that prepares rows has died: most likely the kernel ended it for want of"
                " memory",
                code="worker_died",
            ) from error
