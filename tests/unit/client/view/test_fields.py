"""The views read of an event what `EVENTS` documents for its type, and nothing else."""

import io
from collections.abc import Iterator, Mapping
from dataclasses import replace

from tests.unit.client.view.story import JOB, refused, story

from ftq_client.view.lines import ASCII
from ftq_client.view.live import scrollback_lines
from ftq_client.view.model import JobView
from ftq_client.view.plain import PlainView
from ftq_shared.events import EVENTS, Event, EventType


class Watched(Mapping[str, object]):
    """An event's data that notes which fields are asked for."""

    def __init__(self, data: Mapping[str, object], asked: set[str]) -> None:
        self._data, self._asked = data, asked

    def __getitem__(self, key: str) -> object:
        self._asked.add(key)
        return self._data[key]

    def __contains__(self, key: object) -> bool:  # asking whether a field is there reads nothing
        return key in self._data

    def __iter__(self) -> Iterator[str]:
        return iter(self._data)

    def __len__(self) -> int:
        return len(self._data)


def test_every_field_that_is_read_is_documented_for_its_type() -> None:
    asked: dict[EventType, set[str]] = {type_: set() for type_ in EventType}
    odd = [Event(JOB, 1, 1, "", "never", None, type_, {}) for type_ in EventType]
    log, view = PlainView(io.StringIO()), JobView(JOB)
    for event in (*story(steps=9), *refused(), *odd):
        watched = replace(event, data=Watched(event.data, asked[event.type]))
        log.event(watched)
        scrollback_lines(watched, view, width=80, glyphs=ASCII)
        view.apply(watched)
    for type_, fields in asked.items():
        assert fields, type_
        assert fields <= set(EVENTS[type_].fields), type_


def test_data_that_is_no_object_is_empty() -> None:
    damaged = Event(JOB, 1, 1, "", "never", None, EventType.LOG, {"line": "x"}).to_json()
    assert Event.from_json(damaged.replace('{"line":"x"}', '["damaged"]')).data == {}
