"""Ctrl-C where something is made: heard when its name is known."""

import os
import signal

import pytest

from ftq_client.terminal_signals import interrupt_held


def test_an_interrupt_is_raised_after_what_must_be_known():
    made = []

    def make() -> None:
        with interrupt_held():
            os.kill(os.getpid(), signal.SIGINT)
            made.append("ft-7k3q2xhd")

    with pytest.raises(KeyboardInterrupt):
        make()
    assert made
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])
