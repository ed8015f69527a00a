"""What stands in a real broker, read in one go and held against the model in `job_model`."""

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from unittest import mock

from redis import Redis

from ftq_shared import keys, scripts
from ftq_shared.broker import connect
from ftq_shared.hosts import HostStore
from ftq_shared.store import JobStore
from tests.support.job_model import Job, Model

CLOCK = "test:clock"  # seconds; not one of ftq's keys, so it does not go back with them
UNSET = dict.fromkeys(("beat", "round", "fresh_after", "exit_code"), "0")  # until it is written
NOISE = {"beat", "version", "updated_ms"}  # of a record: what a repeated call may still touch
FLEET = {keys.JOBS, keys.QUEUE, keys.LEASES, keys.HOSTS, keys.QUEUES, keys.INPUT_SIZES}

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
            assert name == "drain" or "redis.call('TIME')" in text, f"{name} asks another clock"
            return text.replace("redis.call('TIME')", now)

        redis = connect(url)
        with mock.patch.object(scripts, "source", stepped):
            store, hosts = JobStore(redis), HostStore(redis)
        return cls(redis, connect(url, binary=True), store, hosts, redis.register_script(LOOK))

    def close(self) -> None:
        self.redis.close()
        self.binary.close()


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
    """Compares all that it reads with a model; raises AssertionError."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.seen: dict[str, str] = {}  # stream -> newest id that was compared

    def look(self, model: Model) -> View:
        """Read everything, compare it with the model, and check what must always hold."""
        found = json.loads(self._world.look(args=[json.dumps(self.seen)]))
        values = {key: value for key, _, value in found}
        records = {
            key.removeprefix("ftq:job:"): _pairs(value)
            for key, value in values.items()
            if key.startswith("ftq:job:")
        }
        view = View({key: ttl for key, ttl, _ in found}, values, records)
        assert set(records) == set(model.jobs)
        for job in model.jobs.values():
            _check_record(view, job)
            _check_lifetimes(view, job)
            for name, wanted in (
                (keys.events(job.id), range(1, len(job.events) + 1)),
                (keys.kept(job.id), job.kept),
            ):
                self._check_stream(view, name, wanted, job, model.clock_s)
        _check_fleet(view, model)
        _check_room(view, model)
        _check_owners(view, model)
        return view

    def _check_stream(
        self, view: View, name: str, wanted: Sequence[int], job: Job, clock_s: int
    ) -> None:
        """Compare what is new in a stream: the numbers `wanted`, and what the model said."""
        count, new = view.values[name]
        assert count == len(wanted), f"{name} has {count} events, the model {len(wanted)}"
        for (seq, (_, line)), number in zip(new, wanted[count - len(new) :], strict=True):
            event = json.loads(line)
            assert seq == f"{number}-0"
            assert (event["job"], event["seq"]) == (job.id, number)
            assert (event["type"], _said(event)) == job.events[number - 1]
            assert event["type"] == "log" or event["time"] == _iso(clock_s)
            self.seen[name] = seq


def _check_record(view: View, job: Job) -> None:
    record, expected = view.records[job.id], _expected_record(job)
    got: dict[str, Any] = {name: record.get(name, UNSET.get(name, "")) for name in expected}
    got["deaths"] = _deaths(record)
    got["error"] = json.loads(record.get("error") or "{}").get("code", "")
    assert got == expected, f"{job.id}: {_difference(got, expected)}"


def _check_lifetimes(view: View, job: Job) -> None:
    """What belongs to a job that ended has a time to live; before, it has none."""
    for name in (keys.job(job.id), keys.events(job.id), keys.kept(job.id)):
        assert (view.ttls[name] > 0) is job.ended, f"{name} lives {view.ttls[name]} s"
    assert (keys.secret(job.id) in view.ttls) is job.secret
    assert view.ttls.get(keys.inputs(job.id)) == (-1 if job.inputs else None)


def _check_fleet(view: View, model: Model) -> None:
    """The queue, the leases, the hosts and the locks are those of the model."""
    jobs, values = model.jobs.values(), view.values

    def members(key: str) -> set[str]:
        return set(values.get(key, ()))

    queued = sorted(job.place for job in jobs if job.state == "queued")
    assert list(values.get(keys.QUEUE, ())) == [job for _, _, job in queued]
    assert members(keys.LEASES) == {job.id for job in jobs if job.leased}
    assert members(keys.JOBS) == set(model.jobs)
    assert members(keys.HOSTS) == set(model.hosts)
    held = {job.id for job in jobs if job.inputs}
    assert members(keys.INPUT_SIZES) == model.sent_inputs | held
    for name, host in model.hosts.items():
        record = _pairs(values[keys.host(name)])
        assert record["instance"] == host.instance
        assert int(record["beat_ms"]) == host.beat_s * 1000
        assert (record.get("drain_wanted") == "1") is host.drain_wanted
    locks = {keys.lock(what): f"{job} {token}" for what, (job, token) in model.locks.items()}
    assert {k: v for k, v in values.items() if k.startswith("ftq:lock:")} == locks


def _check_room(view: View, model: Model) -> None:
    """No GPU has two jobs, and no instance more than it offers."""
    slots: Counter[str] = Counter()
    taken: set[str] = set()
    for job in view.values.get(keys.LEASES, ()):
        instance, gpus = view.field(job, "instance"), set(json.loads(view.field(job, "gpus")))
        offered_slots, offered_gpus = model.offers[instance]
        slots[instance] += view.field(job, "slot") == "cpu"
        assert slots[instance] <= offered_slots, f"{instance} has no slot for {job}"
        assert gpus <= set(offered_gpus) - taken, f"{job} got a GPU that is not free"
        taken |= gpus


def _check_owners(view: View, model: Model) -> None:
    """No key without an owner or a time to live."""
    of_jobs = (keys.job, keys.events, keys.kept, keys.secret, keys.inputs)
    owned = FLEET | {key(job) for key in of_jobs for job in model.jobs}
    for key, ttl in view.ttls.items():
        assert ttl > 0 or key in owned, f"{key} is nobody's and lives for ever"


def _expected_record(job: Job) -> dict[str, Any]:
    """Return the fields of a record that the model knows."""
    return {
        "state": job.state,
        "phase": job.phase,
        "v": str(job.record_version),
        "attempt": str(job.attempt),
        "tries": str(job.tries),
        "cancel": str(int(job.cancel)),
        "token": job.token,
        "token_number": str(job.token_number),
        "host": job.host,
        "instance": job.instance,
        "slot": job.slot,
        "gpus": json.dumps(job.gpus),
        "beat": str(job.beat),
        "ordinal": str(job.ordinal),
        "storage_id": job.storage_id,
        "lock": keys.lock(job.lock) if job.lock else "",
        "waiting": job.waiting,
        "step": job.step,
        "seq": str(len(job.events)),
        "round": str(job.round),
        "fresh_after": str(job.fresh_after),
        "exit_code": str(job.exit_code),
        "deaths": job.deaths,
        "error": job.error,
    }


def _deaths(record: Mapping[str, str]) -> list[tuple[int, str, str, str]]:
    raw = json.loads(record.get("deaths") or "[]")
    return [(d["attempt"], d["phase"], d["host"], d["reason"]) for d in raw]


def _said(event: Mapping[str, Any]) -> str:
    data = event["data"]
    return str(data.get("state") or data.get("line") or data.get("reason"))


def _difference(got: dict[str, Any], expected: dict[str, Any]) -> str:
    return ", ".join(
        f"{name} is {got[name]!r}, the model says {expected[name]!r}"
        for name in expected
        if got[name] != expected[name]
    )


def _pairs(flat: list[str]) -> dict[str, str]:
    return dict(zip(flat[::2], flat[1::2], strict=True))


def _iso(clock_s: int) -> str:
    return datetime.fromtimestamp(clock_s, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
