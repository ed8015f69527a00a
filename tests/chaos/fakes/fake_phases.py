"""Phases that compute nothing but obey everything: steps, checkpoints, pauses, stops, locks.

What a job does is written in its name: `chaos steps=40 ms=5 save=10 slow=2 kind=poison at=7`.

kind   ok       ends well
       poison   kills its own process at a step, each time
       nan      raises at a step what a broken training raises
       orphan   leaves processes behind in sessions of their own

Every step goes into the job's journal with the time on the clock that all processes of a machine
share: the judge looks there for two owners at work at the same time.
"""

import fcntl
import hashlib
import json
import os
import signal
import time
from pathlib import Path
from typing import Any

from ftq_shared.errors import TrainingFailed
from ftq_shared.events import EventType
from ftq_shared.paths import read_json, write_json
from ftq_worker.job.context import Busy, PhaseContext
from ftq_worker.job.reports import Published
from ftq_worker.training import checkpoints

START = "0" * 64
# On no worker's disk: what is judged by may not be cut off when one is full.
ROOT = Path(os.environ["FTQ_CHAOS_ROOT"])


def run(phase: str, ctx: PhaseContext) -> None:
    """Run one fake phase, or one part of it."""
    journal = Journal(ctx)
    journal.note("start")
    work = {
        "validate": validate,
        "prepare": prepare,
        "train": train,
        "verify": verify,
        "publish": publish,
    }
    work[phase](ctx, journal)
    journal.note("end")


def wishes(name: str | None) -> dict[str, str]:
    """Read what a job's name asks for."""
    return dict(word.split("=") for word in (name or "").split() if "=" in word)


class Journal:
    """What the processes of one job really did, and when."""

    def __init__(self, ctx: PhaseContext) -> None:
        self._path = ROOT / "journals" / f"{ctx.job}.jsonl"
        self._about = {
            "job": ctx.job,
            "phase": str(ctx.phase),
            "claim": ctx.claim,
            "pid": os.getpid(),
        }

    def note(self, what: str, step: int = 0) -> None:
        entry = self._about | {"what": what, "step": step, "t": time.monotonic()}
        append(self._path, entry)


def append(path: Path, entry: dict[str, Any]) -> None:
    """Add one line in one write: several processes may write at the same time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(handle, json.dumps(entry).encode() + b"\n")
    finally:
        os.close(handle)


def after(state: str, step: int) -> str:
    """Return the state after a step: the whole history is in it, so a lost step shows."""
    return hashlib.sha256(f"{state} {step}".encode()).hexdigest()


def final_state(steps: int) -> str:
    """Return what an unbroken run ends with."""
    state = START
    for step in range(1, steps + 1):
        state = after(state, step)
    return state


def validate(ctx: PhaseContext, journal: Journal) -> None:
    for name in ("model", "dataset"):
        ctx.control.check()
        journal.note("step")
        ctx.check(name, ok=True, message="made up")


def prepare(ctx: PhaseContext, journal: Journal) -> None:
    for done in range(1, 4):
        ctx.control.check()
        journal.note("step", done)
        ctx.emit(EventType.PROGRESS, task="fake rows", done=done, total=3, unit="rows")
    write_json(ctx.paths.prepared_report, {"fake": True})


def train(ctx: PhaseContext, journal: Journal) -> None:
    wanted = wishes(ctx.spec.name)
    steps, pause_s = int(wanted.get("steps", 20)), int(wanted.get("ms", 5)) / 1000
    save_every = int(wanted.get("save", 5))
    data = checkpoints.data_id(ctx.paths)
    found, problems = checkpoints.newest_good(ctx.paths, data, ctx.fresh_after)
    for problem in problems:
        ctx.warn(problem)
    first, state = 1, START
    if found:
        ctx.emit(EventType.RESUMED, step=found.step, reason="an earlier attempt was interrupted")
        first, state = found.step + 1, read_json(found.path / checkpoints.STATE)["state"]
    if wanted.get("kind") == "orphan":
        leave_orphans()
    for step in range(first, steps + 1):
        stop = ctx.control.stop_requested()
        if stop:
            time.sleep(float(wanted.get("slow", 0)))  # a save that takes its time
            save(ctx, step - 1, state, data)
            ctx.control.check()
        journal.note("step", step)
        state = after(state, step)
        ctx.emit(EventType.STEP, step=step, steps=steps, epoch=step / steps, loss=1 / step, lr=1e-3)
        misbehave(wanted, step)
        if step % save_every == 0:
            save(ctx, step, state, data)
        time.sleep(pause_s)
    write_json(ctx.paths.model / "state.json", {"state": state, "steps": steps})


def verify(ctx: PhaseContext, journal: Journal) -> None:
    """Be the second part of train."""
    ctx.control.check()
    assert (ctx.paths.model / "state.json").exists(), "a part began before the one before it ended"


def save(ctx: PhaseContext, step: int, state: str, data: str) -> None:
    """Write a checkpoint as the trainer does: aside, sealed, confirmed, named."""
    if step < 1:
        return
    folder = ctx.paths.checkpoints(ctx.claim) / checkpoints.PART / f"checkpoint-{step}"
    write_json(folder / checkpoints.STATE, {"state": state, "step": step})
    ctx.owner.flush_events()
    done = checkpoints.seal(folder, step=step, token=ctx.token_number, data=data, facts={})
    ctx.owner.check_lease()
    checkpoints.switch(ctx.paths, done, None)
    checkpoints.prune(ctx.paths, ctx.token_number, None)
    ctx.emit(EventType.CHECKPOINT, step=step, path=str(done.path.relative_to(ctx.paths.root)))


def misbehave(wanted: dict[str, str], step: int) -> None:
    if step != int(wanted.get("at", 3)):
        return
    if wanted.get("kind") == "poison":
        os.kill(os.getpid(), signal.SIGSEGV)
    if wanted.get("kind") == "nan":
        raise TrainingFailed("the loss is nan", code="nonfinite_loss", step=step)


def leave_orphans() -> None:
    """Leave a daemon behind, twice forked and in a session of its own."""
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.setsid()
            time.sleep(3600)
        os._exit(0)
    os.wait()


def publish(ctx: PhaseContext, journal: Journal) -> None:
    """Push to a made-up Hub: a file a repo, one line a commit."""
    repo = wishes(ctx.spec.name).get("repo", ctx.job)
    if owner := ctx.owner.try_lock(f"fake/{repo}"):
        raise Busy(f"{owner} publishes to {repo}", f"fake/{repo}")
    ctx.control.check()
    began = time.monotonic()
    journal.note("step")
    hub = ROOT / "fake-hub" / f"{repo}.jsonl"
    if not any(commit["job"] == ctx.job for commit in commits(hub)):
        ctx.owner.check_lease()
        commit = {"job": ctx.job, "claim": ctx.claim, "began": began, "t": time.monotonic()}
        append(hub, commit)
    model = read_json(ctx.paths.model / "state.json")
    assert model["state"] == final_state(model["steps"]), "a step was lost or computed twice"
    url = f"fake://{repo}"
    Published(repo=repo, revision=ctx.job, url=url).save(ctx.paths.published)
    ctx.emit(EventType.PUBLISHED, repo=repo, revision=ctx.job, url=url)


def commits(hub: Path) -> list[dict[str, Any]]:
    """Return the commits of a made-up repo."""
    if not hub.exists():
        return []
    with hub.open() as lines:
        fcntl.flock(lines, fcntl.LOCK_SH)
        return [json.loads(line) for line in lines]
