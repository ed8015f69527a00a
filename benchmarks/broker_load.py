"""What a fleet at work costs its broker, with the agents' own calls and without children.

    python -m benchmarks.broker_load [HOSTS ...]      (100 and 1000)

Every host holds 8 leases and does, in turns and without waiting, what its agent does in SECONDS
seconds: heartbeats, renewals, looks at the leases that it watches. The server's CPU seconds over
SECONDS are its share of a core. Not counted: the events of the phases, and Celery's own polling
(1.5 commands a second and host, docs/decisions/0003-celery-settings.md).

Beside it, of the same fleet, what the looks cost where every host looked at all leases and hosts
every 5 seconds, as before
docs/decisions/0017: measured on a few and multiplied. And what a placement takes
in the server, with the fleet's leases.
"""

import math
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from redis import Redis

from ftq_client.local.valkey import EmbeddedBroker
from ftq_shared import keys
from ftq_shared.broker import connect
from ftq_shared.hosts import HostStore
from ftq_shared.job_record import RECORD_VERSION
from ftq_shared.lifetimes import BEAT_S, RENEW_S
from ftq_shared.spec import JobSpec
from ftq_shared.store import JobStore, Placement
from ftq_worker.agent.leases import Reaper
from ftq_worker.agent.main import LOOK_S, REPAIR_S, watch_s
from ftq_worker.agent.observers import HOUSE, watched_by

SECONDS = 30.0  # that are played for each host
CARDS = 8  # of each host, a lease each
SAMPLE = 5  # hosts that look as before
SPEC = JobSpec(model="org/model", dataset="org/data")


class SimulatedHost:
    """The calls of one agent."""

    def __init__(self, redis: Redis, number: int) -> None:
        self.store, self.hosts = JobStore(redis), HostStore(redis)
        self.name, self.instance = f"host-{number:04d}", f"i{number:04d}"
        self.now_s = 0.0
        self.reaper = Reaper(self.store, "s", lambda lease: None, lambda: self.now_s)
        self.cards = [f"GPU-{number:04d}-{card}" for card in range(CARDS)]
        self.leases: dict[str, str] = {}
        self.watched: set[str] = set()

    def beat(self) -> None:
        """Give a heartbeat."""
        server = self.store.server()
        self.hosts.announce_key("key")
        fields = {
            "slots": "2",
            "gpus": [{"uuid": u, "name": "Card", "memory_gb": 80} for u in self.cards],
            "storage_id": "s",
            "draining": "0",
            "version": "0",
            "record_version": str(RECORD_VERSION),
            "running": self.leases,
            "broker": server.run_id,
        }
        self.hosts.heartbeat(self.name, self.instance, "", fields)

    def take_a_job(self, job: str, card: str) -> None:
        """Submit a job, have it placed here, and claim it."""
        store = self.store
        store.submit(job, SPEC, client_key=job, owner="me@here", endpoint="")
        version = store.get(job).version
        token, why = store.place(Placement(job, version, self.name, self.instance, "gpu", (card,)))
        assert token, why
        store.claim(job, token, nonce="n", instance=self.instance, storage_id="s")
        self.leases[job] = token

    def renew(self) -> None:
        """Renew all leases."""
        assert set(self.store.renew(self.leases).values()) == {"ok"}

    def watch(self) -> None:
        """Work out whose leases we watch."""
        known, online = self.hosts.names()
        self.watched = watched_by(self.name, known, online)
        if HOUSE in self.watched:
            self.watched |= self.store.hosts_with_leases() - known - online

    def look(self) -> None:
        """Look at the leases that we watch."""
        leases = self.store.leases_of(sorted(self.watched))
        assert not self.reaper.look(leases, lambda: self.store.server().run_id)

    def repair(self) -> None:
        """Look for what messages may have missed."""
        self.store.queued(0, 0)
        if HOUSE in self.watched:
            self.hosts.forget_old_queues()

    def look_as_before(self) -> None:
        """Look at all leases, and at all hosts."""
        self.store.leases()
        self.store.server()
        self.hosts.all()
        self.hosts.forget_old_queues()
        self.store.queued(0, 0)

    def play(self, seconds: float, fleet: int) -> None:
        """Do all that is due in so many seconds, in a fleet of so many hosts, in order of time."""
        work = (
            (BEAT_S, self.beat),
            (RENEW_S, self.renew),
            (watch_s(fleet), self.watch),
            (LOOK_S, self.look),
            (REPAIR_S, self.repair),
        )
        due = [(n * every, call) for every, call in work for n in range(math.ceil(seconds / every))]
        for self.now_s, call in sorted(due, key=lambda one: one[0]):
            call()


