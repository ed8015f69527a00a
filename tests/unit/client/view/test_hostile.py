"""Events that somebody made up: each view shows what it can, and the tail goes on."""

import io
import json
import unicodedata

import pytest
from rich.console import Console

from ftq_client.follow import end_code
from ftq_client.view.live import LiveView
from ftq_client.view.plain import JsonView, PlainView
from ftq_shared.events import Event, EventType

ROW = {"job": "ft-aaaaaaaa", "seq": 1, "attempt": 1, "host": "h", "time": "2026-01-01T00:00:00Z",
       "phase": "train", "type": "step", "data": {"step": 1, "steps": 2, "loss": 1.0}}  # fmt: skip
VALUES = ("1e999", "-1e999", "NaN", "-Infinity", "9" * 5000, "9" * 400, '"x"', "null", "true",
          "[]", "{}", '"\\ud800"', '"\\u202e\\u009b31m\\u00ad"', "[" * 300 + "]" * 300,
          "-1", "256", "4e10", "0.5")  # fmt: skip
FIELDS = ("seq", "attempt", "host", "time", "phase", "data", "data.step", "data.loss", "data.steps",
          "data.eta_s", "data.exit_code", "data.state", "data.x")  # fmt: skip
# Characters that steer, hide or reorder, without those that join letters.
INVISIBLE = [
    char
    for char in map(chr, range(0x110000))
    if unicodedata.category(char) in ("Cf", "Cc", "Zl", "Zp") and char not in "\u200c\u200d"
]


def line(field: str, value: str, type_: str) -> str:
    """Return an event as JSON text in which one field has a value that need not be JSON."""
    raw = json.loads(json.dumps(ROW | {"type": type_}))
    at = raw
    *way, last = field.split(".")
    for part in way:
        at = at[part]
    at[last] = "@@"
    return json.dumps(raw).replace('"@@"', value)


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("value", VALUES, ids=lambda v: v[:12])
def test_an_odd_field_costs_the_field_and_not_the_event(field: str, value: str) -> None:
    text = io.StringIO()
    live = LiveView(Console(file=io.StringIO(), force_terminal=True))
    views = (PlainView(io.StringIO()), JsonView(text), live)
    for type_ in EventType:
        event = Event.from_json(line(field, value, type_))
        assert event.type is type_
        for view in views:
            view.event(event)
        assert -1 <= end_code(event) <= 255
    for view in views:
        view.close()
    lines = text.getvalue().splitlines()
    assert len(lines) == len(EventType)
    for written in lines:
        json.loads(written, parse_constant=pytest.fail)


@pytest.mark.parametrize("text", ["", "{", "[]", "7", "null", '{"type": "step"}', "[" * 100_000])
def test_what_is_no_event_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  any of json's and ours
        Event.from_json(text)


def test_json_shows_no_character_that_steers_a_terminal_and_keeps_its_meaning() -> None:
    hostile = "".join(INVISIBLE) + "né \u200d"
    event = Event.from_json(json.dumps(ROW | {"type": "log", "data": {"line": hostile}}))
    stream = io.StringIO()
    JsonView(stream).event(event)
    written = stream.getvalue()
    assert not set(written[:-1]) & set(INVISIBLE)
    assert "né" in written
    assert json.loads(written)["data"]["line"] == hostile
