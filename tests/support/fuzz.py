"""Seeded floods of hostile input, each through the readers that meet it; faults are counted.

Every function returns the faults: what was given, and an error that no reader may let out. A fault
is repeated by its seed.
"""

import io
import json
import random
from collections.abc import Callable, Iterator
from typing import Any

import click
import yaml
from redis import Redis

from ftq_client.cli import COMMANDS, cli
from ftq_client.view import make_view
from ftq_client.view.tables import jobs_table, show_block, workers_table
from ftq_shared import keys
from ftq_shared.errors import FtqError, UsageError
from ftq_shared.events import EVENTS, Event, EventType
from ftq_shared.hosts import HostRecord, read_host
from ftq_shared.job_record import JobRecord
from ftq_shared.lease import LEASE_FIELDS, read_lease
from ftq_shared.spec_input import apply_sets, load_yaml, parse_spec
from ftq_shared.spec_input.dotted_fields import leaves
from tests.support import hostile

Faults = list[tuple[str, str]]
JOB = "ft-aaaaaaaa"
# What a record or an event may be refused with, by the readers' own words.
DAMAGED = (ValueError, KeyError, TypeError, AttributeError, RecursionError)


def run(seed: int, count: int, one: Callable[[random.Random], str]) -> Faults:
    """Do `one` many times; it returns what was given, and raises a fault as `Fault`."""
    chance, faults = random.Random(seed), []
    for number in range(count):
        try:
            one(chance)
        except Fault as fault:
            faults.append((f"seed {seed}, number {number}: {fault.given[:300]}", fault.words))
    return faults


class Fault(Exception):
    """A reader let an error out."""

    def __init__(self, given: object, error: BaseException) -> None:
        self.given, self.words = ascii(given), f"{type(error).__name__}: {str(error)[:200]!a}"


def read(given: object, work: Callable[[], object], *allowed: type[Exception]) -> object:
    """Return what a reader makes of it, None where it refuses in one of the allowed ways."""
    try:
        return work()
    except allowed:
        return None
    except Exception as error:
        raise Fault(given, error) from error


# -- specs


GOOD_SPEC = {"model": "a/b", "dataset": "c/d", "train": {"epochs": 1, "args": {"optim": "x"}}}


def spec(chance: random.Random) -> str:
    """Read a spec: a mapping, a list of `--set`, or mutated YAML."""
    kind = chance.randrange(3)
    if kind == 0:
        raw = {**GOOD_SPEC, **{name: hostile.value(chance) for name in _names(chance)}}
        _check_spec(raw, lambda: raw)
        return "dict"
    if kind == 1:
        sets = [f"{name}={hostile.text(chance)[:200]}" for name in _names(chance)]
        _check_spec(sets, lambda: apply_sets(GOOD_SPEC, sets))
        return "sets"
    text = _mutated(yaml.safe_dump(GOOD_SPEC), chance)
    read(text, lambda: _check_spec(text, lambda: _from_text(text)), UsageError)
    return "yaml"


def _from_text(text: str) -> dict[str, Any]:
    path = hostile.scratch_file()
    path.write_bytes(text.encode(errors="surrogatepass"))
    return load_yaml(path)


def _names(chance: random.Random) -> list[str]:
    known = [*leaves(), "train", "train.args", "train.args.x", "data", "publish"]
    if chance.random() < 0.05:  # looking for the nearest name costs more than all the rest
        known = ["zzz", "a.b.c", "lr", "\u202e"]
    return chance.sample(known, chance.randrange(1, 4))


def _check_spec(given: object, raw: Callable[[], dict[str, Any]]) -> None:
    parsed = read(given, lambda: parse_spec(raw()), UsageError)
    if parsed is not None:
        read(given, lambda: parsed.sha256())  # type: ignore[attr-defined]


def _mutated(text: str, chance: random.Random) -> str:
    """Return a text with a few places cut, doubled, or replaced by something hostile."""
    marks = ["&a ", "*a", "!!int ", "!!binary ", "<<: ", "? ", "- ", "{", "[", "\t", ": ", "#", "|"]
    for _ in range(chance.randrange(1, 6)):
        at = chance.randrange(len(text) + 1)
        cut = chance.randrange(0, 6)
        text = text[:at] + chance.choice([*marks, hostile.text(chance)[:200]]) + text[at + cut :]
    return text


# -- records


