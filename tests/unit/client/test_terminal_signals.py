"""Ctrl-C where something is made: heard when its name is known."""

import os
import signal
import threading
import time

import pytest

from ftq_client.terminal_signals import interrupt_held


def test_an_interrupt_is_raised_after_what_must_be_known():
    made = []
    ended = threading.Event()
    beside = threading.Thread(target=ended.wait)  # the kernel may give it the signal
    beside.start()

    def make() -> None:
        with interrupt_held():
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.2)
            made.append("ft-7k3q2xhd")

    with pytest.raises(KeyboardInterrupt):
        make()
    ended.set()
    beside.join()
    assert made
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
