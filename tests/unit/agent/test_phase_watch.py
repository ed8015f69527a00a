"""A phase is told of while it is silent, warned of when it is stuck, and ended in time."""

from typing import Any

import pytest
from tests.support.clock import Clock

from ftq_shared.states import Phase
from ftq_worker.agent.phase_watch import (
    FIRST_STEP_S,
    IO_MOVED,
    MAX_S,
    MEMORY_SHARE,
    QUIET_S,
    STALL_S,
    STALL_STEPS,
    PhaseWatch,
)
from ftq_worker.host.messages import Ending, EventBody
from ftq_worker.host.process_tree import Use

MEMORY = 100 * 10**9


class Watched:
    """A phase whose time the test moves, second by second."""

    def __init__(self, phase: Phase) -> None:
        self.clock = Clock(0.0)
        self.watch = PhaseWatch(phase, MEMORY, self.clock)

    def note(self, kind: str, **data: Any) -> None:
        body: Any = {"type": kind, "data": data}
        noted: EventBody = body
        self.watch.note(noted)

    def step(self, number: int) -> None:
        self.note("step", step=number, steps=100)

    def wait(self, seconds: float) -> None:
        self.clock.now += seconds

    def end(self, memory: int = 0, io_bytes: int = 0) -> tuple[Ending, str] | None:
        found = self.watch.verdict(Use(memory, io_bytes))
        return (found.ending, found.error.code) if found and found.error else None


@pytest.fixture
def training() -> Watched:
    return Watched(Phase.TRAIN)


@pytest.fixture
def validation() -> Watched:
    return Watched(Phase.VALIDATE)


def test_a_silent_phase_is_told_of_with_what_it_is_at(training: Watched) -> None:
    training.note("progress", task="load the model", done=0, unit="s")
    training.wait(QUIET_S - 1)
    assert training.watch.sign_of_life() is None
    said = []
    for _ in range(2):
        training.wait(QUIET_S)
        said.append(training.watch.sign_of_life())
    first, second = QUIET_S - 1 + QUIET_S, QUIET_S - 1 + 2 * QUIET_S
    assert said == [
        {"task": "load the model", "done": first, "unit": "s"},
        {"task": "load the model", "done": second, "unit": "s"},
    ]


def test_between_two_steps_the_step_is_named(training: Watched) -> None:
    training.step(7)
    training.wait(QUIET_S)
    assert training.watch.sign_of_life() == {"task": "step 8 of 100", "done": 4, "unit": "s"}


def test_counted_work_says_its_count_again(training: Watched) -> None:
    counted = {"task": "download", "done": 5, "unit": "bytes", "total": 9}
    training.note("progress", **counted)
    training.wait(QUIET_S)
    assert training.watch.sign_of_life() == counted
    training.note("progress", **{**counted, "done": 9})
    training.wait(QUIET_S)
    assert training.watch.sign_of_life() == {"task": "train", "done": 4, "unit": "s"}


def test_a_phase_without_progress_is_warned_of_once_and_then_ended(training: Watched) -> None:
    training.step(1)
    training.wait(STALL_S / 2)
    assert "no progress for 300 s" in training.watch.is_stuck_soon()
    assert training.watch.is_stuck_soon() == ""
    assert training.end() is None
    training.wait(STALL_S / 2)
    assert training.end() == (Ending.DIED, "no_progress")


def test_an_event_starts_its_patience_anew(training: Watched) -> None:
    for number in range(5):
        training.step(number)
        training.wait(STALL_S - 1)
        assert training.end() is None


def test_what_the_agent_says_is_no_progress_of_the_phase(training: Watched) -> None:
    training.step(1)
    while training.clock.now < STALL_S:
        training.wait(QUIET_S)
        training.watch.sign_of_life()
    assert training.end() == (Ending.DIED, "no_progress")


def test_slow_steps_get_more_patience(training: Watched) -> None:
    training.step(1)
    training.wait(STALL_S / 4)
    training.step(2)
    training.wait(STALL_STEPS * STALL_S / 4 - 1)
    assert training.end() is None
    training.wait(1)
    assert training.end() == (Ending.DIED, "no_progress")


def test_reading_and_writing_is_progress_but_not_between_steps(training: Watched) -> None:
    training.note("progress", task="load the model", done=0, unit="s")
    training.wait(STALL_S)
    assert training.end(io_bytes=IO_MOVED) is None, "weights come in"
    training.step(1)
    training.wait(STALL_S)
    assert training.end(io_bytes=3 * IO_MOVED) == (Ending.DIED, "no_progress")


@pytest.mark.parametrize("phase", [phase for phase in Phase if phase is not Phase.TRAIN])
def test_every_other_phase_has_its_time_and_its_memory(phase: Phase) -> None:
    busy = Watched(phase)
    while busy.clock.now < MAX_S[phase] - 100:
        busy.wait(100)
        busy.note("progress", task="count", done=1, unit="rows")
        assert busy.end() is None
    assert busy.end(memory=int(MEMORY_SHARE * MEMORY) + 1) == (Ending.FAILED, "memory_limit")
    busy.wait(100)
    assert busy.end() == (Ending.FAILED, "phase_timeout")


def test_what_it_waits_for_is_not_its_own_time(validation: Watched) -> None:
    for _ in range(3):  # as long as a Hub's windows last
        validation.note("progress", task="wait for the Hub", done=0, unit="s")
        validation.wait(310)
        assert validation.end() is None
        validation.note("check", name="model", ok=True)
    validation.wait(MAX_S[Phase.VALIDATE])
    assert validation.end() == (Ending.FAILED, "phase_timeout")


def test_a_checkpoint_without_its_time_is_one(training: Watched) -> None:
    training.note("checkpoint", step=3, path="p")
    assert training.watch.slowest_save_s == 0


def test_a_first_step_may_take_long_and_is_watched_all_the_same(training: Watched) -> None:
    training.note("progress", task="step 1 of 9", done=0, unit="s")
    training.wait(FIRST_STEP_S - 1)
    assert training.end() is None
    training.wait(1)
    assert training.end() == (Ending.DIED, "no_progress")


def test_a_step_is_measured_also_where_each_is_followed_by_an_evaluation(
    training: Watched,
) -> None:
    for number in range(1, 4):
        training.wait(100)
        training.step(number)
        training.note("eval", step=number)
    assert training.watch.slowest_step_s == 100


def test_no_time_counts_while_it_is_paused(validation: Watched) -> None:
    validation.watch.pause(True)
    for _ in range(700):
        validation.wait(1)
        validation.watch.pause(True)
        assert validation.end() is None
    validation.watch.pause(False)
    assert validation.end() is None


def test_a_training_may_use_its_host(training: Watched) -> None:
    assert training.end(memory=MEMORY) is None
    training.wait(10 * max(MAX_S.values()))
    training.step(1)
    assert training.end() is None
