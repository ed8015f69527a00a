"""What can go wrong: each fault breaks one thing, says what, and plans its own end.

A fault returns one line of what it did, or None when there was nothing to break just now.
"""

import contextlib
import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from redis.exceptions import RedisError

from ftq_shared.errors import FtqError
from ftq_shared.states import JobState
from tests.chaos.fleet import Worker
from tests.chaos.jobs import Job, cancel_as_previous

if TYPE_CHECKING:
    from tests.chaos.storm import Storm

NOTE_S = 0.5  # how exact it is known what a broker has forgotten

Fault = Callable[["Storm"], str | None]


def _worker(storm: "Storm") -> Worker | None:
    standing = [w for w in storm.fleet.workers.values() if w.alive and not w.frozen]
    return storm.rng.choice(standing) if standing else None


def _kill(pid: int | None) -> bool:
    if not pid:
        return False
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
        return True
    return False


def kill_child(storm: "Storm") -> str | None:
    worker = _worker(storm)
    phases = worker.phases() if worker else []
    if not worker or not phases:
        return None
    pid = storm.rng.choice(phases)
    return f"child {pid} of {worker.name} killed" if _kill(pid) else None


def _kill_part(part: str) -> Fault:
    def fault(storm: "Storm") -> str | None:
        worker = _worker(storm)
        return f"{part} of {worker.name} killed" if worker and _kill(worker.pid(part)) else None

    fault.__name__ = f"kill_{part}"
    return fault


kill_agent, kill_celery, kill_zygote = map(_kill_part, ("agent", "celery", "zygote"))


def kill_supervisor(storm: "Storm") -> str | None:
    worker = _worker(storm)
    if not worker or not _kill(worker.pid("supervisor")):
        return None
    assert worker.process
    worker.process.wait()
    storm.later(storm.rng.uniform(0.0, 3.0), worker.start)
    return f"supervisor of {worker.name} killed; started again soon"


def _freeze(part: str) -> Fault:
    def fault(storm: "Storm") -> str | None:
        worker = _worker(storm)
        if not worker or not worker.freeze(part):
            return None
        seconds = 2 * storm.fleet.lease_s
        storm.later(seconds, worker.wake)
        return f"{part} of {worker.name} frozen for {seconds:.0f} s"

    fault.__name__ = f"freeze_{part}"
    return fault


freeze_agent, freeze_worker, freeze_celery = map(_freeze, ("agent", "worker", "celery"))


def restart_broker(storm: "Storm") -> str | None:
    down_s = storm.rng.uniform(0.0, 2.0)
    storm.fleet.restart_broker(down_s=down_s)
    return f"broker killed, {down_s:.1f} s down"


def roll_back_broker(storm: "Storm") -> str | None:
    remembers = storm.fleet.restart_broker(lost_s=1.0)
    storm.rollbacks.append((remembers - NOTE_S, time.monotonic()))
    again = storm.submit_lost(remembers)
    return f"broker killed, its last second lost; {again} submits with it, submitted again"


def drop_connections(storm: "Storm") -> str | None:
    storm.client.redis.client_kill_filter(skipme=True)
    return "all connections to the broker dropped"


def swallow_reply(storm: "Storm") -> str | None:
    worker = _worker(storm)
    if not worker:
        return None
    worker.proxy.swallow = 3
    return f"three replies to scripts of {worker.name} swallowed"


def cut_off(storm: "Storm") -> str | None:
    worker = _worker(storm)
    if not worker or worker.proxy.cut.is_set():
        return None
    seconds = storm.rng.uniform(0.5, 2.0) * storm.fleet.lease_s
    worker.proxy.cut.set()
    storm.later(seconds, worker.proxy.heal)
    return f"{worker.name} cut off for {seconds:.0f} s"


def fill_broker(storm: "Storm") -> str | None:
    redis = storm.client.redis
    redis.config_set("maxmemory", 1)

    def heal() -> None:
        storm.client.redis.config_set("maxmemory", 0)

    storm.later(storm.rng.uniform(1.0, 4.0), heal)
    return "broker at maxmemory"


def fill_disk(storm: "Storm") -> str | None:
    disk: Path | None = storm.small_disk
    if not disk or (disk / "filler").exists():
        return None
    with contextlib.suppress(OSError), (disk / "filler").open("wb", buffering=0) as filler:
        while True:
            filler.write(b"x" * 65536)
    storm.later(storm.rng.uniform(2.0, 6.0), lambda: (disk / "filler").unlink(missing_ok=True))
    return "the disk of the worker with a small one is full"


def _some_job(storm: "Storm", wanted: Callable[[Job, JobState], bool]) -> Job | None:
    for job in storm.rng.sample(list(storm.jobs.values()), min(30, len(storm.jobs))):
        with contextlib.suppress(FtqError, RedisError):
            if wanted(job, storm.client.get(job.id).state):
                return job
    return None


def cancel_job(storm: "Storm") -> str | None:
    job = _some_job(storm, lambda _, state: not state.terminal)
    if not job:
        return None
    job.cancelled = True
    if storm.rng.random() < 0.3:
        state = cancel_as_previous(storm.client.redis, job.id)
        how = " as by 0.1.0"
    else:
        state, how = storm.client.cancel(job.id), ""
    if storm.rng.random() < 0.3:
        storm.client.cancel(job.id)
    if state == JobState.CANCELLED:
        job.surely, job.cancelled_at = True, time.monotonic()
    return f"{job.id} cancelled{how} ({state})"


def retry_job(storm: "Storm") -> str | None:
    job = _some_job(storm, lambda _, state: state in (JobState.FAILED, JobState.CANCELLED))
    if not job:
        return None
    job.surely = False
    storm.client.retry(job.id)
    job.retried += 1
    return f"{job.id} retried"


def drain_worker(storm: "Storm") -> str | None:
    worker = _worker(storm)
    if not worker or worker.name in storm.draining:
        return None
    storm.client.drain(worker.name)
    storm.draining.add(worker.name)

    def again() -> None:
        if worker.alive:
            storm.later(0.5, again)
            return
        assert worker.process
        storm.drain_codes.append(worker.process.returncode)
        storm.draining.discard(worker.name)
        worker.start()

    storm.later(0.5, again)
    return f"{worker.name} drained; started again once it has left"


# fault -> weight
ALL: dict[Fault, int] = {
    kill_child: 10,
    kill_agent: 8,
    kill_celery: 6,
    kill_zygote: 4,
    kill_supervisor: 6,
    freeze_agent: 4,
    freeze_worker: 5,
    freeze_celery: 3,
    restart_broker: 6,
    roll_back_broker: 6,
    drop_connections: 6,
    swallow_reply: 8,
    cut_off: 6,
    fill_broker: 5,
    fill_disk: 5,
    cancel_job: 10,
    retry_job: 6,
    drain_worker: 6,
}


def pick(rng: random.Random) -> Fault:
    """Return a random fault, by weight."""
    return rng.choices(list(ALL), list(ALL.values()))[0]
