"""Real child processes that train a tiny job, and are killed without a word at a chosen moment.

The children are forked from a real zygote in the environment of a host (seeds and threads pinned),
hold a lease like any other, and lead a claim of their own each.
"""

import contextlib
import json
import os
import random
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ftq_worker.agent.child import Child, Spawn, ZygoteSpawn
from ftq_worker.host.environment import child_environment, clean_environment
from ftq_worker.host.messages import (
    Answer,
    ChildRequest,
    Ending,
    LeaseTimes,
    Outcome,
    Question,
    Secrets,
    read_report,
)
from ftq_worker.training.checkpoints import PART
from tests.support.tiny_jobs import TinyJob

DONE = Outcome(Ending.DONE)
LONGEST_S = 120.0  # a child of a tiny job ends long before
# What a step event says that depends on nothing but the training.
FIGURES = ("loss", "lr", "grad_norm", "epoch")


@contextlib.contextmanager
def zygote(folder: Path) -> Iterator[Spawn]:
    """Give what starts children, from a zygote of this test's own."""
    path = folder / "zygote.sock"
    env = child_environment(clean_environment(os.environ))
    command = [sys.executable, "-m", "ftq_worker.child.zygote", str(path), str(os.getpid())]
    process = subprocess.Popen(command, env=env)
    try:
        yield ZygoteSpawn(path)
    finally:
        process.kill()
        process.wait()


@dataclass(frozen=True)
class Kill:
    """When a child is killed: so long after the event of a step, wherever it is by then."""

    step: int
    delay_s: float


@dataclass
class Life:
    """What one child did until its end."""

    claim: str
    events: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    times: list[float] = field(default_factory=list)  # monotonic, of each event's arrival
    outcome: Outcome | None = None  # None: it could not say one
    ended_at: float = 0.0  # monotonic
    in_a_save: bool = False  # the kill left a checkpoint half written

    def of(self, type_: str) -> list[dict[str, Any]]:
        """Return the data of all events of a type."""
        return [data for seen, data in self.events if seen == type_]

    @property
    def killed(self) -> bool:
        return self.outcome is None


def request_of(job: TinyJob) -> ChildRequest:
    """Describe a job's phase as its agent would."""
    ctx = job.ctx
    return ChildRequest(
        job=ctx.job,
        phase=str(ctx.phase),
        part=str(ctx.phase),
        attempt=ctx.attempt,
        token_number=ctx.token_number,
        spec=ctx.spec.model_dump_json(),
        storage=str(ctx.paths.storage),
        endpoint=ctx.endpoint,
        cpu_threads=ctx.devices.cpu_threads,
        claim=ctx.claim,
        fresh_after=ctx.fresh_after,
    )


def live(spawn: Spawn, job: TinyJob, kill: Kill | None = None) -> Life:
    """Run one child to its end, or to the moment it is killed."""
    ctx, life = job.ctx, Life(job.ctx.claim)
    ctx.paths.claim_dir(ctx.claim).mkdir(parents=True, exist_ok=True)
    with ctx.paths.output(ctx.claim).open("ab") as output:
        child = spawn(request_of(job), output.fileno())
    try:
        now = time.monotonic()
        child.send(Secrets({}))
        child.send(LeaseTimes(now + LONGEST_S, now + LONGEST_S))
        _follow(child, life, kill, ctx.paths.output(ctx.claim))
    finally:
        child.end()
        child.close()
    life.ended_at = time.monotonic()
    part = ctx.paths.checkpoints(ctx.claim) / PART
    life.in_a_save = life.killed and part.is_dir() and any(part.iterdir())
    return life


def _follow(child: Child, life: Life, kill: Kill | None, output: Path) -> None:
    """Read what the child says; kill it when its moment has come."""
    deadline, death = time.monotonic() + LONGEST_S, None
    while time.monotonic() < deadline:
        patience_s = max(0.0, death - time.monotonic()) if death else 1.0
        ready, _, _ = select.select([child.events.fd, child.ended_fd], [], [], patience_s)
        for line in child.events.read() if child.events.fd in ready else ():
            _take(life, child, line)
            if kill and _is_step(life, kill.step) and death is None:
                death = time.monotonic() + kill.delay_s
        if death and time.monotonic() >= death:
            child.end()
        if child.ended or child.ended_fd in ready:
            for line in child.events.read():
                _take(life, child, line)
            return
    raise AssertionError(f"no end within {LONGEST_S} s: {life.events[-3:]}, {output.read_text()}")


