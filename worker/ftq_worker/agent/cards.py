"""This host's cards: only one that has just computed something right is offered to the fleet.

Each is tried when the worker starts and whenever a phase that used it died or could not use it. One
that fails is set aside, the fleet is told why, and it is tried again, less and less often.
"""

import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from ftq_shared.hosts import Gpu, SickGpu
from ftq_worker.host.environment import child_environment

log = logging.getLogger(__name__)

TRY_S = 180.0  # a card that has computed nothing after so long hangs; torch's import is in it
FIRST_AGAIN_S = 60.0  # until a card that failed is tried again; twice as long each time
LAST_AGAIN_S = 3600.0
AT_ONCE = 4  # cards that are tried at a time: each try imports torch
UNTRIED = "is being tried"


@dataclass
class _Aside:
    """A card that is not offered."""

    why: str
    try_at: float  # monotonic


class Cards:
    """What the host offers of its cards. Safe to use from any thread."""

    def __init__(
        self,
        cards: Sequence[Gpu],
        on_change: Callable[[], None],
        fault: Callable[[str], str],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._cards = {card.uuid: card for card in cards}
        self._on_change = on_change  # the fleet should hear at once
        self._fault = fault  # of the card with this UUID, '' when it computes
        self._clock = clock
        self._lock = threading.Lock()
        self._aside = {uuid: _Aside(UNTRIED, clock()) for uuid in self._cards}
        self._faults = dict.fromkeys(self._cards, 0)  # in a row, without a phase that ended well
        self._news = threading.Event()

    def usable(self) -> list[Gpu]:
        with self._lock:
            return [card for uuid, card in self._cards.items() if uuid not in self._aside]

    def sick(self, among: Iterable[str] | None = None) -> list[SickGpu]:
        """Return the cards that are set aside, of all or of some."""
        with self._lock:
            return [
                SickGpu(card.uuid, card.name, card.memory_gb, self._aside[uuid].why)
                for uuid, card in self._cards.items()
                if uuid in self._aside and (among is None or uuid in among)
            ]

    def suspect(self, uuids: Iterable[str], why: str) -> None:
        """Set cards aside on which a phase has failed, until a try of their own goes well.

        The first try comes at once. A card that passes and fails its next phase again waits longer.
        """
        now = self._clock()
        with self._lock:
            for uuid in set(uuids) & self._cards.keys():
                self._aside[uuid] = _Aside(why, now + self._pause_s(uuid))
                self._faults[uuid] += 1
        self._tell()

    def trust(self, uuids: Iterable[str]) -> None:
        """Note that a phase has used these cards to its end."""
        with self._lock:
            self._faults.update(dict.fromkeys(set(uuids) & self._cards.keys(), 0))

    def watch(self, stopping: threading.Event) -> None:
        """Try the cards that are set aside, until the agent stops."""
        while not stopping.is_set():
            self._news.clear()
            with self._lock:
                times = [aside.try_at for aside in self._aside.values()]
            if not times or min(times) > self._clock():
                self._news.wait(min(1.0, min(times, default=float("inf")) - self._clock()))
                continue
            self.try_due()

    def try_due(self) -> None:
        """Try every card whose time has come."""
        now = self._clock()
        with self._lock:
            due = [uuid for uuid, aside in self._aside.items() if aside.try_at <= now]
        with ThreadPoolExecutor(AT_ONCE) as pool:
            for uuid, why in zip(due, pool.map(self._fault, due), strict=True):
                self._note(uuid, why)
        self._tell()

    def _note(self, uuid: str, why: str) -> None:
        extra = {"action": "card_tried", "gpu": uuid, "fault": why}
        with self._lock:
            if not why:
                del self._aside[uuid]
                log.info("card %s computes", uuid, extra=extra)
                return
            self._faults[uuid] += 1
            self._aside[uuid] = _Aside(why, self._clock() + self._pause_s(uuid))
        log.error("card %s is set aside: %s", uuid, why, extra=extra)

    def _pause_s(self, uuid: str) -> float:
        """Return how long to wait before the next try, in seconds; 0 after no fault in a row."""
        faults = self._faults[uuid]
        return min(LAST_AGAIN_S, FIRST_AGAIN_S * 2.0 ** (faults - 1)) if faults else 0.0

    def _tell(self) -> None:
        self._news.set()
        self._on_change()


def try_card(uuid: str) -> str:
    """Return why a card cannot be used, '' when it computes; takes seconds."""
    env = child_environment(os.environ) | {"CUDA_VISIBLE_DEVICES": uuid}
    command = [sys.executable, "-m", "ftq_worker.child.preflight"]
    try:
        done = subprocess.run(
            command, env=env, capture_output=True, text=True, timeout=TRY_S, check=False
        )
    except subprocess.TimeoutExpired:
        return f"it has computed nothing within {TRY_S:.0f} s"
    except OSError as error:
        return f"it cannot be tried: {error.strerror}"
    if done.returncode == 0:
        return ""
    said = (done.stdout.strip() or done.stderr.strip()).splitlines()
    return said[-1] if said else f"the try ended with exit code {done.returncode}"
