"""One dispatch pass: read, plan, place, tell the hosts."""

import logging
from typing import Protocol

from ftq_shared.hosts import HostStore, running_after_restart
from ftq_shared.store import JobStore
from ftq_worker.dispatch.policy import free_room, has_gpus, plan

log = logging.getLogger(__name__)

WINDOW = 500  # queued jobs that are read at a time


class TellHost(Protocol):
    """Tells a host's agent that a phase was placed with it."""

    def __call__(self, queue: str, job: str, token: str) -> None:
        """Send the message; losing it is repaired by the reaper."""


def dispatch(store: JobStore, hosts: HostStore, tell_host: TellHost) -> int:
    """Place what fits now; return how many phases were placed.

    The dirty flag is cleared first: a change that comes while we read asks for another pass.
    """
    store.take_request()
    known = hosts.all()
    running = running_after_restart(store.server(), known)
    if running is None:
        extra = {"action": "broker_restarted"}
        log.info("the broker has just started: its hosts must say first what they run", extra=extra)
        return 0
    rooms = free_room(known, store.leases())
    placed, start = 0, 0
    while ids := store.queued(start, start + WINDOW - 1):
        free = [record for record in store.get_many(ids) if not record.is_held_by(running)]
        plans, waiting = plan(free, rooms, fleet_has_gpus=has_gpus(known))
        for one in plans:
            token, why = store.place(one)
            if not token:
                extra = {"action": "place_refused", "job": one.job, "host": one.host}
                log.info("place %s on %s: %s", one.job, one.host, why, extra=extra)
                continue
            queue = next(h.queue for h in known if h.name == one.host)
            tell_host(queue, one.job, token)
            placed += 1
        for one_waiting in waiting[:20]:  # those behind them wait for these
            store.say_waiting(one_waiting.job, one_waiting.reason, one_waiting.unblock)
        start += WINDOW - len(plans)
        if not any(room.slots > 0 or room.gpus for room in rooms):
            break  # reading on can place nothing
    return placed
