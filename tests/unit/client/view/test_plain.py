"""Plain and JSON lines: what a log, a pipe and a program get."""

import io
import json
import re
import time

import pytest
from hypothesis import given
from tests.unit.client.view.story import JOB, Teller, phase, refused, story
from tests.unit.client.view.strategies import events, histories

from ftq_client.view import make_view
from ftq_client.view.plain import JsonView, PlainView, plain_lines
from ftq_shared.events import EVENTS, Event, EventType


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()


def said(event: Event) -> str:
    (line,) = plain_lines(event)
    return line


def test_a_step_line() -> None:
    tell = Teller()
    *_, started = phase(tell, next(iter(story())).phase)
    step = Event(
        JOB, 9, 1, "gpu-03", "2026-01-02T12:03:04.678Z", "train", EventType.STEP,
        {"step": 12, "steps": 300, "loss": 1.83, "lr": 2e-4, "grad_norm": 0.9,
         "tokens_per_s": 5120, "eta_s": 341},
    )  # fmt: skip
    assert said(step) == (
        "12:03:04 train    step 12/300  loss 1.8300  lr 2.0e-04  grad 0.90  5,120 tok/s  eta 5m41s"
    )
    assert "started on gpu-03" in said(started)


def test_a_loss_that_is_not_finite_is_named() -> None:
    event = Teller()("step", step=1, steps=2, epoch=0.1, loss=float("nan"), lr=1e-4)
    assert "loss nan" in said(event)


@given(events())
def test_every_event_is_a_line_and_steers_nothing(event: Event) -> None:
    lines = plain_lines(event)
    assert lines
    assert all(line.isprintable() or not re.search(r"[\x00-\x1f\x7f-\x9f]", line) for line in lines)
    assert re.match(r"(\d\d:\d\d:\d\d|--:--:--) (\w+|-) +\S", lines[0])
    assert all(line.startswith(" " * 18) or not line for line in lines[1:])


def test_every_type_has_words_of_its_own() -> None:
    assert {event.type for event in story()} | {
        EventType.RESUMED, EventType.GUARD, EventType.ERROR, EventType.TRUNCATED,
        EventType.REPLAY_ROW, EventType.REPLAYED,
    } == set(EVENTS)  # fmt: skip


def test_a_replay_says_which_rows_and_whether_the_numbers_are_those_of_before() -> None:
    tell = Teller()
    row = tell(
        "replay_row", step=3, file="rows.jsonl", row=20, line=21, tokens=35, trained=12,
        loss=9.8125, grad_norm=float("nan"), text="Say\n\x1b[31m20",
    )  # fmt: skip
    first, second = plain_lines(row)
    assert first.endswith(
        "row rows.jsonl line 21 | loss 9.8125 | grad nan | 35 tokens | 12 trained"
    )
    assert second.strip() == r"Say \x1b[31m20"
    step = {"job": JOB, "step": 3, "rows": 8, "after_step": 2, "lr": 1e-4}
    same = {"loss": 2.5, "recorded_loss": 2.5, "equal": True}
    other = {"loss": 2.5, "recorded_loss": 2.625, "grad_norm": 1.0, "recorded_grad_norm": None}
    assert "from step 2 | 8 rows | loss 2.5, as recorded" in said(tell("replayed", **step, **same))
    told = said(tell("replayed", **step | {"after_step": 0}, **other, equal=False))
    assert "from the base model | 8 rows | loss 2.5 instead of 2.625" in told
    assert "grad 1.0 instead of no number" in told


def test_markup_and_control_characters_are_shown_not_obeyed() -> None:
    text = "[red]not red[/red] \x1b[31mnor this"
    lines = plain_lines(Teller()("sample", row=1, text=text))
    assert lines[1].endswith(r"| [red]not red[/red] \x1b[31mnor this")


def test_a_result_says_its_figures_once_and_no_time_that_is_nothing() -> None:
    tell = Teller()
    event = tell("verification", name="golden", ok=True, message="loss 0.0497", before=1, after=2)
    assert said(event).endswith("verification ok: golden: loss 0.0497")
    for seconds, end in ((0.04, "fine"), (0.05, "fine  0.1s"), (None, "fine")):
        check = tell("check", name="disk", ok=True, message="fine", seconds=seconds)
        assert said(check).endswith(f"disk: {end}")


def test_rows_that_are_not_counted_yet_are_said_once() -> None:
    splits = {"train": None, "test": 12}
    line = said(Teller()("dataset", rows=None, columns=["a"], splits=splits))
    assert line.endswith("dataset rows not counted yet | columns a | splits train, test 12")


