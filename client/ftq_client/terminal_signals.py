"""Ctrl-Z, `fg`, SIGTERM and a closed terminal: whoever comes next finds it as it was."""

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

from ftq_client.view import View

_ENDING = (signal.SIGTERM, signal.SIGHUP)


@contextlib.contextmanager
def terminal_signals(view: View) -> Iterator[None]:
    """Let signals give the terminal back first, and then do what they do to any process."""
    suspend: Callable[[], None] | None = getattr(view, "suspend", None)
    if suspend is None or threading.current_thread() is not threading.main_thread():
        yield  # lines in a file need nobody's cursor
        return

    def end(signum: int, _: FrameType | None) -> None:
        with contextlib.suppress(OSError):  # the terminal is gone
            suspend()
        signal.signal(signum, signal.SIG_DFL)
        os.kill(os.getpid(), signum)

    def stop(signum: int, _: FrameType | None) -> None:
        suspend()
        signal.signal(signum, signal.SIG_DFL)
        os.kill(os.getpid(), signum)  # returns at SIGCONT; the view comes back by itself
        signal.signal(signum, stop)

    before = {signum: signal.getsignal(signum) for signum in (*_ENDING, signal.SIGTSTP)}
    for signum, handler in before.items():
        if handler is signal.SIG_DFL:  # nohup has it ignored, a program has its own
            signal.signal(signum, stop if signum is signal.SIGTSTP else end)
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


@contextlib.contextmanager
def interrupt_held() -> Iterator[None]:
    """Hold Ctrl-C back while something is made whose name has to be known; it is raised after.

    By a handler: a blocked signal would be taken by another thread, and raised here all the same.
    """
    pressed = []
    before = signal.signal(signal.SIGINT, lambda *_: pressed.append(True))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if pressed:
            signal.raise_signal(signal.SIGINT)
