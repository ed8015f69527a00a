"""What stands in a real broker, read in one go and held against its twin in memory."""

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from typing import Any
from unittest import mock

from redis import Redis

from ftq_shared import keys, scripts
from ftq_shared.broker import connect
from ftq_shared.events import EventType
from ftq_shared.hosts import HostRecord, HostStore
from ftq_shared.in_memory import MemoryBroker
from ftq_shared.in_memory.jobs import Held, MemoryJob
from ftq_shared.job_record import JobRecord
from ftq_shared.states import TERMINAL
from ftq_shared.store import JobStore

CLOCK = "test:clock"  # seconds; not one of ftq's keys, so it does not go back with them
NOISE = {"beat", "version", "updated_ms"}  # of a record: what a repeated call may still touch
JSON = ("deaths", "error")  # of a record's summary: Lua may write its fields in another order
FLEET = {
    *(keys.JOBS, keys.QUEUE, keys.LEASES, keys.PLACES, keys.CARDS),
    *(keys.HOSTS, keys.QUEUES, keys.INPUT_SIZES),
}

# Everything under ftq:, with what is new in the streams: one round trip, one string.
LOOK = """
local seen, out = cjson.decode(ARGV[1]), {}
for _, key in ipairs(redis.call('KEYS', 'ftq:*')) do
  local kind, value = redis.call('TYPE', key)['ok'], nil
  if kind == 'hash' then value = redis.call('HGETALL', key)
  elseif kind == 'stream' then
    value = {redis.call('XLEN', key), redis.call('XRANGE', key, '(' .. (seen[key] or '0-0'), '+')}
  elseif kind == 'zset' then value = redis.call('ZRANGE', key, 0, -1)
  elseif kind == 'set' then value = redis.call('SMEMBERS', key)
  else value = redis.call('GET', key) end
  out[#out + 1] = {key, redis.call('TTL', key), value}
end
return cjson.encode(out)
"""


@dataclass
class World:
    """The real stores, on scripts whose clock a test can set."""

    redis: Redis
    binary: Redis
    store: JobStore
    hosts: HostStore
    look: Any
    histories: int = 0
    calls: int = 0  # that reached the broker

    @classmethod
    def on(cls, url: str, source: Callable[[str], str] = scripts.source) -> "World":
        """Connect to a broker; only these stores' scripts ask the key CLOCK for the time."""

        def stepped(name: str) -> str:
            text, now = source(name), f"{{redis.call('GET', '{CLOCK}'), 0}}"
            assert name in ("drain", "leases", "renew", "select") or "redis.call('TIME')" in text, (
                f"{name} asks another clock"
            )
            return text.replace("redis.call('TIME')", now)

        redis = connect(url)
        with mock.patch.object(scripts, "source", stepped):
            store, hosts = JobStore(redis), HostStore(redis)
        return cls(redis, connect(url, binary=True), store, hosts, redis.register_script(LOOK))

    def close(self) -> None:
        self.redis.close()
        self.binary.close()


@dataclass(frozen=True)
class Offer:
    """What an instance of a host has offered."""

    slots: int  # the most of all its heartbeats
    gpus: tuple[str, ...]


@dataclass(frozen=True)
class View:
    """What stands in the broker."""

    ttls: dict[str, int]
    values: dict[str, Any]
    records: dict[str, dict[str, str]]

    def field(self, job: str, name: str) -> str:
        return self.records.get(job, {}).get(name, "")

    def number(self, job: str, name: str) -> int:
        return int(self.field(job, name) or 0)

    def core(self) -> Any:
        """Return what a repeated call must not change."""
        return {
            job: {name: value for name, value in record.items() if name not in NOISE}
            for job, record in self.records.items()
        }


class Checker:
    """Compares all that it reads with the twin; raises AssertionError."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.seen: dict[str, str] = {}  # stream -> newest id that was compared

    def look(self, twin: MemoryBroker, inputs: Set[str], offers: Mapping[str, Offer]) -> View:
        """Read everything, compare it with the twin, and check what must always hold.

        `inputs` are the jobs whose files were sent to the broker.
        """
        found = json.loads(self._world.look(args=[json.dumps(self.seen)]))
        values = {key: value for key, _, value in found}
        records = {
            key.removeprefix("ftq:job:"): _pairs(value)
            for key, value in values.items()
            if key.startswith("ftq:job:")
        }
        view = View({key: ttl for key, ttl, _ in found}, values, records)
        held = twin.held
        assert set(records) == set(held.jobs)
        for name, job in held.jobs.items():
            _check_record(view, job)
            _check_lifetimes(view, job)
            self._check_stream(view, keys.events(name), range(1, len(job.lines) + 1), job)
            self._check_stream(view, keys.kept(name), job.kept, job)
        _check_fleet(view, held)
        _check_inputs(view, twin, inputs)
        _check_places(view)
        _check_room(view, offers)
        _check_owners(view, held)
        return view

    def _check_stream(self, view: View, name: str, wanted: Sequence[int], job: MemoryJob) -> None:
        """Compare what is new in a stream: the numbers `wanted`, and what the twin says."""
        count, new = view.values[name]
        assert count == len(wanted), f"{name} has {count} events, the twin {len(wanted)}"
        for (seq, (_, line)), number in zip(new, wanted[count - len(new) :], strict=True):
            assert seq == f"{number}-0"
            assert json.loads(line) == json.loads(job.lines[number - 1])
            self.seen[name] = seq


def _check_record(view: View, job: MemoryJob) -> None:
    """Every field is the twin's, but for how often it was changed."""
    real = JobRecord.from_hash(view.records[job.record.id])
    got, expected = _plain(replace(real, version=0)), _plain(replace(job.seen(), version=0))
    assert got == expected, f"{real.id}: {_difference(got, expected)}"


