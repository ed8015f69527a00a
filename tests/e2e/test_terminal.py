"""`ftq submit` as a person meets it: questions, hidden token, live view, Ctrl-C."""

import re
import sys

import pexpect

from .conftest import QUICK, WRITER, Fleet

CSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def spawn(fleet: Fleet, *args: str, **env: str) -> "pexpect.spawn[str]":
    environment = fleet.env(TERM="xterm-256color", **env)
    if not env.get("HF_TOKEN"):
        environment.pop("HF_TOKEN")
    return pexpect.spawn(
        sys.executable,
        ["-m", "ftq_client", *args],
        env=environment,
        dimensions=(40, 100),
        timeout=60,
        encoding="utf-8",
    )


def test_missing_values_are_asked_for_and_the_job_runs(fleet: Fleet) -> None:
    child = spawn(fleet, "submit", *QUICK)
    child.expect("Model to fine-tune")
    child.sendline("demo/tiny-lama")
    child.expect("1  demo/tiny-llama")
    child.sendline("1")
    child.expect("Dataset to train on")
    child.sendline("?colour")
    child.expect("1  demo/colours")
    child.sendline("1")
    child.expect("Publish to")
    child.sendline("me/asked")
    child.expect("token is needed")
    child.expect("Hub token")
    child.sendline(WRITER)
    child.expect("submitted ft-")
    child.expect("succeeded", timeout=100)
    child.expect(f"{fleet.hub.url}/me/asked")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0
    assert WRITER not in (child.before or "")


def test_the_live_view_shows_every_step_and_gives_the_terminal_back(fleet: Fleet) -> None:
    base = ("--model", "demo/tiny-llama", "--dataset", "demo/colours")
    child = spawn(fleet, "submit", *base, *QUICK, HF_TOKEN=WRITER)
    child.expect(pexpect.EOF, timeout=100)
    child.close()
    assert child.exitstatus == 0
    shown = child.before or ""
    text = CSI.sub("", shown)
    for step in range(1, 21):
        assert re.search(rf"step\s+{step}/20\s+loss", text), step
    for phase in ("validate", "prepare", "train", "publish"):
        assert phase in text
    assert shown.rfind("\x1b[?25h") > shown.rfind("\x1b[?25l"), "the cursor is shown again"


def test_ctrl_c_at_a_question_submits_nothing(fleet: Fleet) -> None:
    before = len(fleet.client().list_jobs(mine=False, active=False))
    child = spawn(fleet, "submit")
    child.expect("Model to fine-tune")
    child.sendintr()
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 130
    assert len(fleet.client().list_jobs(mine=False, active=False)) == before


def test_ctrl_c_in_the_live_view_leaves_the_job_running(fleet: Fleet) -> None:
    base = ("--model", "demo/tiny-llama", "--dataset", "demo/colours")
    many = ("--set", "train.max_steps=20000", "--gpus", "0", "--set", "train.method=full")
    child = spawn(fleet, "submit", *base, *many, HF_TOKEN=WRITER)
    child.expect(r"submitted (ft-\w+)")
    assert child.match
    job = str(child.match.group(1))
    child.expect("step")
    child.sendintr()
    child.expect("goes on without you")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 130
    client = fleet.client()
    assert not client.get(job).state.terminal
    client.cancel(job)
    assert client.wait(job, timeout_s=60).exit_code == 4