def record(chance: random.Random) -> str:
    """Read a job's hash as every reader does, and show it in every view."""
    raw = hostile.record_of(JOB, chance)
    read(raw, lambda: read_lease(JOB, [raw.get(name) for name in LEASE_FIELDS]))
    found = read(raw, lambda: JobRecord.from_hash(raw, JOB), *DAMAGED)
    if isinstance(found, JobRecord):
        read(raw, lambda: found.inputs, FtqError)
        read(raw, lambda: found.error)
        row = read(raw, found.to_row)
        for show in (lambda: jobs_table([row]), lambda: show_block(row)):  # type: ignore[list-item, arg-type]
            read(raw, show)
        read(raw, lambda: json.dumps(row, allow_nan=False))
    return "record"


def host(chance: random.Random) -> str:
    """Read a host's hash, and show it."""
    raw = {
        "name": "h1",
        "instance": "i1",
        "slots": "2",
        "gpus": "[]",
        "storage_id": "s1",
        "beat_ms": "1700000000000",
        "running": "{}",
        "version": "1",
        "draining": "0",
    }
    for field in chance.sample(sorted(raw), chance.randrange(1, 4)):
        raw[field] = hostile.text(chance)
    found = read(raw, lambda: read_host("h1", raw, 1.7e12))
    if isinstance(found, HostRecord):
        row = {"name": found.name, "slots": found.slots, "gpus": [vars(g) for g in found.gpus]}
        read(raw, lambda: workers_table([row]))
    return "host"


# -- events


def event_line(chance: random.Random) -> str:
    """Return one line of an event, most of it as it should be."""
    type_ = chance.choice(list(EventType))
    data = {name: hostile.value(chance) for name in EVENTS[type_].fields if chance.random() < 0.8}
    raw = {
        "v": 1,
        "job": JOB,
        "seq": chance.randrange(1, 99),
        "attempt": 1,
        "host": "h1",
        "time": "2026-01-02T03:04:05.678Z",
        "phase": "train",
        "type": str(type_),
        "data": data,
    }
    if chance.random() < 0.4:
        raw[chance.choice(sorted(raw))] = hostile.value(chance)
    text = json.dumps(raw)
    if chance.random() < 0.2:
        text = text.replace(str(raw["seq"]), chance.choice(["1e999", "-1e999", "1e308", "x"]), 1)
    return text


def event(chance: random.Random) -> str:
    """Read a line as a tail does, and show it in every view."""
    line = event_line(chance)
    found = read(line, lambda: Event.from_json(line), *DAMAGED)
    if isinstance(found, Event):
        views: list[dict[str, bool]] = [{"json": True}, {"tty": False, "many": True}]
        if chance.random() < 0.05:  # it costs a hundred times as much
            views.append({"tty": True})
        for options in views:
            read(line, lambda options=options: _shown(found, options))  # type: ignore[misc]
    return "event"


def _shown(found: Event, options: dict[str, bool]) -> None:
    view = make_view(io.StringIO(), **options)  # type: ignore[arg-type]
    view.event(found)
    view.close()


def put(redis: Redis, chance: random.Random, number: int) -> None:
    """Put one poisoned job into a real broker: record, queue, leases and events."""
    job = f"ft-{number:08d}"
    raw = hostile.record_of(job, chance)
    if chance.random() < 0.05:
        redis.set(keys.job(job), "no hash")
    else:
        clean = {field: value.encode(errors="surrogatepass") for field, value in raw.items()}
        redis.hset(keys.job(job), mapping=clean)  # type: ignore[arg-type]
    redis.zadd(keys.JOBS, {job: number})
    redis.zadd(keys.QUEUE if chance.random() < 0.7 else keys.JOBS, {job: number})
    if chance.random() < 0.3:
        redis.sadd(keys.LEASES, job)
    for seq in range(1, 4):
        line = event_line(chance).encode(errors="surrogatepass")
        redis.xadd(keys.events(job), {"e": line}, id=f"{seq}-0")


# -- the command line


LEFT_OUT = {"worker", "hub", "up", "down", "demo"}  # they take the process's place, or start others


def command_line(chance: random.Random) -> list[str]:
    """Return a command with its own options and arguments, all of them hostile."""
    name = chance.choice([name for name in COMMANDS if name not in LEFT_OUT])
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    words = [name]
    for parameter in command.params:
        if chance.random() < 0.4:
            words += _given(parameter, chance)
    return words


def _given(parameter: click.Parameter, chance: random.Random) -> Iterator[str]:
    if isinstance(parameter, click.Option):
        yield chance.choice(parameter.opts)
        if parameter.is_flag:
            return
    text = hostile.text(chance)[:3000].replace("\x00", "")  # no argument of a process holds one
    yield text.replace("\ud800", "\udcff")  # a byte that is no UTF-8 comes as this one
