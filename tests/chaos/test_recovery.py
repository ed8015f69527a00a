"""How soon a job trains again after a death, and what a dead or cut-off host may still do.

    make chaos     prints each figure beside its limit

Lease times are the real ones. The phases are fakes that load nothing, so that "plus loading the
model" is nothing; the workers, their zygotes and the broker are real. Times are read from the
jobs' journals, on the clock that all processes of a machine share.
"""

import itertools
import os
import signal
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from ftq_client.client import Client
from ftq_shared import keys
from ftq_shared.events import Event
from ftq_shared.lifetimes import CHILD_S, LEASE_S
from ftq_worker.host.config import UNCLEAN
from ftq_worker.host.process_tree import runs
from ftq_worker.supervisor.process import HANG_S
from tests.chaos.fleet import Fleet, Worker, claimed, fleet, journal, wait_for

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(900)]

KILLS = int(os.environ.get("FTQ_CHAOS_KILLS") or 20)
CALM_S = 6.0  # between two kills: longer than process.CALM_S, so that a restart is at once


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Fleet]:
    with fleet(tmp_path, scale=1.0) as made:
        yield made


def start_job(client: Client, steps: int = 100_000, ms: int = 20, save: int = 5) -> str:
    name = f"chaos steps={steps} ms={ms} save={save}"
    resources = {"max_attempts": 100, "gpus": "0"}
    spec = {"model": "a/b", "dataset": "c/d", "name": name, "resources": resources}
    return client.submit(spec)


def steps(worker: Worker, job: str) -> list[dict[str, Any]]:
    """Return what the job's training processes did, oldest first."""
    entries = journal(worker.home.parent, job)
    return [e for e in entries if e["phase"] == "train" and e["what"] == "step"]


def trains(worker: Worker, job: str, after: float, timeout_s: float = 60.0) -> dict[str, Any]:
    """Return the first step later than `after`, of a claim that had none before."""

    def found() -> dict[str, Any] | None:
        done = steps(worker, job)
        before = {entry["claim"] for entry in done if entry["t"] <= after}
        return next((e for e in done if e["t"] > after and e["claim"] not in before), None)

    first = wait_for(found, timeout_s, lambda: (steps(worker, job)[-3:], worker.log_tail()), 0.02)
    assert isinstance(first, dict)
    return first


