"""The types of the events' data: the fields of `EVENTS`, each type read as its own."""

import io

import pytest
from tests.unit.client.view.story import JOB, refused, story

from ftq_client.view import payloads
from ftq_client.view.lines import ASCII
from ftq_client.view.live import scrollback_lines
from ftq_client.view.model import JobView
from ftq_client.view.plain import PlainView
from ftq_shared.events import EVENTS, Event, EventType


def name_of(type_: EventType) -> str:
    return "".join(part.title() for part in type_.split("_"))


@pytest.mark.parametrize("type_", EventType)
def test_the_fields_are_those_that_are_documented(type_: EventType) -> None:
    kind = getattr(payloads, name_of(type_))
    assert set(kind.__annotations__) == set(EVENTS[type_].fields)


def test_each_event_is_read_as_its_own_type(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: set[EventType] = set()

    def checked(event: Event, kind: type) -> object:
        assert kind.__name__ == name_of(event.type)
        seen.add(event.type)
        return event.data

    monkeypatch.setattr(payloads, "read", checked)
    odd = [Event(JOB, 1, 1, "", "never", None, type_, {}) for type_ in EventType]
    log, view = PlainView(io.StringIO()), JobView(JOB)
    for event in (*story(steps=9), *refused(), *odd):
        log.event(event)
        scrollback_lines(event, view, width=80, glyphs=ASCII)
    assert seen == set(EventType)


def test_data_that_is_no_object_is_empty() -> None:
    event = Event(JOB, 1, 1, "", "never", None, EventType.LOG, ["damaged"])
    assert payloads.read(event, payloads.Log) == {}
