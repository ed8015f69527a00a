"""A whole job in one process, without broker, Celery or queue: for GPU checks and debugging.

    python -m ftq_worker.child SPEC.yaml [--storage DIR] [--phase PHASE]... [--gpus N] [--ranks N]

Its events go to stdout as JSON lines. The storage folder is kept, so that single phases can be
run again on what earlier ones left. The Hub token is read from HF_TOKEN. With several ranks, which
are processes of their own, the train phase is shared out among them: one a GPU, or all on the CPU.
"""

import argparse
import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ftq_shared.errors import Exit, FtqError
from ftq_shared.events import Event, EventType, make_body, utc_now
from ftq_shared.paths import JobPaths
from ftq_shared.settings import load_settings
from ftq_shared.sources import Place, parse_source
from ftq_shared.spec import JobSpec
from ftq_shared.spec_input import load_yaml, parse_spec
from ftq_shared.states import Phase
from ftq_worker.host.cold_imports import collector_off
from ftq_worker.host.data_roots import DataRoots
from ftq_worker.host.environment import PINNED, rank_variables
from ftq_worker.host.messages import parts_of
from ftq_worker.job.context import Devices, PhaseContext

JOB = "ft-00000000"


class Printer:
    """Prints each event as one JSON line, at once."""

    def __init__(self, phase: Phase) -> None:
        self._phase = phase
        self._seq = 0

    def __call__(self, type_: EventType, /, **data: Any) -> None:
        body = make_body(type_, data, attempt=1, host="", phase=self._phase)
        self._seq += 1
        line = f'{{"v":1,"job":"{JOB}","seq":{self._seq},{body[1:]}'
        print(Event.from_json(line).to_json(), flush=True)  # noqa: T201  it is the output


def run(spec: JobSpec, storage: Path, phases: Sequence[Phase], devices: Devices) -> None:
    """Run phases one after the other. Raises what they raise."""
    import importlib

    paths = JobPaths(storage, JOB)
    _copy_inputs(spec, paths)
    token = os.environ.get("HF_TOKEN")
    with collector_off():  # once: what a phase leaves behind is to be collected
        modules = {
            part: importlib.import_module(f"ftq_worker.phases.{part.module}")
            for phase in phases
            for part in parts_of(phase)
        }
    for phase in phases:
        ctx = PhaseContext(
            job=JOB,
            phase=phase,
            attempt=1,
            token_number=1,
            spec=spec,
            paths=paths,
            emit=Printer(phase),
            secrets={"HF_TOKEN": token} if token else {},
            endpoint=load_settings().hf_endpoint,
            devices=replace(devices, gpus=devices.gpus[:1], world_size=1),
            created=utc_now(),
            data_roots=DataRoots(open=("/",)),  # who runs it reads their own files
        )
        started = time.monotonic()
        for part in parts_of(phase):
            phase_of = modules[part]
            if phase is Phase.TRAIN and part.every_rank:
                with _met(devices, storage) as all_ranks:
                    phase_of.run(replace(ctx, devices=all_ranks))
            elif devices.rank == 0:
                phase_of.run(ctx)
        ctx.emit(EventType.PHASE_FINISHED, seconds=round(time.monotonic() - started, 3))


@contextlib.contextmanager
def _met(devices: Devices, storage: Path) -> Iterator[Devices]:
    """Start the other ranks, if this is the first of several; yield what this one has.

    Raises SystemExit where one of the others fails.
    """
    os.environ.update(rank_variables(devices.rank, devices.world_size))
    if devices.world_size == 1 or devices.rank:
        yield devices
        return
    with (
        tempfile.TemporaryDirectory(prefix="ftq-ranks-") as folder,
        contextlib.ExitStack() as stack,
    ):
        meeting = str(Path(folder, "meeting"))
        command = [sys.executable, "-m", "ftq_worker.child", *sys.argv[1:]]
        command += ["--storage", str(storage), "--meeting", meeting]
        others = [
            subprocess.Popen([*command, "--rank", str(rank)], stdout=subprocess.DEVNULL)
            for rank in range(1, devices.world_size)
        ]
        for other in others:
            stack.callback(other.kill)  # the first has failed; of one that has ended, nothing
        yield replace(devices, meeting=meeting)
        if failed := [rank for rank, other in enumerate(others, 1) if other.wait()]:
            sys.exit(f"ranks {failed} have failed")


def _copy_inputs(spec: JobSpec, paths: JobPaths) -> None:
    """Put the client's own files where an agent would have put them."""
    for what, text in (("model", spec.model), ("dataset", spec.dataset)):
        source = parse_source(text, what=what)
        if source.place is not Place.CLIENT:
            continue
        target = paths.inputs / what
        if Path(source.name).is_dir():
            shutil.copytree(source.name, target, dirs_exist_ok=True)
        else:
            target.mkdir(parents=True, exist_ok=True)
            shutil.copy(source.name, target)


def main(argv: Sequence[str] | None = None) -> None:
    """Run from the command line; exits as `ftq tail` would."""
    parser = argparse.ArgumentParser(prog="python -m ftq_worker.child", description=__doc__)
    parser.add_argument("spec", type=Path)
    parser.add_argument("--storage", type=Path)
    parser.add_argument("--phase", action="append", type=Phase, choices=list(Phase))
    parser.add_argument("--gpus", type=int, default=0)
    parser.add_argument("--ranks", type=int, default=1)
    parser.add_argument("--rank", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--meeting", default="", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    storage = args.storage or Path(tempfile.mkdtemp(prefix="ftq-alone-"))
    print(f"storage: {storage}", file=sys.stderr)  # noqa: T201
    os.environ.update(PINNED)  # before torch is imported, as on a host
    devices = Devices(
        gpus=tuple(str(n) for n in range(args.gpus)),
        rank=args.rank,
        cpu_threads=max(1, (os.cpu_count() or 1) // args.ranks),
        world_size=args.ranks,
        meeting=args.meeting,
    )
    phases = [Phase.TRAIN] if args.rank else args.phase or list(Phase)
    try:
        run(parse_spec(load_yaml(args.spec)), storage, phases, devices)
    except FtqError as error:
        print(f"{error.code}: {error.message}\n  {error.hint}", file=sys.stderr)  # noqa: T201
        sys.exit(error.exit_code)
    sys.exit(Exit.OK)
