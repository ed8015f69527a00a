"""A child: runs one phase, speaks JSON lines, and dies by the kernel's hand without its agent.

By itself, without broker or Celery, it runs a whole job and prints its events:

    python -m ftq_worker.child SPEC.json [--storage DIR] [--phase train]

What comes down its control pipe is in `control`. Up the event pipe go {"type", "data"} and, last,
{"outcome", "error"}.
"""

import importlib
import json
import os
import random
import sys
import threading
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from ftq_shared.errors import ErrorInfo, FtqError, JobCancelled
from ftq_shared.events import EventType, make_body
from ftq_shared.paths import JobPaths
from ftq_shared.redaction import Redactor
from ftq_shared.spec import JobSpec
from ftq_shared.states import Phase
from ftq_worker.child import hub_inputs
from ftq_worker.child.control import Leash, Lifeline
from ftq_worker.host.ending import disk_full
from ftq_worker.host.linux import become_subreaper
from ftq_worker.host.messages import ChildRequest
from ftq_worker.host.process_tree import children_of, kill_all
from ftq_worker.host.wire import to_line
from ftq_worker.job.context import Control, Devices, Interrupted, Owner, PhaseContext, SoleOwner
from ftq_worker.job.folders import sweep


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
        """Write one whole line; a full pipe makes the writer wait, never drops."""
        with self._lock:
            view = memoryview(line)
            while view:
                view = view[os.write(self._fd, view) :]


def run_phase(request: ChildRequest, control_fd: int, event_fd: int) -> int:
    """Run the phase and report how it ended; returns the exit code of the process."""
    control = Control()
    leash = Leash(control_fd, control)
    if request.watched:
        leash.hold()
    emitter = PipeEmitter(event_fd, silent=request.rank > 0)
    owner: Owner = Lifeline(emitter.line, leash) if request.watched else SoleOwner()
    work = partial(_run, request, control, emitter, leash.secrets, owner)
    outcome = guarded(work, request, Redactor(leash.secrets.values()))
    kill_all(children_of(os.getpid()))  # a phase ends with all that it has started
    emitter.line(to_line(outcome))
    return 0


def guarded(work: Callable[[], None], request: ChildRequest, redactor: Redactor) -> dict[str, Any]:
    """Run `work`; return {"outcome"} and, where there is one, {"error"}."""
    try:
        work()
    except JobCancelled:
        return {"outcome": "cancelled"}
    except Interrupted as error:
        return {"outcome": "interrupted", "error": error.info().to_json()}
    except FtqError as error:
        return {"outcome": "failed", "error": error.info().to_json()}
    except Exception as error:  # the edge of the process: everything must be told
        if no_room := disk_full(error, Path(request.storage)):
            return {"outcome": "host", "error": no_room.to_json()}
        sys.stderr.write(redactor.text(traceback.format_exc()))
        info = ErrorInfo(
            "unexpected",
            f"{type(error).__name__}: {error}",
            f"this is a bug in ftq or in a library it uses; `ftq tail {request.job}` shows where",
            where={"traceback": traceback.format_exc()[-4000:]},
        )
        return {"outcome": "failed", "error": info.to_json()}
    return {"outcome": "done"}


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
        devices=Devices(request.gpus, request.rank, request.cpu_threads),
        control=control,
        created=request.created,
        claim_name=request.claim,
        fresh_after=request.fresh_after,
        owner=owner,
    )
    if request.rank == 0:
        sweep(ctx.paths, ctx.token_number)
    hub_inputs.fetch(ctx)
    importlib.import_module(f"ftq_worker.phases.{request.phase}").run(ctx)
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
    request = ChildRequest.from_json(json.loads(sys.argv[1]))
    become_subreaper()
    os.environ.update(request.env)
    sys.exit(run_phase(request, int(sys.argv[2]), int(sys.argv[3])))
