"""A child: runs one phase, speaks JSON lines, and dies by the kernel's hand without its agent.

By itself, without broker or Celery, it runs a whole job and prints its events:

    python -m ftq_worker.child SPEC.json [--storage DIR] [--phase train]

Its agent's messages come down a control pipe, through its `leash`. Events go up another one and,
last, the Outcome.
"""

import faulthandler
import importlib
import os
import random
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from ftq_shared.errors import ErrorInfo, FtqError, JobCancelled
from ftq_shared.events import EventType, make_body
from ftq_shared.job_record import Replay
from ftq_shared.paths import JobPaths
from ftq_shared.processes import children_of
from ftq_shared.redaction import Redactor
from ftq_shared.spec import JobSpec
from ftq_shared.states import Phase
from ftq_worker.child import hub_inputs
from ftq_worker.child.control import AgentLink, AgentListener
from ftq_worker.child.leash import run_on_leash
from ftq_worker.host.data_roots import DataRoots
from ftq_worker.host.disk import disk_full
from ftq_worker.host.messages import ChildRequest, Ending, Outcome, report_line
from ftq_worker.host.process_tree import kill_all
from ftq_worker.job.atomic_folders import sweep
from ftq_worker.job.context import (
    Busy,
    Control,
    Devices,
    HostFault,
    Interrupted,
    Owner,
    PhaseContext,
)


class PipeEmitter:
    """Writes each event as one line, at once; ranks other than 0 stay silent."""

    def __init__(self, fd: int, *, silent: bool = False) -> None:
        self._fd = fd
        self._lock = threading.Lock()
        self._silent = silent

    def __call__(self, type_: EventType, /, **data: Any) -> None:
        """Send one event; raises ValueError for undocumented fields."""
        if not self._silent:
            self.line(make_body(type_, data, attempt=0, host="", phase=None).encode() + b"\n")

    def line(self, line: bytes) -> None:
        """Write one whole line; while the pipe is full it waits, and drops nothing."""
        with self._lock:
            view = memoryview(line)
            while view:
                view = view[os.write(self._fd, view) :]


def run_phase(request: ChildRequest, control_fd: int, event_fd: int) -> int:
    """Run the phase and report how it ended; returns the exit code of the process."""
    faulthandler.register(signal.SIGUSR1, file=2, all_threads=True)  # for `stacks` of the agent
    control = Control()
    agent = AgentListener(control_fd, control)
    agent.start()
    emitter = PipeEmitter(event_fd, silent=request.rank > 0)
    link = AgentLink(emitter.line, agent.answers)
    work = partial(_run, request, control, emitter, agent.secrets, link)
    outcome = outcome_of(work, request, Redactor(agent.secrets.values()))
    kill_all(children_of(os.getpid()))  # a phase ends with all that it has started
    emitter.line(report_line(outcome))
    return 0


def outcome_of(work: Callable[[], None], request: ChildRequest, redactor: Redactor) -> Outcome:
    """Run `work`, and return how it ended. Never raises: this is the edge of the process."""
    try:
        work()
    except JobCancelled:
        return Outcome(Ending.CANCELLED)
    except Interrupted as error:
        return Outcome(Ending.INTERRUPTED, error.info())
    except Busy as error:
        return Outcome(Ending.BUSY, error.info(), counts_attempt=False, lock=error.lock)
    except HostFault as error:
        return Outcome(Ending.HOST, error.info())
    except FtqError as error:
        return Outcome(Ending.FAILED, error.info())
    except Exception as error:
        if no_room := disk_full(error, Path(request.storage)):
            return Outcome(Ending.HOST, no_room)
        sys.stderr.write(redactor.text(traceback.format_exc()))
        info = ErrorInfo(
            "unexpected",
            f"{type(error).__name__}: {error}",
            f"this is a bug in ftq or in a library it uses; `ftq tail {request.job}` shows where",
            where={"traceback": traceback.format_exc()[-4000:]},
        )
        return Outcome(Ending.FAILED, info)
    return Outcome(Ending.DONE)


def _run(
    request: ChildRequest,
    control: Control,
    emitter: PipeEmitter,
    secrets: dict[str, str],
    owner: Owner,
) -> None:
    """Build the phase's world from the request, and run it."""
    _seed(request)
    ctx = PhaseContext(
        job=request.job,
        phase=Phase(request.phase),
        attempt=request.attempt,
        token_number=request.token_number,
        spec=JobSpec.model_validate_json(request.spec),
        paths=JobPaths(Path(request.storage), request.job),
        emit=emitter,
        secrets=secrets,
        endpoint=request.endpoint,
        devices=Devices(
            request.gpus, request.rank, request.cpu_threads, request.ranks, request.meeting
        ),
        control=control,
        created=request.created,
        claim_name=request.claim,
        fresh_after=request.fresh_after,
        replay=Replay(request.replay_of, request.replay_step) if request.replay_of else None,
        owner=owner,
        data_roots=DataRoots(**{name: tuple(value) for name, value in request.data_roots.items()}),
    )
    if request.rank == 0:
        sweep(ctx.paths, ctx.token_number)
    hub_inputs.fetch(ctx)
    importlib.import_module(f"ftq_worker.phases.{request.part}").run(ctx)
    hub_inputs.free(ctx)


def _seed(request: ChildRequest) -> None:
    """Give a forked child seeds of its own: it would share the zygote's."""
    seed = JobSpec.model_validate_json(request.spec).train.seed
    random.seed(seed)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(seed)
    if "torch" in sys.modules:
        torch = sys.modules["torch"]
        torch.manual_seed(seed)
        torch.set_num_threads(request.cpu_threads)


def main() -> None:
    """Be a child in a fresh interpreter (no zygote): request on argv, pipes inherited."""
    request = ChildRequest.loads(sys.argv[1])
    os.environ.update(request.env)
    pipes = int(sys.argv[2]), int(sys.argv[3])
    sys.exit(run_on_leash(*pipes, partial(run_phase, request)))
