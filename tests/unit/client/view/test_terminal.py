"""The live view on a real pseudo-terminal."""

import os
import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pexpect
import pytest

from ftq_client.view.lines import cells

ROOT = str(Path(__file__).resolve().parents[4])
PLAYER = """
import sys, time
from ftq_client.view import make_view
from tests.unit.client.view.story import story
view = make_view(sys.stdout)
try:
    for event in story(steps=40):
        view.event(event)
        {each}
    {end}
finally:
    view.close()
"""
SHOWN, HIDDEN = "\x1b[?25h", "\x1b[?25l"


def play(each: str = "pass", end: str = "pass", **env: str) -> pexpect.spawn:
    child = pexpect.spawn(
        sys.executable,
        ["-c", PLAYER.format(each=each, end=end)],
        env={**os.environ, "TERM": "xterm-256color", "PYTHONPATH": ROOT, **env},
        dimensions=(30, 100),
        encoding="utf-8",
        timeout=20,
    )
    child.logfile_read = Log()
    return child


def words(raw: str) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", raw)


class Log:
    """What the terminal was sent."""

    def __init__(self) -> None:
        self.text = ""

    def write(self, text: str) -> None:
        self.text += text

    def flush(self) -> None:
        """Nothing is held back."""


@pytest.fixture
def waiting() -> Iterator[pexpect.spawn]:
    """A view in the middle of training, with a cursor that is hidden."""
    child = play(each="if event.data.get('step') == 20: time.sleep(60)")
    child.expect_exact(HIDDEN)
    child.expect("latest +")
    child.expect_exact("20/40")
    yield child
    child.close(force=True)


def test_the_region_moves_and_goes() -> None:
    child = play(each="time.sleep(0.005)")
    child.expect(pexpect.EOF)
    text = child.logfile_read.text
    assert "latest" in text
    assert text.rindex(SHOWN) > text.rindex(HIDDEN)
    assert " succeeded" in text[text.rindex(SHOWN) :]


def test_a_step_is_on_the_screen_before_the_next_event(waiting: pexpect.spawn) -> None:
    assert "step 20/40" in words(waiting.logfile_read.text)


def test_ctrl_c_gives_the_terminal_back(waiting: pexpect.spawn) -> None:
    waiting.sendintr()
    waiting.expect_exact(SHOWN)
    waiting.expect("KeyboardInterrupt")
    waiting.expect(pexpect.EOF)


def test_the_region_leaves_room_for_the_echo_of_ctrl_c(waiting: pexpect.spawn) -> None:
    """On a full last line `^C` wraps, and one line of the region stays behind."""
    last = words(waiting.logfile_read.text).replace("\r", "\n").splitlines()
    region = [line for line in last if line.startswith(("── ft-", "loss ", "steps "))]
    assert region
    assert max(map(cells, region)) <= 98


def test_the_clock_goes_on_while_nothing_happens(waiting: pexpect.spawn) -> None:
    waiting.expect(r"train.{0,20} 1[23]s", timeout=10)
    waiting.expect(r"train.{0,20} 1[45]s", timeout=10)


def test_a_crash_gives_the_terminal_back() -> None:
    child = play(each="if event.data.get('step') == 20: raise RuntimeError('boom')")
    child.expect_exact(SHOWN)
    child.expect("boom")
    child.expect(pexpect.EOF)


def test_a_view_that_nobody_closed_gives_the_terminal_back() -> None:
    child = play(end="sys.exit(3); view.close = lambda: None", each="view.close = lambda: None")
    child.expect(pexpect.EOF)
    assert child.logfile_read.text.rindex(SHOWN) > child.logfile_read.text.rindex(HIDDEN)


def test_a_dumb_terminal_and_an_ascii_one() -> None:
    dumb = play(TERM="dumb")
    dumb.expect(pexpect.EOF)
    assert "\x1b" not in dumb.logfile_read.text
    ascii_ = play(PYTHONIOENCODING="ascii")
    ascii_.expect(pexpect.EOF)
    assert ascii_.logfile_read.text.isascii()
    assert "+ model" in words(ascii_.logfile_read.text)


def test_a_narrower_window_leaves_no_ghosts(waiting: pexpect.spawn) -> None:
    waiting.setwinsize(30, 60)
    waiting.kill(signal.SIGWINCH)
    # The region's lines wrap to more rows: all are erased before the next picture.
    waiting.expect(r"\r(\x1b\[2K\x1b\[1A)+\r(\x1b\[2K\x1b\[1A)+", timeout=10)


SHELL = """
import sys, time
from ftq_client.terminal_signals import terminal_signals
from ftq_client.view import make_view
from tests.unit.client.view.story import story
view = make_view(sys.stdout)
with terminal_signals(view):
    for event in story(steps=40):
        view.event(event)
        if event.data.get('step') == 20: time.sleep(8)
view.close()
"""


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[pexpect.spawn]:
    """A shell with job control, in which the view is a job."""
    (tmp_path / "play.py").write_text(SHELL)
    env = {**os.environ, "TERM": "xterm-256color", "PYTHONPATH": ROOT, "PS1": "PROMPT> "}
    child = pexpect.spawn(
        "bash", ["--norc", "-i"], env=env, dimensions=(30, 100), encoding="utf-8", timeout=20
    )
    child.logfile_read = Log()
    child.expect_exact("PROMPT> ")
    child.sendline(f"{sys.executable} {tmp_path / 'play.py'}")
    child.expect_exact("20/40")
    child.expect("latest +")
    yield child
    child.close(force=True)


def is_sane(raw: str) -> bool:
    """Whether the cursor is shown, and the prompt stands at the beginning of a line."""
    return raw.rfind(SHOWN) > raw.rfind(HIDDEN)


def test_ctrl_z_gives_the_terminal_back_and_fg_takes_it_again(shell: pexpect.spawn) -> None:
    shell.send("\x1a")
    shell.expect("Stopped")
    shell.expect_exact("PROMPT> ")
    assert is_sane(shell.logfile_read.text)
    shell.sendline("fg")
    shell.expect_exact(HIDDEN)
    shell.expect("latest +")
    shell.expect(" succeeded")
    shell.expect_exact("PROMPT> ")
    assert is_sane(shell.logfile_read.text)
    seen = words(shell.logfile_read.text)
    for step in range(1, 41):
        assert len(re.findall(rf"step +{step}/40 ", seen)) == 1, step


def test_in_the_background_nothing_is_drawn_over_the_prompt(shell: pexpect.spawn) -> None:
    shell.send("\x1a")
    shell.expect("Stopped")
    shell.expect_exact("PROMPT> ")
    shell.sendline("bg; sleep 2; echo still-here")
    shell.expect_exact("\r\nstill-here")
    assert HIDDEN not in shell.before
    assert "latest" not in shell.before


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGHUP])
def test_an_ending_signal_gives_the_terminal_back(
    shell: pexpect.spawn, signum: signal.Signals
) -> None:
    found = re.findall(r"play\.py", shell.logfile_read.text)
    assert found
    foreground = os.tcgetpgrp(shell.child_fd)
    os.kill(foreground, signum)
    shell.expect_exact("PROMPT> ")
    assert is_sane(shell.logfile_read.text)
    shell.sendline("echo code $?")
    shell.expect(f"code {128 + signum}")
