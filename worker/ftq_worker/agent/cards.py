"""This host's cards: only one that has just computed something right is offered to the fleet.

Each is tried when the worker starts and whenever a phase that used it died or could not use it. One
that fails is set aside, the fleet is told why, and it is tried again, less and less often.
"""

import logging
import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from ftq_shared.hosts import Gpu, SickGpu
from ftq_shared.processes import own_module
from ftq_worker.host.environment import child_environment

log = logging.getLogger(__name__)

TRY_S = 180.0  # a card that has computed nothing after so long hangs; torch's import is in it
FIRST_AGAIN_S = 60.0  # until a card that failed is tried again; twice as long each time
LAST_AGAIN_S = 3600.0
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
        self._trying: set[str] = set()

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

    def suspect(self, uuids: Iterable[str], why: str, *, fault: bool) -> bool:
        """Set cards aside on which a phase has failed, until a try of their own goes well.

        `fault`: the card said so itself. The first try comes at once; a card that passes it and
        then has a fault again waits longer. Returns whether one of them had a fault before.
        """
        now, mine = self._clock(), set(uuids) & self._cards.keys()
        with self._lock:
            again = any(self._faults[uuid] for uuid in mine)
            for uuid in mine:
                self._aside[uuid] = _Aside(why, now + (self._pause_s(uuid) if fault else 0.0))
                self._faults[uuid] += fault
        self._on_change()
        return again

    def trust(self, uuids: Iterable[str]) -> None:
        """Note that a phase has used these cards to its end."""
        with self._lock:
            self._faults.update(dict.fromkeys(set(uuids) & self._cards.keys(), 0))

    def try_due(self) -> list[threading.Thread]:
        """Try every card whose time has come, each in a thread of its own: one may hang."""
        now = self._clock()
        with self._lock:
            due = [uuid for uuid, aside in self._aside.items() if aside.try_at <= now]
            due = [uuid for uuid in due if uuid not in self._trying]
        threads = []
        for uuid in due:
            thread = threading.Thread(target=self._try, args=(uuid,), daemon=True)
            with self._lock:
                self._trying.add(uuid)
            try:
                thread.start()
            except RuntimeError:  # no thread to be had: the next look tries it
                self._trying.discard(uuid)
                raise
            threads.append(thread)
        return threads

    def _try(self, uuid: str) -> None:
        try:
            why = self._fault(uuid)
        except Exception as error:  # a card that nobody could try is not offered
            log.exception("trying card %s", uuid, extra={"action": "card_tried", "gpu": uuid})
            why = f"it cannot be tried: {error!r}"
        self._note(uuid, why)
        with self._lock:
            self._trying.discard(uuid)
        self._on_change()

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


def try_card(uuid: str) -> str:
    """Return why a card cannot be used, '' when it computes; takes seconds."""
    env = child_environment(os.environ) | {"CUDA_VISIBLE_DEVICES": uuid}
    command = own_module("ftq_worker.child.preflight")
    try:
        with tempfile.TemporaryFile() as output:
            process = subprocess.Popen(
                command, env=env, stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )
            try:
                code = process.wait(TRY_S)
            except subprocess.TimeoutExpired:
                process.kill()  # not waited for: it may hang in the driver
                return f"it has computed nothing within {TRY_S:.0f} s"
            output.seek(0)
            said = output.read().decode(errors="replace").strip().splitlines()
    except OSError as error:
        return f"it cannot be tried: {error.strerror}"
    if code == 0:
        return ""
    return said[-1] if said else f"the try ended with exit code {code}"
