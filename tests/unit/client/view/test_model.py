"""The reducer: what a screen knows after a history of events."""

import json

from hypothesis import given
from hypothesis import strategies as st
from tests.unit.client.view.story import JOB, Teller, phase, refused, story
from tests.unit.client.view.strategies import histories

from ftq_client.view.format import seconds_of
from ftq_client.view.model import KEPT_TASKS, JobView, Mark, Series
from ftq_shared.events import Event
from ftq_shared.states import JobState, Phase


def after(events) -> JobView:
    view = JobView(JOB)
    for event in events:
        view.apply(event)
    return view


def test_a_whole_job() -> None:
    view = after(story(steps=30))
    assert view.state is JobState.SUCCEEDED
    assert view.terminal
    assert [mark.mark for mark in view.phases.values()] == [Mark.DONE] * 4
    assert view.phases[Phase.PUBLISH].seconds == 9.4
    assert view.step["step"] == 30
    assert len(view.losses.points) == 30
    assert (view.before["loss"], view.after["loss"]) == (2.3104, 0.6213)
    assert view.validation["step"] == 30
    assert view.checkpoint["step"] == 30
    assert view.published["url"].endswith("me/qwen-gsm8k")
    assert (view.host, view.attempt) == ("gpu-03", 1)
    assert not view.waiting
    assert not view.tasks


def test_a_refused_job_keeps_its_error() -> None:
    view = after(refused())
    assert view.state is JobState.FAILED
    assert view.error["nearest"][0] == "Qwen/Qwen3-0.6B"
    assert view.phases[Phase.VALIDATE].mark is Mark.FAILED


def test_a_late_tail_takes_the_phases_before_as_done() -> None:
    tell = Teller()
    view = after(phase(tell, Phase.TRAIN))
    assert [m.mark for m in view.phases.values()] == [
        Mark.DONE,
        Mark.DONE,
        Mark.CURRENT,
        Mark.PENDING,
    ]


def test_a_resume_forgets_the_steps_that_come_again() -> None:
    tell = Teller()
    steps = [tell("step", step=n, steps=9, epoch=0, loss=n, lr=0) for n in range(1, 8)]
    again = [tell("resumed", step=4), tell("step", step=5, steps=9, epoch=0, loss=50, lr=0)]
    assert after([*steps, *again]).losses.points == [(1, 1), (2, 2), (3, 3), (4, 4), (5, 50)]


def test_a_retry_clears_how_it_ended() -> None:
    events = [*refused()]
    view = after([*events, Teller()("state", state="queued")])
    assert view.state is JobState.QUEUED
    assert not view.error
    assert view.phases[Phase.VALIDATE].mark is Mark.PENDING


def test_progress_tells_rate_and_time_left() -> None:
    tell = Teller()
    view = after(
        [tell("progress", 1, task="t", done=n, total=100, unit="rows") for n in (0, 10, 20)]
    )
    assert view.tasks["t"].rate == 10
    assert view.tasks["t"].eta_s == 8
    view.apply(tell("progress", 1, task="t", done=100, total=100, unit="rows"))
    assert view.tasks["t"].finished
    view.apply(tell("progress", 1, task="t", done=3, total=None, unit="rows"))
    assert view.tasks["t"].rate is None


@given(histories)
def test_no_history_is_too_odd(events: list[Event]) -> None:
    view = after(events)
    assert view.updated == max([0.0, *(seconds_of(event.time) for event in events)])
    # Nothing was changed in the events themselves, and they still travel.
    assert all(json.loads(event.to_json()) for event in events)


def test_what_is_kept_is_bounded() -> None:
    tell = Teller()
    view = JobView(JOB)
    for n in range(KEPT_TASKS + 50):
        view.apply(tell("progress", task=f"t{n}", done=1, unit="rows"))
    assert len(view.tasks) == KEPT_TASKS
    assert next(iter(view.tasks)) == "t50"


@given(st.lists(st.tuples(st.integers(0, 9999), st.none() | st.floats(-10, 10)), max_size=400))
def test_a_series_is_bounded_ordered_and_covers_its_range(points) -> None:
    series = Series(limit=50)
    for step, value in points:
        series.add(step, value)
    steps = [step for step, _ in series.points]
    assert len(steps) <= 50
    assert steps == sorted(set(steps))
    values = [v for _, v in points if v is not None]
    assert series.low == min(values, default=None)


def test_a_long_series_keeps_its_shape() -> None:
    series = Series()
    for step in range(100_000):
        series.add(step, 100_000 - step)
    assert 1000 <= len(series.points) <= 2000
    assert series.points[0] == (0, 100_000)
    assert series.points[-1][0] > 99_900
    assert series.values == sorted(series.values, reverse=True)


def test_work_that_cannot_be_counted_is_what_is_done_now() -> None:
    tell = Teller()
    view = after(
        [
            tell("progress", 1, task="load the model", done=0, unit="s"),
            tell("resolved", 1, field="f", value=1, reason="r"),
            tell("progress", 3, task="load the model", done=4, unit="s"),
        ]
    )
    assert (view.doing, view.updated - view.doing_since, view.tasks) == ("load the model", 4, {})
    view.apply(tell("step", 1, step=1, steps=3, loss=1.0))
    assert view.doing == "", "it has ended"
