"""Waiting for a worker that was asked to leave."""

import time

from ftq_client.client import Client

LOOK_S = 0.5  # between two looks


def wait_until_gone(client: Client, name: str, timeout_s: float | None) -> bool:
    """Return True once the worker has left or is lost, False when time is over."""
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    while any(host.name == name and host.online for host in client.workers()):
        if deadline is not None and time.monotonic() >= deadline:
            return False
        time.sleep(LOOK_S)
    return True
