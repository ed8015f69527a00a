"""The broker in memory: what the two stores share, as they share a connection to a real one."""

import contextlib
import copy
import functools
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Concatenate, ParamSpec, Protocol, TypeVar

from ftq_shared.events import Event
from ftq_shared.in_memory.jobs import Held
from ftq_shared.store import Server


@dataclass(frozen=True)
class Fault:
    """What the next call meets."""

    error: Exception
    call: str  # the method that it meets; '' for any
    done: bool  # the call is carried out, and only its answer is lost


class MemoryBroker:
    """A broker that a test can stop, roll back and restart. `clock` is its time, Unix seconds."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self.down: Exception | None = None  # what every call raises meanwhile
        self.held = Held()
        self._clock = clock
        self._lock = threading.RLock()
        self._faults: list[Fault] = []
        self._run_id, self._started = "memory", float("-inf")

    @contextlib.contextmanager
    def call(self, name: str) -> Iterator[None]:
        """Carry out one call of a store, alone; raises what the test has asked for."""
        with self._lock:
            if self.down:
                raise self.down
            fault = next((fault for fault in self._faults if fault.call in ("", name)), None)
            if fault:
                self._faults.remove(fault)
                if not fault.done:
                    raise fault.error
            self.held.now_ms = int(self._clock() * 1000)
            yield
            if fault:
                raise fault.error

    def fail_next(self, error: Exception, call: str = "", *, done: bool = False) -> None:
        """Let the next call (of this method) raise `error`; `done`: after it has taken effect.

        Several are met one after the other.
        """
        self._faults.append(Fault(error, call, done))

    def events(self, job: str, *, milestones: bool = False) -> list[Event]:
        """Return a job's events, oldest first: all, or those that are kept for late readers."""
        with self._lock:
            it = self.held.jobs[job]
            numbers = it.kept if milestones else range(1, len(it.lines) + 1)
            return [Event.from_json(it.lines[number - 1]) for number in numbers]

    def snapshot(self) -> Held:
        """Return a copy of what the broker holds, to roll back to."""
        with self._lock:
            return copy.deepcopy(self.held)

    def roll_back(self, held: Held) -> None:
        """Forget all that has happened since a snapshot, as a broker that lost its last second."""
        with self._lock:
            self.held = copy.deepcopy(held)

    def restart(self, run_id: str) -> None:
        """Start the broker anew; until the first time it has always been there."""
        self._run_id, self._started = run_id, self._clock()

    def server(self) -> Server:
        return Server(self._run_id, self._clock() - self._started)


class _OnBroker(Protocol):
    broker: MemoryBroker


S = TypeVar("S", bound=_OnBroker)
P = ParamSpec("P")
T = TypeVar("T")


def atomic(method: Callable[Concatenate[S, P], T]) -> Callable[Concatenate[S, P], T]:
    """Make a method of a store one call of its broker."""

    @functools.wraps(method)
    def called(self: S, /, *args: P.args, **options: P.kwargs) -> T:
        with self.broker.call(method.__name__):
            return method(self, *args, **options)

    return called