class Meter:
    """CPU seconds and commands of a server since the last look."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._pid = int(self._info("server")["process_id"])
        self._last = self._now()

    def _info(self, section: str) -> Any:
        return self._redis.info(section)

    def _now(self) -> tuple[float, int]:
        stat = Path(f"/proc/{self._pid}/stat").read_text().rpartition(")")[2].split()
        cpu_s = (int(stat[11]) + int(stat[12])) / os.sysconf("SC_CLK_TCK")
        return cpu_s, int(self._info("stats")["total_commands_processed"])

    def since(self) -> tuple[float, int]:
        """Return CPU seconds and commands."""
        before, self._last = self._last, self._now()
        return self._last[0] - before[0], self._last[1] - before[1]


def main() -> None:
    """Measure fleets of the given sizes."""
    for count in map(int, sys.argv[1:] or ("100", "1000")):
        with tempfile.TemporaryDirectory() as folder, EmbeddedBroker(Path(folder)) as broker:
            measure(connect(broker.url), count)


def measure(redis: Redis, count: int) -> None:
    """Measure one fleet."""
    fleet = [SimulatedHost(redis, number) for number in range(count)]
    for number, host in enumerate(fleet):
        host.beat()
        for card in host.cards:
            host.take_a_job(job_id(number * CARDS + int(card[-1])), card)
        host.beat()
    assert len(JobStore(redis).leases()) == count * CARDS
    meter = Meter(redis)
    began = time.monotonic()
    cpu_s, commands = 0.0, 0
    for start in range(0, count, 20):
        _stay_online(redis, fleet)
        meter.since()
        for host in fleet[start : start + 20]:
            host.play(SECONDS, count)
        more_s, more = meter.since()
        cpu_s, commands = cpu_s + more_s, commands + more
    print(
        f"{count} hosts, {count * CARDS} leases: {100 * cpu_s / SECONDS:.1f} % of a core, "
        f"{commands / SECONDS / count:.1f} commands a second and host "
        f"(played in {time.monotonic() - began:.0f} s)"
    )
    meter.since()
    for host in fleet[:SAMPLE]:
        host.look_as_before()
    cpu_s, commands = meter.since()
    looks = count / min(5.0, max(1.0, count / 4)) / SAMPLE  # a second, of so many measured
    print(
        f"  the looks alone, before: {100 * cpu_s * looks:.0f} % of a core, "
        f"{commands * looks / count:.0f} commands a second and host"
    )
    fleet[0].beat()
    print(f"  a placement in the server: {placement_ms(fleet[0]):.3f} ms")


def _stay_online(redis: Redis, fleet: list[SimulatedHost]) -> None:
    """Let all hosts have been heard of just now: they are played one after the other."""
    now_ms = time.time() * 1000
    redis.zadd(keys.QUEUES, {keys.host_queue(it.name, it.instance): now_ms for it in fleet})


def placement_ms(host: SimulatedHost) -> float:
    """Return what one placement takes in the server, in milliseconds."""
    store, rounds = host.store, 200
    jobs = [job_id(10_000_000 + number) for number in range(rounds)]
    redis: Any = store.redis
    taken = 0.0
    for job in jobs:
        store.submit(job, SPEC, client_key=job, owner="me@here", endpoint="")
        version = store.get(job).version
        redis.config_resetstat()
        plan = Placement(job, version, host.name, host.instance, "cpu")
        token, why = store.place(plan)
        assert token, why
        taken += redis.info("commandstats")["cmdstat_evalsha"]["usec"]
        store.requeue(job, token, "measured", counts_attempt=False)
        store.cancel(job)
    return taken / rounds / 1000


def job_id(number: int) -> str:
    """Return the id of a simulated job."""
    return f"ft-{number:08d}"


if __name__ == "__main__":
    main()