def show(what: str, seconds: list[float], limit_s: float) -> None:
    ordered = sorted(seconds)
    p99 = ordered[max(0, -(-99 * len(ordered) // 100) - 1)]
    print(
        f"\n{what:<46} median {statistics.median(ordered):5.2f} s   p99 {p99:5.2f} s   "
        f"max {ordered[-1]:5.2f} s   limit {limit_s:4.1f} s   n={len(ordered)}"
    )
    assert p99 <= limit_s, ordered


def one_training(made: Fleet, **how: bool) -> tuple[Worker, Client, str]:
    """Return a worker, a client, and a job that trains there."""
    worker = made.add_worker("one", **how)
    made.wait_online("one")
    client = made.client()
    job = start_job(client)
    trains(worker, job, 0.0)
    return worker, client, job


def kill_again_and_again(made: Fleet, part: str, count: int, calm_s: float) -> list[float]:
    worker, client, job = one_training(made)
    taken, zygote = [], worker.pid("zygote")
    for _ in range(count):
        time.sleep(calm_s)
        pid = worker.phases()[0] if part == "child" else worker.pid(part)
        assert pid
        at = time.monotonic()
        os.kill(pid, signal.SIGKILL)
        taken.append(trains(worker, job, at)["t"] - at)
    assert worker.pid("zygote") == zygote, "it should have stayed warm"
    client.cancel(job)
    client.wait(job, timeout_s=30)
    return taken


def test_child_killed(made: Fleet) -> None:
    show("child SIGKILL to training again", kill_again_and_again(made, "child", KILLS, 0.5), 2.0)


def test_agent_killed(made: Fleet) -> None:
    show("agent SIGKILL to training again", kill_again_and_again(made, "agent", KILLS, CALM_S), 5.0)


def test_celery_killed(made: Fleet) -> None:
    """A running training does not notice; a job that comes meanwhile trains soon."""
    worker, client, running = one_training(made)
    taken = []
    for _ in range(KILLS):
        time.sleep(CALM_S)
        pid = worker.pid("celery")
        assert pid
        at = time.monotonic()
        os.kill(pid, signal.SIGKILL)
        job = start_job(client, steps=5)
        taken.append(trains(worker, job, at)["t"] - at)
    show("Celery SIGKILL, new job to training", taken, 5.0)
    done = steps(worker, running)
    assert [entry["step"] for entry in done] == list(range(1, len(done) + 1))
    gaps = [b["t"] - a["t"] for a, b in itertools.pairwise(done)]
    show("Celery SIGKILL, longest gap between steps", [max(gaps)], 2.0)
    client.cancel(running)
    client.wait(running, timeout_s=30)


def test_supervisor_killed_and_started_again(made: Fleet) -> None:
    """With the whole training stack to import: the new zygote is not warm."""
    worker, client, job = one_training(made, light=False)
    taken = []
    for _ in range(max(3, KILLS // 4)):
        time.sleep(CALM_S)
        supervisor, old = worker.pid("supervisor"), set(worker.phases())
        assert supervisor
        at = time.monotonic()
        os.kill(supervisor, signal.SIGKILL)
        assert worker.process
        worker.process.wait()
        worker.start()
        first = trains(worker, job, at)
        taken.append(first["t"] - at)
        assert not [pid for pid in old if runs(pid) and pid != first["pid"]]
    show("supervisor SIGKILL and new start to training again", taken, 15.0)
    client.cancel(job)
    client.wait(job, timeout_s=30)


def test_host_lost(made: Fleet) -> None:
    """Everything of a host is killed at once and nobody starts it again."""
    taken = []
    client = made.client()
    for number in range(3):
        lost, other = made.add_worker(f"lost{number}"), None
        made.wait_online(lost.name)
        job = start_job(client, steps=4000)
        trains(lost, job, 0.0)
        other = made.add_worker(f"other{number}")
        made.wait_online(other.name)
        assert lost.process
        supervisor = psutil.Process(lost.process.pid)
        at = time.monotonic()
        for process in [supervisor, *supervisor.children(recursive=True)]:
            process.kill()
        lost.process.wait()
        again = trains(other, job, at)
        taken.append(again["t"] - at)
        client.cancel(job)
        client.wait(job, timeout_s=30)
        assert other.process
        other.process.terminate()
        other.process.wait(60)
    show("host lost to training elsewhere", taken, LEASE_S + 5.0)


def test_broker_down_for_a_minute(made: Fleet) -> None:
    """No event is lost, no step is computed twice, and nobody else gets the job."""
    one, _ = made.add_worker("one"), made.add_worker("two")
    made.wait_online("one", "two")
    client = made.client()
    job = start_job(client, steps=3000, ms=20, save=10_000)
    trains(one, job, 0.0)
    made.restart_broker(down_s=60.0)
    record = client.wait(job, timeout_s=120)
    assert record.state == "succeeded", record.error
    done = steps(one, job)
    assert [entry["step"] for entry in done] == list(range(1, 3001))
    assert len({entry["claim"] for entry in done}) == 1
    stored: Any = client.redis.xrange(keys.events(job))
    events = [Event.from_json(fields["e"]) for _, fields in stored]
    assert [event.seq for event in events] == list(range(1, record.seq + 1))
    told = [event.data["step"] for event in events if event.type == "step"]
    assert told == list(range(1, 3001))
    paused = max(b["t"] - a["t"] for a, b in itertools.pairwise(done))
    print(
        f"\nbroker down for 60 s: 3000 steps once each, 1 owner, seq 1..{record.seq}; "
        f"paused {paused:.0f} s"
    )


# Slow steps under a frozen agent: 20 ms would fill its pipe, and that would stop the phase as well.
@pytest.mark.parametrize(("part", "ms"), [("worker", 20), ("agent", 200)])
def test_frozen_host(made: Fleet, part: str, ms: int) -> None:
    """SIGSTOP for two leases, then wake: no step of it after the other host has claimed."""
    one = made.add_worker("one")
    made.wait_online("one")
    client = made.client()
    job = start_job(client, ms=ms, save=1_000_000)  # a save would wait for the agent
    frozen_claim = trains(one, job, 0.0)["claim"]
    made.add_worker("two")
    made.wait_online("two")
    assert one.freeze(part)
    at = time.monotonic()
    again = trains(one, job, at, timeout_s=2 * LEASE_S)
    time.sleep(max(0.0, at + 2 * LEASE_S - time.monotonic()))
    one.wake()
    time.sleep(10.0)
    done = steps(one, job)
    last_of_frozen = max(entry["t"] for entry in done if entry["claim"] == frozen_claim)
    print(
        f"\nfrozen {part}: its last step {last_of_frozen - at:.1f} s after the SIGSTOP, the other "
        f"host's first {again['t'] - at:.1f} s"
    )
    assert again["claim"] != frozen_claim
    assert last_of_frozen < at + CHILD_S
    taken_over(client, job, last_of_frozen)


def taken_over(client: Client, job: str, last: float) -> None:
    """The old owner's `last` step lies before the new claim, and nothing of it was taken since."""
    client.cancel(job)
    client.wait(job, timeout_s=60)
    events = list(client.tail(job))
    assert last < claimed(events)[-1]
    newest = max(n for n, e in enumerate(events) if e.data.get("state") == "running")
    assert {event.host for event in events[newest:] if event.host} == {events[newest].host}


def test_host_cut_off(made: Fleet) -> None:
    """Its network swallows everything: it stops by itself before another host may claim."""
    one = made.add_worker("one")
    made.wait_online("one")
    client = made.client()
    job = start_job(client, save=1_000_000)
    old = trains(one, job, 0.0)["claim"]
    made.add_worker("two")
    made.wait_online("two")
    at = time.monotonic()
    one.proxy.cut.set()
    again = trains(one, job, at, timeout_s=2 * LEASE_S)
    time.sleep(max(0.0, at + 2 * LEASE_S - time.monotonic()))
    one.proxy.heal()
    time.sleep(10.0)
    last = max(entry["t"] for entry in steps(one, job) if entry["claim"] == old)
    show("host cut off to training elsewhere", [again["t"] - at], LEASE_S + 5.0)
    print(f"its last step {last - at:.1f} s after it was cut off")
    taken_over(client, job, last)


def test_celery_that_hangs(made: Fleet) -> None:
    """It is killed for its silence and started again; the training has no gap."""
    worker, client, job = one_training(made)
    time.sleep(CALM_S)  # its heartbeat must have been seen
    hung = worker.pid("celery")
    at = time.monotonic()
    assert worker.freeze("celery")
    wait_for(lambda: worker.pid("celery") not in (None, hung), 60.0, worker.log_tail)
    taken = time.monotonic() - at
    second = start_job(client, steps=5)
    trains(worker, second, at)
    show("Celery hangs, new Celery", [taken], HANG_S + 10.0)
    gaps = [b["t"] - a["t"] for a, b in itertools.pairwise(steps(worker, job))]
    show("Celery hangs, longest gap between steps", [max(gaps)], 2.0)


def test_a_rolling_restart_of_a_fleet(made: Fleet) -> None:
    """One worker after the other, as in a deploy: each step is taken once, at no attempt."""
    workers = [made.add_worker(name, slots=2) for name in ("one", "two")]
    made.wait_online("one", "two")
    client = made.client()
    jobs = [start_job(client, steps=2000, save=500) for _ in range(4)]
    for job in jobs:
        trains(workers[0], job, 0.0)
    for worker in workers:
        assert worker.process
        worker.process.terminate()
        assert worker.process.wait(60) == 0
        worker.start()
        made.wait_online(worker.name)
    claims = 0
    for job in jobs:
        record = client.wait(job, timeout_s=180)
        assert (record.state, record.attempt) == ("succeeded", 1)
        done = steps(workers[0], job)
        assert [entry["step"] for entry in done] == list(range(1, 2001))
        claims += len({entry["claim"] for entry in done})
    assert claims > len(jobs), "something went on elsewhere"


def test_a_phase_that_does_not_stop_is_killed(made: Fleet) -> None:
    """Its save takes ten minutes; a cancel does not wait for it."""
    worker, client, _ = one_training(made)
    name = "chaos steps=100000 ms=20 save=1000000 slow=600"
    job = client.submit(
        {"model": "a/b", "dataset": "c/d", "name": name, "resources": {"gpus": "0"}}
    )
    pid = trains(worker, job, 0.0)["pid"]
    at = time.monotonic()
    client.cancel(job)
    record = client.wait(job, timeout_s=120)
    assert record.state == "cancelled"
    assert not runs(pid)
    show("cancel of a phase that does not stop", [time.monotonic() - at], 5.0)


def test_a_drain_that_cannot_hand_back_says_so(made: Fleet) -> None:
    """The broker does not answer: exit code 75, no process left, and the lease runs out."""
    worker, client, job = one_training(made)
    worker.proxy.cut.set()
    assert worker.process
    worker.process.terminate()
    assert worker.process.wait(timeout=120) == UNCLEAN
    assert not made.left_over()
    made.add_worker("two")
    trains(worker, job, time.monotonic(), timeout_s=2 * LEASE_S)
    client.cancel(job)
    client.wait(job, timeout_s=30)
