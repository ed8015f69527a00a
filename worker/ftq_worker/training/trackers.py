"""Trackers: every step and evaluation goes to TensorBoard files, and where the job says so further.

A tracker never harms the job. TensorBoard files are written here; wandb, trackio and mlflow run in
a process each, which is told through a pipe, waited for so long and no longer, and given up after
the first error with one warning.
"""

import contextlib
import json
import math
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from typing import Any, Protocol

from ftq_shared.errors import Refused
from ftq_shared.events import EventType
from ftq_worker.job.context import PhaseContext
from ftq_worker.training.settings import TrainSettings

START_S = 60.0  # a tracker that has not started by then is given up
FINISH_S = 30.0  # what a tracker may take at the end
STOPPED_S = 5.0  # the same where the job was stopped: others wait for its place
FLUSH_S = 30.0  # between two writes of TensorBoard files to the disk
_END_S = 5.0  # for a process that was killed
_WAITING = 10_000  # lines that a tracker may be behind
_PROCESS = "ftq_worker.training.tracker_process"
# Of an event, what is no figure of its own or stands elsewhere.
_NOT_FIGURES = {"step", "steps", "set", "when", "best", "rows", "seconds"}
# A tracker gets the job's secrets that bear its name, and no other.
_SECRETS = {"wandb": ("WANDB_",), "mlflow": ("MLFLOW_",), "trackio": ("TRACKIO_", "HF_TOKEN")}


class Tracker(Protocol):
    """Takes figures of a step; whatever it raises ends it and nothing else."""

    name: str

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """Take figures, at once."""

    def finish(self, seconds: float) -> None:
        """Write what is left, within `seconds`."""


def installed(names: Sequence[str]) -> tuple[bool, str]:
    """Return True where this worker has the packages; raises Refused (`tracker_missing`)."""
    missing = [name for name in names if find_spec(name) is None]
    if missing:
        raise Refused(
            f"report_to: this worker has no package {' and '.join(missing)}",
            code="tracker_missing",
            hint=f"on the workers: pip install {' '.join(missing)}; or leave report_to out: steps"
            " are events, and TensorBoard files, anyway",
            field="report_to",
        )
    return True, f"{', '.join(names)} can be used"


@contextlib.contextmanager
def tracked(ctx: PhaseContext, settings: TrainSettings) -> Iterator[PhaseContext]:
    """Yield a context whose steps and evaluations reach the job's trackers as well."""
    if ctx.devices.rank != 0:
        yield ctx
        return
    trackers = _Trackers(ctx, settings)
    try:
        yield replace(ctx, emit=trackers.emit)
    except BaseException:
        trackers.finish(STOPPED_S)
        raise
    trackers.finish(FINISH_S)


