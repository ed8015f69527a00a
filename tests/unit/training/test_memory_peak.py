"""What a card held is told after the first steps. The card is a mock: two calls of torch.cuda."""

from types import SimpleNamespace

import pytest
import torch
from tests.support.tiny_jobs import Recorder
from transformers import TrainerControl, TrainerState

from ftq_shared.events import EventType
from ftq_worker.training.memory_peak import MemoryPeak


class MockCard:
    """Stands for torch.cuda's counters of the allocator."""

    def __init__(self) -> None:
        self.peak = 70 * 10**9  # what loading held

    def reset_peak_memory_stats(self) -> None:
        self.peak = 0

    def max_memory_allocated(self) -> int:
        return self.peak

    def max_memory_reserved(self) -> int:
        return self.peak + 10**9

    def get_device_properties(self) -> SimpleNamespace:
        return SimpleNamespace(total_memory=80 * 10**9)


@pytest.fixture
def card(monkeypatch):
    made = MockCard()
    for name in ("reset_peak_memory_stats", "max_memory_allocated", "max_memory_reserved"):
        monkeypatch.setattr(torch.cuda, name, getattr(made, name))
    monkeypatch.setattr(torch.cuda, "get_device_properties", made.get_device_properties)
    return made


def run(card, steps: int, counted: int | None = 30 * 10**9, start: int = 0):
    told = Recorder()
    callback = MemoryPeak(told, counted)
    state = TrainerState(global_step=start, max_steps=steps)
    callback.on_train_begin(None, state, TrainerControl())
    for step in range(start + 1, steps + 1):
        card.peak = max(card.peak, step * 10**9)
        state.global_step = step
        callback.on_step_end(None, state, TrainerControl())
    return callback, told.of(EventType.MEMORY)


def test_the_peak_of_the_first_steps_is_told_once(card):
    callback, told = run(card, steps=9)
    assert told == [
        {
            "step": 2,
            "peak_bytes": 2 * 10**9,
            "reserved_bytes": 3 * 10**9,
            "card_bytes": 80 * 10**9,
            "counted_bytes": 30 * 10**9,
        }
    ]
    assert callback.found["peak_bytes"] == 2 * 10**9


def test_a_run_of_one_step_and_one_that_was_resumed_tell_it_as_well(card):
    assert run(card, steps=1)[1][0]["step"] == 1
    assert run(card, steps=9, start=5)[1][0]["step"] == 7


def test_what_was_not_counted_is_left_out(card):
    assert "counted_bytes" not in run(card, steps=3, counted=None)[1][0]
