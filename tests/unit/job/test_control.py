"""A phase stands still once its lease may be somebody else's, whatever of its host has run yet."""

import threading
import time

import pytest

from ftq_worker.host.messages import StopReason
from ftq_worker.job.context import Control, Interrupted


def at_a_safe_point(control: Control) -> threading.Thread:
    """Let a thread come to a safe point; it ends once it may go on."""
    thread = threading.Thread(target=control.stop_requested, daemon=True)
    thread.start()
    thread.join(0.2)
    return thread


def test_a_time_that_is_over_holds_it_without_a_word_from_the_agent() -> None:
    control = Control()
    assert not at_a_safe_point(control).is_alive()
    control.pause_at = time.monotonic() - 1.0  # its host has stood still
    held = at_a_safe_point(control)
    assert held.is_alive()
    control.pause_at = time.monotonic() + 60.0
    control.resume()
    held.join(5)
    assert not held.is_alive()


def test_a_stop_comes_before_a_pause() -> None:
    control = Control()
    control.pause_at = time.monotonic() - 1.0
    control.stop(StopReason.DRAIN)
    assert control.stop_requested()
    with pytest.raises(Interrupted, match="drain"):
        control.check()
