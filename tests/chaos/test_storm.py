"""Whatever breaks: no job is lost, none has two owners, no event is missing.

make test                           60 jobs, 22 faults, always the same seed
make chaos                          1,000 jobs, 100 faults; a new seed, which it prints
FTQ_CHAOS_SEED=7 make chaos         the same storm again, as far as timing allows
FTQ_CHAOS_JOBS=5000 FTQ_CHAOS_FAULTS=500 make chaos
"""

import os
import secrets
import time
from pathlib import Path

import pytest

from tests.chaos.fleet import fleet, small_disk
from tests.chaos.storm import Storm
from tests.chaos.verdict import as_json, judge, judge_end

SCALE = 0.2  # of the lease times: 6 s instead of 30


def seed(default: int | None = None) -> int:
    """Return the seed that was asked for, else the default, else a new one."""
    if given := os.environ.get("FTQ_CHAOS_SEED"):
        return int(given)
    return secrets.randbelow(10**6) if default is None else default


def weather(root: Path, jobs: int, faults: int, number: int) -> None:
    """Run one storm and judge it."""
    print(f"\nstorm: seed {number}, {jobs} jobs, {faults} faults")
    started = time.monotonic()
    with small_disk(root / "disk") as disk, fleet(root, SCALE) as made:
        # Two hosts whose clocks are an hour wrong, each in its own way: nothing may depend on them.
        made.add_worker("red", FTQ_CHAOS_CLOCK="3600")
        made.add_worker("green", FTQ_CHAOS_CLOCK="-3600")
        if disk:
            made.add_worker("small", FTQ_STORAGE=str(disk))
        else:
            print("this user may not mount a tmpfs: no disk will be full")
        made.wait_online(*made.workers)
        storm = Storm(made, number, disk)
        try:
            storm.run(jobs, faults)
        except AssertionError:
            for worker in made.workers.values():
                print(f"-- {worker.name}\n{worker.log_tail(40)}")
            raise
        verdict = judge(storm)
        print(verdict.table())
        judge_end(verdict, storm, made.stop_workers())
        print(as_json(storm, verdict))
        print(f"{time.monotonic() - started:.0f} s")
        wrong = {what: found[:5] for what, found in verdict.findings.items()}
        assert not wrong, f"seed {number}: {wrong}"


@pytest.mark.timeout(180)
def test_a_short_storm(tmp_path: Path) -> None:
    weather(tmp_path, jobs=60, faults=22, number=seed(1))


@pytest.mark.chaos
@pytest.mark.timeout(3600)
def test_a_thousand_jobs_and_a_hundred_faults(tmp_path: Path) -> None:
    jobs = int(os.environ.get("FTQ_CHAOS_JOBS") or 1000)
    faults = int(os.environ.get("FTQ_CHAOS_FAULTS") or 100)
    weather(tmp_path, jobs, faults, seed())