def test_cleaning_rules_that_found_nothing_are_one_line() -> None:
    tell = Teller()
    found = {"examples": [{"file": "a", "row": 1, "what": "a control character"}]}
    rules = [("missing", 9, {}), ("empty", 8, {}), ("control", 8, found), ("duplicate", 8, {})]
    before, history = 9, []
    for rule, after, more in rules:
        history.append(tell("cleaning", rule=rule, rows_in=before, rows_out=after, **more))
        before = after
    text = played(
        PlainView, [*history, tell("log", line="on"), *history[:1], tell("log", line="x")]
    )
    told = [line[18:] for line in text.splitlines()]
    assert [line.split()[1] for line in told if line.startswith("cleaning")] == [
        "empty", "control", "2", "1",
    ]  # fmt: skip
    assert "cleaning 2 rules found nothing" in told
    assert "cleaning 1 rule found nothing" in told
    assert told.index("log on") == told.index("cleaning 2 rules found nothing") + 1


def test_a_sample_marks_what_is_trained() -> None:
    _, *rows = plain_lines(Teller()("sample", row=1, text="Q: 1+1\nA: 2\n", trained="2\n"))
    assert [row.strip() for row in rows] == ["| Q: 1+1", "| A:", "> 2"]


def test_a_sample_that_was_cut_still_marks_it() -> None:
    _, *rows = plain_lines(Teller()("sample", row=1, text="Q: aA: " + "b" * 50, trained="b" * 99))
    assert rows[-1].strip() == "> " + "b" * 50


def test_an_error_says_where_and_what_to_do() -> None:
    first, near, trace = plain_lines(
        Teller()(
            "error", code="bad_row", message="no answer", hint="fix it", file="a.jsonl", line=3,
            field="answer", nearest=["answers"], traceback="Boom",
        )
    )  # fmt: skip
    assert first.endswith("error bad_row: no answer (a.jsonl, line 3, field answer)  -> fix it")
    assert near.strip() == "nearest: answers"
    assert trace.strip() == "Boom"


def played(view_of, events) -> str:
    stream = io.StringIO()
    view = view_of(stream)
    for event in events:
        view.event(event)
    view.close()
    view.close()
    return stream.getvalue()


def test_a_log_has_every_step_and_the_end_once() -> None:
    text = played(PlainView, story(steps=30))
    for step in range(1, 31):
        assert f" step {step}/30 " in text
    assert text.count("succeeded after") == 1


def test_progress_is_thinned_to_tenths_but_ends() -> None:
    tell = Teller()
    rows = (tell("progress", 0.01, task="t", done=n, total=1000, unit="rows") for n in range(1001))
    lines = played(PlainView, rows).splitlines()
    assert 10 <= len(lines) <= 12
    assert lines[-1].endswith("1,000 of 1,000 rows  100%")


def test_silence_of_ten_seconds_is_broken() -> None:
    tell = Teller()
    rows = (tell("progress", 5, task="t", done=n, total=None, unit="rows") for n in range(5))
    assert len(played(PlainView, rows).splitlines()) == 3


def test_several_jobs_are_told_apart() -> None:
    both = [*refused(), *story(steps=3)]
    text = played(lambda s: make_view(s, tty=False, many=True), both)
    body = text[: text.index("\n\n")].splitlines()
    assert all(line.startswith(("ft-badmodel ", f"{JOB} ")) for line in body)


@given(histories)
def test_no_history_ends_a_log(history: list[Event]) -> None:
    played(PlainView, history)


@given(histories)
def test_json_lines_come_back_as_they_were(history: list[Event]) -> None:
    lines = played(JsonView, history).split("\n")
    assert [Event.from_json(line) for line in lines[:-1]] == [
        Event.from_json(event.to_json()) for event in history
    ]


def test_json_survives_an_encoding_that_lacks_the_text() -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    view = make_view(stream, json=True)
    view.event(Teller()("log", line="größer 日本 \ud800"))
    view.close()
    assert json.loads(raw.getvalue())["data"]["line"] == "größer 日本 \ud800"


def test_plain_survives_an_encoding_that_lacks_the_text() -> None:
    raw = io.BytesIO()
    view = make_view(io.TextIOWrapper(raw, encoding="ascii"), tty=False)
    view.event(Teller()("log", line="größer"))
    assert rb"gr\xf6\xdfer" in raw.getvalue()


def test_each_line_is_flushed() -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="utf-8")
    for view in (make_view(stream, json=True), make_view(stream, tty=False)):
        before = len(raw.getvalue())
        view.event(Teller()("log", line="x"))
        assert len(raw.getvalue()) > before


def test_notes_go_to_stderr_only(capsys: pytest.CaptureFixture[str]) -> None:
    stream = io.StringIO()
    for json_ in (True, False):
        make_view(stream, json=json_, tty=False).note("come back with: ftq tail\n\x1b[31m")
    assert stream.getvalue() == ""
    assert capsys.readouterr().err.count("come back with: ftq tail\n") == 2


def test_a_dumb_terminal_gets_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("TERM", "dumb")
    assert isinstance(make_view(Terminal()), PlainView)
    assert isinstance(make_view(io.StringIO()), PlainView)
