"""Running checks so that one failure does not hide the next."""

import time
from collections.abc import Callable
from typing import TypeVar

from ftq_shared.errors import Refused
from ftq_shared.events import EventType
from ftq_worker.job.context import PhaseContext

T = TypeVar("T")


class Checks:
    """Sends one event per check, keeps what failed, refuses at the end."""

    def __init__(self, ctx: PhaseContext) -> None:
        self._ctx = ctx
        self._failed: list[tuple[str, Refused]] = []

    @property
    def all_passed(self) -> bool:
        """Whether no check has refused so far."""
        return not self._failed

    def run(self, name: str, check: Callable[[], tuple[T, str]]) -> T | None:
        """Return what `check` found, None when it refused. It returns (value, message).

        Anything but a Refused ends the phase: nobody can tell what the rest is worth.
        """
        self._ctx.control.check()
        started = time.monotonic()
        try:
            value, message = check()
        except Refused as error:
            self._failed.append((name, error))
            self._send(name, False, error.message, started, error.hint)
            return None
        self._send(name, True, message, started)
        return value

    def _send(self, name: str, ok: bool, message: str, started: float, hint: str = "") -> None:
        more = {"hint": hint} if hint else {}
        seconds = round(time.monotonic() - started, 3)
        self._ctx.emit(EventType.CHECK, name=name, ok=ok, message=message, seconds=seconds, **more)

    def finish(self) -> None:
        """Raise the first refusal, with a summary of the others, when there was one."""
        if not self._failed:
            return
        (_, first), *others = self._failed
        message = first.message
        if others:
            listed = "; ".join(f"{name}: {error.message}" for name, error in others)
            message = f"{message} (and {len(others)} more: {listed})"
        raise Refused(message, code=first.code, hint=first.hint, **first.where) from first