def _plain(record: JobRecord) -> dict[str, Any]:
    """Return the fields of a record with those of its summary; what is empty is not there."""
    inner = {name: text for name, text in record.summary.items() if text and name != "updated_ms"}
    parsed = {name: json.loads(inner[name]) for name in JSON if name in inner}
    return vars(record) | {"summary": None} | inner | parsed


def _check_lifetimes(view: View, job: MemoryJob) -> None:
    """What belongs to a job that ended has a time to live; before, it has none."""
    name, ended = job.record.id, job.record.state in TERMINAL
    for key in (keys.job(name), keys.events(name), keys.kept(name)):
        assert (view.ttls[key] > 0) is ended, f"{key} lives {view.ttls[key]} s"
    assert view.values.get(keys.secret(name), "") == job.sealed


def _members(view: View, key: str) -> set[str]:
    return set(view.values.get(key, ()))


def _check_fleet(view: View, held: Held) -> None:
    """The queue, the leases, the hosts and the locks are those of the twin."""
    values = view.values
    assert list(values.get(keys.QUEUE, ())) == held.queue()
    assert _members(view, keys.LEASES) == {job.record.id for job in held.leased()}
    assert _members(view, keys.JOBS) == set(held.jobs)
    assert _members(view, keys.HOSTS) == set(held.hosts)
    for name, host in held.hosts.items():
        record = _pairs(values[keys.host(name)])
        assert HostRecord.from_hash(record, host.record.beat_ms) == host.record
        assert (record.get("drain_wanted") == "1") is host.drain_wanted
    locks = {keys.lock(what): f"{job} {token}" for what, (job, token) in held.locks.items()}
    assert {k: v for k, v in values.items() if k.startswith("ftq:lock:")} == locks


def _check_inputs(view: View, twin: MemoryBroker, inputs: Set[str]) -> None:
    """Files that were sent are held, from the submit to the first end without a time to live."""
    submitted = twin.held.jobs.keys()
    ended = {
        job
        for job in inputs & submitted
        for event in twin.events(job)
        if event.type is EventType.STATE and event.data["state"] in TERMINAL
    }
    assert _members(view, keys.INPUT_SIZES) == inputs - ended
    for job in submitted:
        held = job in inputs - ended
        assert view.ttls.get(keys.inputs(job)) == (-1 if held else None)


def _check_places(view: View) -> None:
    """The index of the places says what the records say."""
    leases = sorted(_members(view, keys.LEASES))
    hosts = {job: view.field(job, "host") for job in leases}
    assert _pairs(view.values.get(keys.PLACES, [])) == hosts
    there = {
        keys.places(host): {job for job in leases if hosts[job] == host} for host in hosts.values()
    }
    known = {key: set(jobs) for key, jobs in view.values.items() if key.startswith(keys.places(""))}
    assert known == there
    cards = {gpu: job for job in leases for gpu in json.loads(view.field(job, "gpus"))}
    assert _pairs(view.values.get(keys.CARDS, [])) == cards


def _check_room(view: View, offers: Mapping[str, Offer]) -> None:
    """No GPU has two jobs, and no instance more than it offers."""
    slots: Counter[str] = Counter()
    taken: set[str] = set()
    for job in view.values.get(keys.LEASES, ()):
        instance, gpus = view.field(job, "instance"), set(json.loads(view.field(job, "gpus")))
        offer = offers[instance]
        slots[instance] += view.field(job, "slot") == "cpu"
        assert slots[instance] <= offer.slots, f"{instance} has no slot for {job}"
        assert gpus <= set(offer.gpus) - taken, f"{job} got a GPU that is not free"
        taken |= gpus


def _check_owners(view: View, held: Held) -> None:
    """No key without an owner or a time to live."""
    of_jobs = (keys.job, keys.events, keys.kept, keys.secret, keys.inputs)
    owned = FLEET | {key(job) for key in of_jobs for job in held.jobs}
    owned |= {key for key in view.ttls if key.startswith(keys.places(""))}
    for key, ttl in view.ttls.items():
        assert ttl > 0 or key in owned, f"{key} is nobody's and lives for ever"


def _difference(got: dict[str, Any], expected: dict[str, Any]) -> str:
    return ", ".join(
        f"{name} is {got.get(name)!r}, the twin says {expected.get(name)!r}"
        for name in got | expected
        if got.get(name) != expected.get(name)
    )


def _pairs(flat: list[str]) -> dict[str, str]:
    return dict(zip(flat[::2], flat[1::2], strict=True))
