"""`ftq submit` as a person meets it: questions, hidden token, live view, Ctrl-C."""

import re
import shlex
import subprocess
import sys

import pexpect
import pytest

from ftq_client.view.lines import cells

from .conftest import QUICK, READER, WRITER, Fleet

CSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def spawn(
    fleet: Fleet, *args: str, size: tuple[int, int] = (40, 100), **env: str
) -> "pexpect.spawn[str]":
    environment = fleet.env(TERM="xterm-256color", **env)
    if not env.get("HF_TOKEN"):
        environment.pop("HF_TOKEN")
    return pexpect.spawn(
        sys.executable,
        ["-m", "ftq_client", *args],
        env=environment,
        dimensions=size,
        timeout=60,
        encoding="utf-8",
    )


def interrupt_question(child: "pexpect.spawn[str]") -> None:
    """Press Ctrl-C until it is heard: Python misses one that comes just before readline waits."""
    for _ in range(5):
        child.sendintr()
        if child.expect([pexpect.EOF, pexpect.TIMEOUT], timeout=10) == 0:
            return
    raise AssertionError("Ctrl-C ends no question")


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
    child.expect("the same without questions")
    child.expect(r"ftq submit .* --publish-to me/asked")
    child.expect("Submit it")
    child.sendline("")
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


def test_no_answer_is_lost_to_a_token_that_may_only_read(fleet: Fleet) -> None:
    before = len(fleet.client().list_jobs(mine=False, active=False))
    child = spawn(fleet, "submit", HF_TOKEN=READER)
    child.expect("Model to fine-tune")
    child.sendline("./rows.jsonl")  # refused here, and not after all other questions
    child.expect("is a data file; a model is a Hub id or a folder")
    child.sendline("tiny")  # how the name begins
    child.expect("1  demo/tiny-llama")
    child.sendline("1")
    child.expect("Dataset to train on")
    child.sendline("demo/colours")
    child.expect("Publish to")
    child.sendline("*.jsonl")
    child.expect("is no repo")
    child.expect("Publish to")
    child.sendline("me/again")
    child.expect("has the role read")
    child.expect("Another Hub token")
    child.sendline(WRITER)
    child.expect("me/again")
    for part in ("model +demo/tiny-llama", "dataset +demo/colours", "rows", "task", "method",
                 "target +me/again"):  # fmt: skip
        child.expect(part)
    child.expect(r"ftq (submit --model \S+ --dataset \S+ --publish-to \S+)")
    assert child.match
    line = str(child.match.group(1))
    child.expect("Submit it")
    child.sendline("n")
    child.expect("nothing was submitted")
    child.expect(pexpect.EOF)
    assert len(fleet.client().list_jobs(mine=False, active=False)) == before
    # The command that was shown does the same when it is pasted.
    pasted = fleet.run(*shlex.split(line), "--detach")
    assert pasted.returncode == 0, pasted.stderr
    assert fleet.client().get(pasted.stdout.strip()).spec.publish.repo == "me/again"
    fleet.run("cancel", pasted.stdout.strip())


def test_an_expired_token_is_answered_with_another(fleet: Fleet) -> None:
    child = spawn(fleet, "submit", HF_TOKEN="hf_wasKnownOnceUponATime")
    child.expect("Model to fine-tune")
    child.sendline("demo/tiny-llama")
    child.expect("does not know the token")
    child.expect("Another Hub token .*go on without")
    child.sendline(WRITER)
    child.expect("demo/tiny-llama  ")
    child.expect("Dataset to train on")
    interrupt_question(child)


@pytest.mark.parametrize(
    ("rows", "columns"), [(24, 80), pytest.param(20, 60, marks=pytest.mark.chaos), (24, 40)]
)
def test_tables_fit_the_terminal(fleet: Fleet, rows: int, columns: int) -> None:
    name = "a long name for people to read"
    job = fleet.detach("--model", "demo/tiny-llama", "--dataset", "demo/colours", *QUICK,
                       "--name", name, "--publish-to", "me/a-target-with-a-long-name")  # fmt: skip
    assert fleet.run("wait", job, "--timeout", "100").returncode == 0
    for command in ("list -a", "list --ended", "workers", f"show {job}", "doctor"):
        child = spawn(fleet, *command.split(), HF_TOKEN=WRITER, size=(rows, columns))
        child.expect(pexpect.EOF)
        child.close()
        lines = CSI.sub("", child.before or "").splitlines()
        assert len(lines) > 1, command
        if command != "doctor":  # its values are to be copied
            assert max(map(cells, lines)) <= columns, (command, lines)
        if command.startswith("list"):
            (row,) = [line for line in lines if job in line]
            assert "succeeded" in row
            assert "ETA" not in lines[0]


def test_a_tail_that_is_cut_off_by_its_reader_is_no_failure(fleet: Fleet) -> None:
    job = fleet.detach("--model", "demo/tiny-llama", "--dataset", "demo/colours", *QUICK)
    fleet.run("wait", job, "--timeout", "100")
    for options in ("", "--json"):
        line = f"set -o pipefail; {sys.executable} -m ftq_client tail {job} {options} | head -n 1"
        done = subprocess.run(
            ["bash", "-c", line], env=fleet.env(), capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert len(done.stdout.splitlines()) == 1


def test_a_late_tail_knows_what_was_before(fleet: Fleet) -> None:
    job = fleet.detach("--model", "demo/tiny-llama", "--dataset", "demo/colours", *QUICK)
    fleet.run("wait", job, "--timeout", "100")
    whole = fleet.run("tail", job).stdout
    summary = whole[whole.index("succeeded after") :]
    for options in (("--since", "0.001"), ("--after", "100000")):
        late = fleet.run("tail", job, *options).stdout
        assert late.lstrip().startswith("+ " + job)
        assert late.endswith(summary)


def test_ctrl_c_at_a_question_submits_nothing(fleet: Fleet) -> None:
    before = len(fleet.client().list_jobs(mine=False, active=False))
    child = spawn(fleet, "submit")
    child.expect("Model to fine-tune")
    interrupt_question(child)
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
