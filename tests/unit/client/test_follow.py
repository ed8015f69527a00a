"""Following jobs: what is shown of a job's events."""

import json
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest

from ftq_client.client import Client
from ftq_client.follow import Following, follow
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