class _Trackers:
    """The trackers that still work; each of them ends with its first error, told once."""

    def __init__(self, ctx: PhaseContext, settings: TrainSettings) -> None:
        self._ctx, self._step = ctx, 0
        self._working: list[Tracker] = []
        self._guarded("tensorboard", lambda: self._working.append(TensorBoard(ctx)))
        for name in ctx.spec.report_to:
            self._guarded(name, partial(self._start, name, settings))

    def _start(self, name: str, settings: TrainSettings) -> None:
        self._working.append(TrackerProcess(name, self._ctx, settings))

    def emit(self, type_: EventType, /, **data: Any) -> None:
        self._ctx.emit(type_, **data)
        if type_ not in (EventType.STEP, EventType.EVAL):
            return
        self._step = data.get("step") or self._step
        group = "train" if type_ is EventType.STEP else data["set"]
        figures = {
            f"{group}/{name}": float(value)
            for name, value in data.items()
            if name not in _NOT_FIGURES and isinstance(value, int | float)
        }
        for one in list(self._working):
            self._guarded(one.name, partial(one.log, self._step, figures), one)

    def finish(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        ended, self._working = self._working, []
        for one in ended:
            left = max(0.1, until - time.monotonic())
            self._guarded(one.name, partial(one.finish, left), one)

    def _guarded(
        self, name: str, work: Callable[[], object], tracker: Tracker | None = None
    ) -> None:
        try:
            work()
        except Exception as error:  # whatever a tracker raises, the job goes on
            self._working = [one for one in self._working if one is not tracker]
            with contextlib.suppress(Exception):  # nothing of it stays open
                if tracker:
                    tracker.finish(0.0)
            self._ctx.warn(
                f"tracker {name} is given up: {str(error)[:500] or type(error).__name__}",
                hint="the job goes on; its steps are in the events",
            )


class TensorBoard:
    """Event files in the job's folder, one for each attempt; nothing runs beside the training.

    The package's own writer keeps a thread and a queue that blocks once the disk is full.
    """

    name = "tensorboard"

    def __init__(self, ctx: PhaseContext) -> None:
        from tensorboardX.event_file_writer import EventsWriter

        folder = ctx.paths.tensorboard
        folder.mkdir(parents=True, exist_ok=True)
        self._writer = EventsWriter(str(folder / "events"), f".{ctx.claim}")
        self._next, self._flushed = math.inf, time.monotonic()  # the step that would follow

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        from tensorboardX.proto.event_pb2 import Event, SessionLog
        from tensorboardX.proto.summary_pb2 import Summary

        if step < self._next:  # what was written before from here on is void
            start = SessionLog(status=SessionLog.SessionStatus.START)
            self._writer.write_event(Event(wall_time=time.time(), step=step, session_log=start))
        self._next = step
        values = [Summary.Value(tag=name, simple_value=value) for name, value in figures.items()]
        summary = Summary(value=values)
        self._writer.write_event(Event(wall_time=time.time(), step=step, summary=summary))
        if time.monotonic() - self._flushed > FLUSH_S:  # it waits for the disk
            self._writer.flush()
            self._flushed = time.monotonic()

    def finish(self, seconds: float) -> None:
        self._writer.close()


class TrackerProcess:
    """A tracker in a process of its own; threads talk to it, so that nothing here waits."""

    def __init__(self, name: str, ctx: PhaseContext, settings: TrainSettings) -> None:
        self.name, self._ctx = name, ctx
        self._lines: queue.Queue[str | None] = queue.Queue(_WAITING)
        self._error, self._ready, self._started = "", False, time.monotonic()
        folder = ctx.paths.trackers / name
        folder.mkdir(parents=True, exist_ok=True)
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", _PROCESS, name],  # -P: no module of the folder's
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            cwd=folder,
        )
        self._send(
            {
                "job": ctx.job,
                "title": ctx.spec.name or ctx.job,
                "folder": str(folder),
                "finish_s": 2 * FINISH_S,  # for when nobody waits any more
                "secrets": {
                    key: value
                    for key, value in ctx.secrets.items()
                    if key.startswith(_SECRETS[name])
                },
                "settings": settings.to_json(),
            }
        )
        self._threads = [
            threading.Thread(target=work, name=f"tracker {name}", daemon=True)
            for work in (self._write, self._read)
        ]
        for thread in self._threads:
            thread.start()

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        if not self._ready and time.monotonic() - self._started > START_S:
            self._error = self._error or f"it has not started in {START_S:.0f} s"
        if self._error:
            self._kill()
            raise RuntimeError(self._error)
        self._send({"step": step, "figures": figures})

    def finish(self, seconds: float) -> None:
        if not self._error:
            with contextlib.suppress(queue.Full):
                self._lines.put_nowait(None)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(seconds)
            if self._process.poll() is None:
                self._error = f"it has not ended {seconds:.0f} s after the training"
            elif self._process.returncode:
                self._error = self._error or f"it ended with code {self._process.returncode}"
        self._kill()
        if self._error:
            raise RuntimeError(self._error)

    def _send(self, line: Mapping[str, Any]) -> None:
        try:
            self._lines.put_nowait(json.dumps(line))
        except queue.Full:
            self._kill()
            raise RuntimeError(f"it is {_WAITING:,} figures behind") from None

    def _write(self) -> None:
        """Hand lines on; a pipe that is full blocks this thread alone."""
        pipe: Any = self._process.stdin
        with contextlib.suppress(OSError), pipe:  # it has ended: the reader knows why
            while (line := self._lines.get()) is not None:
                pipe.write(line + "\n")
                pipe.flush()

    def _read(self) -> None:
        pipe: Any = self._process.stdout
        with pipe:
            for line in pipe:
                told = json.loads(line)
                self._error = told.get("error", self._error)
                if "ready" in told:
                    self._ready = True
                    self._ctx.emit(EventType.LOG, line=f"tracker {self.name}: {told['ready']}")

    def _kill(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait(_END_S)
        with contextlib.suppress(queue.Full):
            self._lines.put_nowait(None)
        for thread in self._threads:
            thread.join(_END_S)
