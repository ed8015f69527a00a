"""One dispatch pass: read, plan, place, tell the hosts."""

import contextlib
import logging
import time
from collections.abc import Iterator
from typing import Protocol

from redis.exceptions import ResponseError

from ftq_shared.broker import is_damage
from ftq_shared.hosts import HostStore, running_after_restart
from ftq_shared.job_record import RECORD_VERSION, JobRecord
from ftq_shared.store import JobStore, Placement
from ftq_worker.dispatch.policy import Waiting, free_room, has_gpus, plan

log = logging.getLogger(__name__)

WINDOW = 500  # queued jobs that are read at a time
PAUSES = 3.0  # times what a pass took, before the next
LONGEST_PAUSE_S = 2.0
LONGEST_S = 10.0  # that one worker goes on with them


class TellHost(Protocol):
    """Tells a host's agent that a phase was placed with it."""

    def __call__(self, queue: str, job: str, token: str) -> None:
        """Send the message; losing it is repaired by the reaper."""


@contextlib.contextmanager
def _damage_of_one(job: str) -> Iterator[None]:
    """Leave a job alone whose record is damaged: it keeps no other from its place."""
    try:
        yield
    except ResponseError as error:
        if not is_damage(error):
            raise
        extra = {"action": "record_damaged", "job": job}
        log.warning("record %s is damaged: %s", job, error, extra=extra)


def _place(store: JobStore, one: Placement, *, mixed: bool) -> str:
    """Carry out one placement; return its token, '' when it no longer holds."""
    token, why = "", "its record is damaged"
    with _damage_of_one(one.job):
        token, why = store.place(one, mixed=mixed)
    if not token:
        extra = {"action": "place_refused", "job": one.job, "host": one.host}
        log.info("place %s on %s: %s", one.job, one.host, why, extra=extra)
    return token


def _behind(record: JobRecord, owner: str) -> Waiting:
    repo = "/".join(record.awaits.split("/")[-2:])
    reason = f"{owner} publishes to {repo}"
    return Waiting(record.id, reason, f"it ends by itself; or: ftq cancel {owner}")


def dispatch(store: JobStore, hosts: HostStore, tell_host: TellHost) -> int:
    """Make dispatch passes until none is asked for; return how many phases were placed.

    One worker of the fleet makes them at a time: who comes meanwhile leaves its request to it. They
    take a fixed share of the time, or in a large fleet they would fill the broker. After LONGEST_S
    a request is left to whoever takes the next message.
    """
    placed, until = 0, time.monotonic() + LONGEST_S
    while time.monotonic() < until and store.begin_pass():
        try:
            began = time.monotonic()
            placed += _pass(store, hosts, tell_host)
            time.sleep(min(LONGEST_PAUSE_S, PAUSES * (time.monotonic() - began)))
        finally:
            store.end_pass()
        if not store.is_requested():
            break
    return placed


def _pass(store: JobStore, hosts: HostStore, tell_host: TellHost) -> int:
    """Place what fits now; return how many phases were placed.

    The request is taken first: a change that comes while we read asks for another pass.
    """
    store.take_request()
    known = hosts.all()
    running = running_after_restart(store.server(), known)
    if running is None:
        extra = {"action": "broker_restarted"}
        log.info("the broker has just started: its hosts must say first what they run", extra=extra)
        return 0
    mixed = any(host.online and host.record_version < RECORD_VERSION for host in known)
    rooms, now_ms = free_room(known, store.leases()), store.now_s() * 1000
    placed, start = 0, 0
    while store.keep_pass() and (ids := store.queued(start, start + WINDOW - 1)):
        free = [record for record in store.get_many(ids) if not record.is_held_by(running)]
        blocked = store.awaited(free)
        ready = [record for record in free if record.id not in blocked]
        plans, waiting = plan(ready, rooms, fleet_has_gpus=has_gpus(known), now_ms=now_ms)
        waiting += [_behind(it, blocked[it.id]) for it in free if it.id in blocked]
        for one in plans:
            if token := _place(store, one, mixed=mixed):
                queue = next(h.queue for h in known if h.name == one.host)
                tell_host(queue, one.job, token)
                placed += 1
        for it in waiting[:20]:  # those behind them wait for these
            with _damage_of_one(it.job):
                store.say_waiting(it.job, it.reason, it.unblock)
        start += WINDOW - len(plans)
        if not any(room.slots > 0 or room.gpus for room in rooms):
            break  # reading on can place nothing
    return placed
