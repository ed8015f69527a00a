"""The live view, drawn by a real rich Console."""

import io
import re
from collections.abc import Iterable, Iterator
from contextlib import closing, suppress

import pytest
from hypothesis import given, settings
from rich.console import Console
from tests.unit.client.view.story import JOB, Teller, phase, story, train
from tests.unit.client.view.strategies import histories

from ftq_client.view.lines import ASCII, UNICODE, text_of, width_of
from ftq_client.view.live import LiveView
from ftq_client.view.model import JobView
from ftq_client.view.region import region_lines
from ftq_shared.events import Event
from ftq_shared.states import Phase

CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\r")


def console_of(stream: io.StringIO, width: int = 100, **more: object) -> Console:
    return Console(
        file=stream, width=width, height=40, force_terminal=True, _environ={"TERM": "xterm"}, **more
    )


def played(events: Iterable[Event], width: int = 100, **more: object) -> str:
    stream = io.StringIO()
    with closing(LiveView(console_of(stream, width), **more)) as view:
        for event in events:
            view.event(event)
    return stream.getvalue()


def words(raw: str) -> str:
    # A carriage return begins a picture of its own.
    return CONTROL.sub("", raw.replace("\r", "\n"))


def test_a_burst_shows_every_step_once_as_a_line() -> None:
    text = words(played(story(steps=400)))
    for step in range(1, 401):
        assert len(re.findall(rf"step +{step}/400 ", text)) == 1, step


def test_the_whole_story_is_told() -> None:
    text = words(played(story(steps=30), names={JOB: "qwen-gsm8k"}))
    for part in (
        "no worker is online", "→ start one: ftq worker", "── validate", "✓ model", "✓ finished",
        "in_golden_or_validation", "cleaning        2 rules found nothing",
        "│ [red]not red[/red] \\x1b[31mnor this", "┃ She sold 48+24",
        "train.epochs = 2", "✓ done            tokenize  7,317 rows", "golden before", "checkpoint",
        "! warning", "→ look at data.columns", "✓ hashes", "✓ published",
        "succeeded after", "ftq fetch",
    ):  # fmt: skip
        assert part in text, part


def test_columns_stand_below_each_other() -> None:
    tell = Teller()
    names = ("model", "model access", "dataset licence")
    lines = words(played(tell("check", name=n, ok=True, message="fine") for n in names)).split("\n")
    assert len({line.index("fine") for line in lines if "fine" in line}) == 1


def test_the_terminal_is_given_back() -> None:
    raw = played(story(steps=3))
    assert raw.count("\x1b[?25l") == raw.count("\x1b[?25h") == 1
    assert raw.index("\x1b[?25h") < raw.index(" succeeded")


def test_an_exception_gives_the_terminal_back() -> None:
    stream = io.StringIO()
    with suppress(RuntimeError), closing(LiveView(console_of(stream))) as view:
        view.event(next(story()))
        raise RuntimeError
    assert stream.getvalue().rindex("\x1b[?25h") > stream.getvalue().rindex("\x1b[?25l")


def test_no_colour_is_drawn_where_none_is_wanted() -> None:
    stream = io.StringIO()
    view = LiveView(console_of(stream, no_color=True))
    for event in story(steps=3):
        view.event(event)
    view.close()
    assert not re.search(r"\x1b\[(\d;)*3\d", stream.getvalue())


@pytest.mark.parametrize("width", [20, 60, 100, 200])
def test_lines_fit_the_terminal(width: int) -> None:
    text = words(played(train(Teller(), steps=30), width))
    assert all(len(line) <= width for line in text.split("\n"))
    assert text.count("/30") >= 30


def test_several_jobs_share_the_screen() -> None:
    one, two = Teller("ft-aaaaaaaa"), Teller("ft-bbbbbbbb")
    events = [
        e
        for pair in zip(phase(one, Phase.TRAIN), phase(two, Phase.TRAIN), strict=True)
        for e in pair
    ]
    text = words(played(events, many=True))
    assert "ft-aaaaaaaa ── train" in text
    assert "ft-bbbbbbbb train    running" in text


def test_notes_stand_above_the_region(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    stream = io.StringIO()
    view = LiveView(console_of(stream))
    view.note("the broker is back [bold]now[/bold]")
    view.close()
    assert "the broker is back [bold]now[/bold]" in stream.getvalue()


def test_notes_go_to_stderr_where_that_is_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    stream = io.StringIO()
    view = LiveView(console_of(stream))
    view.note("hello")
    view.close()
    assert "hello" not in stream.getvalue()
    assert capsys.readouterr().err == "hello\n"


@settings(max_examples=30, deadline=None)
@given(histories)
def test_no_history_ends_the_view(history: list[Event]) -> None:
    raw = played(history, width=60)
    # Outside text reaches the terminal escaped: no screen is cleared, no title set.
    assert "\x1b[2J" not in raw
    assert "\x1b]" not in raw


def at_step(number: int) -> JobView:
    view = JobView(JOB, "qwen-gsm8k")
    for event in _until(story(), number):
        view.apply(event)
    return view


def _until(events: Iterator[Event], number: int) -> Iterator[Event]:
    for event in events:
        yield event
        if event.data.get("step") == number:
            return


def region(view: JobView, width: int = 100, glyphs=UNICODE) -> list[str]:
    lines = region_lines(view, now=view.updated + 2, width=width, glyphs=glyphs)
    assert all(width_of(line) <= width for line in lines)
    return [text_of(line) for line in lines]


def test_the_region_of_a_training() -> None:
    head, phases, steps, latest, loss = region(at_step(45))
    assert head.startswith(f"── {JOB} qwen-gsm8k ─")
    assert "gpu-03" in head
    assert phases.startswith("✓ validate 2.1s ▸ ✓ prepare 7.8s ▸ ● train 25s ▸ ○ publish")
    assert steps.endswith("━━╸" + steps.split("╸")[1])
    assert "37% · eta 30s" in steps
    assert latest.startswith("latest   45/120  loss 0.9821")
    assert "validation 1.1" in loss
    assert "saved at 40" in loss


def test_the_last_step_has_no_eta() -> None:
    assert "eta" not in " ".join(region(at_step(120)))


def test_the_region_without_unicode_and_without_room() -> None:
    lines = region(at_step(45), 60, ASCII)
    assert "\n".join(lines).isascii()
    assert lines[1].startswith("+ validate")
    assert len(lines) == 5
    region(at_step(45), 20)


def test_the_region_says_why_it_waits() -> None:
    view = JobView(JOB)
    tell = Teller()
    view.apply(tell("state", state="queued"))
    assert region(view)[-1] == "queued"
    view.apply(tell("waiting", reason="no GPU is free", unblock="ft-b ends in 5m", position=2))
    assert region(view)[-1] == "waiting · position 2: no GPU is free → ft-b ends in 5m"


def test_the_region_shows_progress() -> None:
    view = JobView(JOB)
    tell = Teller()
    for done in (0, 500):
        view.apply(tell("progress", 1, task="download", done=done, total=1000, unit="bytes"))
    assert "50% of 1.0 kB · 500 B/s · eta 1.0s" in region(view)[-1]
