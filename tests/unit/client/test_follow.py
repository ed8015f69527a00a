"""Following jobs: what is shown of a job's events."""

import io
import json
import re
import time
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest
from rich.console import Console
from tests.unit.client.view.story import story

from ftq_client.client import Client
from ftq_client.follow import Following, follow
from ftq_client.view.format import duration, seconds_of
from ftq_client.view.lines import text_of
from ftq_client.view.live import LiveView
from ftq_shared.events import Event, EventType, rfc3339
from ftq_shared.states import JobState, Phase


class _OneJob:
    """A client that knows one job and its events."""

    def __init__(self, events: list[Event]) -> None:
        self._events = events

    def get(self, job: str) -> SimpleNamespace:
        return SimpleNamespace(id=job, name="", state=JobState.SUCCEEDED, exit_code=0)

    def tail(self, job: str, **_: Any) -> Iterator[Event]:
        return iter(self._events)


def _log(seq: int, age_s: float) -> Event:
    when = rfc3339(time.time() - age_s)
    return Event("ft-aaaaaaaa", seq, 1, "h", when, Phase.TRAIN, EventType.LOG, {"line": str(seq)})


def test_since_leaves_out_what_is_older(capsys: pytest.CaptureFixture[str]) -> None:
    client = cast("Client", _OneJob([_log(1, 7_200), _log(2, 61), _log(3, 30), _log(4, 0)]))
    follow(client, Following(["ft-aaaaaaaa"], as_json=True, since_s=60))
    assert [json.loads(line)["seq"] for line in capsys.readouterr().out.splitlines()] == [3, 4]


def test_what_is_left_out_still_counts_for_the_summary(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The head and the closing block know what happened before."""
    events = [*story(steps=20)]
    late = len(events) - 2
    for wanted in (
        Following([events[0].job], after=events[late].seq),
        Following([events[0].job], since_s=0.0),
    ):
        follow(cast("Client", _OneJob(events)), wanted)
        out = capsys.readouterr().out
        assert "step" not in out.split("succeeded after")[0]
        total = seconds_of(events[-1].time) - seconds_of(events[0].time)
        assert f"succeeded after {duration(total)}" in out
        assert "53.4% -> 81.2%" in out


def test_a_late_view_counts_on_the_brokers_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """The age of the newest event is no difference of clocks."""
    now = time.time()
    started = Event("ft-aaaaaaaa", 1, 1, "h", rfc3339(now - 98), Phase.TRAIN,
                    EventType.PHASE_STARTED, {"pid": 1})  # fmt: skip
    for ahead in (0.0, 3600.0, -3600.0):
        moved = replace(started, time=rfc3339(now - 98 + ahead))
        view = LiveView(Console(file=io.StringIO(), force_terminal=True), ahead_s=ahead)
        try:
            view.event(moved)
            head = text_of(view.region(100)[0])
        finally:
            view.close()
        assert re.search(r"1m3[89]s", head) or "1m40s" in head, head