def _take(life: Life, child: Child, line: bytes) -> None:
    """Note an event or the outcome; a question is answered as a broker would for the owner."""
    match read_report(line):
        case Outcome() as outcome:
            life.outcome = outcome
        case Question():
            child.send(Answer("ok"))
        case event:
            life.events.append((event["type"], event["data"]))
            life.times.append(time.monotonic())


def _is_step(life: Life, step: int) -> bool:
    return bool(life.events) and life.events[-1][0] == "step" and life.events[-1][1]["step"] >= step


@dataclass(frozen=True)
class Trial:
    """A job that ran unbroken, and its twin that was killed once or twice."""

    whole: TinyJob
    broken: TinyJob
    whole_life: Life
    lives: list[Life]

    @property
    def kills(self) -> int:
        return sum(life.killed for life in self.lives)

    @property
    def in_saves(self) -> int:
        return sum(life.in_a_save for life in self.lives)

    @property
    def repeated(self) -> int:
        """Return the steps that were trained more than once."""
        return sum(len(life.of("step")) for life in self.lives) - len(figures(self.lives))

    def differences(self) -> list[str]:
        """Return what the broken run ended up with that the unbroken one did not."""
        pairs = {
            "the weights": (model_bytes(self.whole), model_bytes(self.broken)),
            "the figures of the steps": (figures([self.whole_life]), figures(self.lives)),
            "the scores": (scores(self.whole), scores(self.broken)),
        }
        return [what for what, (expected, found) in pairs.items() if expected != found]


def attempt(
    spawn: Spawn,
    make: Callable[[str], TinyJob],
    plan: Callable[[Life], list[Kill]],
    chance: random.Random,
) -> Trial:
    """Run a job unbroken, and its twin over as many claims as it takes.

    `plan` chooses when the twin is killed; it is shown how the unbroken run went.
    """
    whole, broken = make("whole"), make("broken")
    whole_life = live(spawn, whole)
    assert whole_life.outcome == DONE, whole_life.outcome
    lives: list[Life] = []
    for kill in [*plan(whole_life), None]:
        lives.append(live(spawn, broken, kill))
        if not lives[-1].killed:
            break
        number = broken.ctx.token_number + 1
        broken = broken.again(claim_name=f"{number}-{chance.randbytes(4).hex()}")
    assert lives[-1].outcome == DONE, lives[-1].outcome
    return Trial(whole, broken, whole_life, lives)


def random_kills(whole: Life, chance: random.Random, save_every: int) -> list[Kill]:
    """Choose one or two moments: within any step, in or around a save, or while the run ends."""
    steps, gaps = len(whole.of("step")), gaps_after_steps(whole)
    first = chance.randrange(1, steps)
    chosen = [first]
    if chance.random() < 0.5:
        chosen.append(chance.randrange(first + 1, steps + 1))
    kills = []
    for step in chosen:
        if chance.random() < 0.5:  # the next save, whose beginning is this step's event
            step = min(steps, -(-step // save_every) * save_every)
        kills.append(Kill(step, chance.uniform(0.0, gaps[step])))
    return kills


def gaps_after_steps(life: Life) -> dict[int, float]:
    """Return the seconds from each step's event to the next one's, after the last to the end."""
    at = [
        (data["step"], when)
        for (kind, data), when in zip(life.events, life.times, strict=True)
        if kind == "step"
    ]
    ends = [when for _, when in at[1:]] + [life.ended_at]
    return {step: end - when for (step, when), end in zip(at, ends, strict=True)}


def figures(lives: list[Life]) -> dict[int, tuple[Any, ...]]:
    """Return what each step ended up with: the last claim that trained it counts."""
    steps = [data for life in lives for data in life.of("step")]
    return {data["step"]: tuple(data.get(name) for name in FIGURES) for data in steps}


def model_bytes(job: TinyJob) -> dict[str, bytes]:
    """Return every weight file of the finished model."""
    files = {path.name: path.read_bytes() for path in job.ctx.paths.model.glob("*.safetensors")}
    assert files, f"no weights in {job.ctx.paths.model}"
    return files


def scores(job: TinyJob) -> dict[str, Any]:
    """Return what training noted of the model, without what it took in time."""
    report = json.loads(job.ctx.paths.train_report.read_text())
    kept = {name: report[name] for name in ("best_step", "steps", "train_loss")}
    kept["golden_before"] = {k: v for k, v in report["golden_before"].items() if k != "seconds"}
    golden = json.loads(job.ctx.paths.golden_scores.read_text())
    kept["golden"] = {name: golden[name] for name in ("rows", "before", "probe")}
    kept["validation"] = [
        {k: v for k, v in entry.items() if k != "seconds"} for entry in report["validation"]
    ]
    return kept
