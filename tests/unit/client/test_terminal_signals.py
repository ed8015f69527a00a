"""Ctrl-C where something is made: heard when its name is known."""

import os
import signal

import pytest

from ftq_client.terminal_signals import interrupt_held


def test_an_interrupt_is_raised_after_what_must_be_known():
    made = ""
    with pytest.raises(KeyboardInterrupt):
        with interrupt_held():
            os.kill(os.getpid(), signal.SIGINT)
            made = "ft-7k3q2xhd"
        pytest.fail("it comes at the end at the latest")
    assert made
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])
