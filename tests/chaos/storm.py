"""The storm: a seeded random driver that submits jobs and breaks things, tick by tick."""

import heapq
import itertools
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from redis.exceptions import RedisError

from ftq_client.client import Client
from ftq_shared.broker import connect
from ftq_shared.errors import BrokerUnreachable, FtqError
from ftq_shared.keys import new_job_id
from tests.chaos import faults
from tests.chaos.fleet import Fleet, wait_for
from tests.chaos.jobs import (
    KINDS,
    WEIGHTS,
    Job,
    Terminal,
    Watcher,
    gone,
    make_spec,
    submit,
    submit_as_previous,
)

SETTLE_S = 240.0  # what all jobs together get to end once nothing breaks any more
QUEUE_DEPTH = 60  # jobs that wait at most: a storm over an empty queue proves little
REPOS = 25  # made-up Hub repos that the jobs share


@dataclass
class Storm:
    """One run. `jobs` and `faults` say how much; the rest is chance from the seed."""

    fleet: Fleet
    seed: int
    small_disk: Path | None = None
    tick_s: tuple[float, float] = (0.3, 1.2)
    jobs: dict[str, Job] = field(default_factory=dict)
    watchers: list[Watcher] = field(default_factory=list)
    terminals: list[Terminal] = field(default_factory=list)
    done: Counter[str] = field(default_factory=Counter)  # faults by name
    story: list[str] = field(default_factory=list)
    draining: set[str] = field(default_factory=set)
    drain_codes: list[int] = field(default_factory=list)
    # Monotonic: what the broker remembers ends with the first, it was back at the second.
    rollbacks: list[tuple[float, float]] = field(default_factory=list)
    lost_submits: int = 0

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)
        self.client: Client = self.fleet.client()
        self._later: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._threads: list[threading.Thread] = []
        self._started = time.monotonic()
        self._not_yet = self.rng.sample(list(faults.ALL), len(faults.ALL))  # each kind once first

    def later(self, seconds: float, what: Callable[[], None]) -> None:
        """Do something at a later tick."""
        heapq.heappush(self._later, (time.monotonic() + seconds, next(self._order), what))

    def run(self, jobs: int, wanted_faults: int) -> None:
        """Submit and break until both numbers are reached, then let everything end."""
        self.fleet.watch_file()
        next_fault = time.monotonic() + 1.0
        while len(self.jobs) < jobs or sum(self.done.values()) < wanted_faults:
            self.run_due(time.monotonic())
            self._submit_some(jobs)
            # As many faults as belong to the jobs so far: a storm over nothing proves little.
            due = 1 + wanted_faults * len(self.jobs) / jobs
            if time.monotonic() >= next_fault and sum(self.done.values()) < min(due, wanted_faults):
                self._break_something()
                next_fault = time.monotonic() + self.rng.uniform(*self.tick_s)
            time.sleep(0.05)
        while self._later:  # what is still broken is mended at its own time
            self.run_due(time.monotonic())
            time.sleep(0.05)
        self._settle()

    def say(self, text: str) -> None:
        line = f"{time.monotonic() - self._started:7.1f} s  {text}"
        self.story.append(line)
        print(line, flush=True)

    def submit_lost(self, remembers: float) -> int:
        """After a rollback: submit again what the broker has forgotten, as its client would."""
        # A job that was made again has a later time, so it is not looked at for ever.
        late = [job for job in self.jobs.values() if job.submitted > remembers - 1.0]
        lost = [job for job in late if gone(self.client, job)]
        for job in lost:
            del self.jobs[job.id]
            self._submit(job.kind)
        self.lost_submits += len(lost)
        return len(lost)

    def run_due(self, now: float) -> None:
        """Do what `later` was asked for, where its time has come."""
        while self._later and self._later[0][0] <= now:
            _, _, what = heapq.heappop(self._later)
            try:
                what()
            except (BrokerUnreachable, RedisError) as error:  # broken by another fault: later
                self.say(f"later: {error}")
                self.later(1.0, what)

    def rolled_back(self, first: float, last: float) -> bool:
        """Return whether the broker has forgotten anything that it said between these times."""
        return any(remembers <= last and first <= back for remembers, back in self.rollbacks)

    # -- one tick

    def _submit_some(self, jobs: int) -> None:
        try:
            room = QUEUE_DEPTH - int(self.client.redis.zcard("ftq:queue"))
            for _ in range(min(room, 10, jobs - len(self.jobs))):
                self._submit(self.rng.choices(KINDS, WEIGHTS)[0])
        except (BrokerUnreachable, RedisError) as error:
            self.say(f"submit: {error}")

    def _submit(self, kind: str) -> None:
        """Submit one job; the key of its client makes a second try harmless."""
        number, name = len(self.jobs), new_job_id()
        spec = make_spec(self.rng, kind, number, REPOS)
        previous = self.rng.random() < 0.15
        for _ in range(60):
            try:
                if previous:
                    job = submit_as_previous(self.client.redis, name, spec)
                    self.client.request_dispatch()
                else:
                    job = submit(self.client, name, spec)
                break
            except (BrokerUnreachable, RedisError):
                self.run_due(time.monotonic())
                time.sleep(0.5)
        else:
            raise AssertionError("a submit was refused for 30 s")
        assert job not in self.jobs, f"two submits made one job: {job}"
        # From the answer on: a submit that was tried again and again may be old, and just stored.
        self.jobs[job] = Job(job, kind, spec, time.monotonic())
        self._watch(job)

    def _watch(self, job: str) -> None:
        if self.rng.random() < 0.1 and len(self.watchers) < 60:
            self.watchers.append(Watcher(job))
            self._threads.append(self.watchers[-1].start(self.client))
        elif self.rng.random() < 0.03 and len(self.terminals) < 12:
            self.terminals.append(Terminal.start(self.fleet, job))

    def _break_something(self) -> None:
        fault = self._not_yet.pop() if self._not_yet else faults.pick(self.rng)
        try:
            said = fault(self)
        except (FtqError, RedisError) as error:
            self.say(f"{fault.__name__}: {error}")  # type: ignore[attr-defined]
            said = None
        if said:
            self.done[fault.__name__] += 1  # type: ignore[attr-defined]
            self.say(f"{sum(self.done.values()):3d}  {said}")
        elif fault.__name__ not in self.done:  # type: ignore[attr-defined]
            self._not_yet.insert(0, fault)  # there was nothing of its kind to break just now

    # -- the end

    def _settle(self) -> None:
        """Wait until every job has ended and every watcher has seen it."""
        redis = connect(self.fleet.broker.url)
        redis.config_set("maxmemory", 0)
        for worker in self.fleet.workers.values():
            worker.wake()
            worker.proxy.cut.clear()
            worker.proxy.swallow = 0
            if not worker.alive:
                worker.start()
        self.say("everything mended; waiting for the jobs to end")

        def open_jobs() -> dict[str, str]:
            records = self.client.store.get_many(list(self.jobs))
            return {r.id: f"{r.state} {r.phase}" for r in records if not r.state.terminal}

        wait_for(lambda: not open_jobs(), SETTLE_S, lambda: list(open_jobs().items())[:20], 0.5)
        self.say("all jobs have ended")
        deadline = time.monotonic() + 60.0
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        for terminal in self.terminals:
            terminal.process.wait(60)
