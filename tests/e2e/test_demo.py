"""`ftq demo` as a newcomer types it: all of it works, and nothing stays, however it ends."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pexpect
import pytest

FTQ = [sys.executable, "-m", "ftq_client"]
BROKEN = """
import sys
from ftq_client.local import demo
demo.SETTINGS = {"train.metod": "full"}
sys.exit(demo.run_demo(keep=False))
"""


@pytest.fixture
def tmp() -> Iterator[Path]:
    """A short temporary folder; the path of a Unix socket must fit into 107 bytes."""
    folder = Path(tempfile.mkdtemp(prefix="demo-"))
    yield folder
    shutil.rmtree(folder)


def environment(tmp: Path) -> dict[str, str]:
    # A newcomer's own settings must not reach the demo, nor the demo's reach them.
    theirs = {"FTQ_REDIS_URL": "redis://127.0.0.1:1/0", "HF_ENDPOINT": "http://127.0.0.1:1"}
    return os.environ | theirs | {"TMPDIR": str(tmp), "TERM": "xterm"}


def processes_of(folder: Path) -> list[str]:
    """Return the command lines of processes that have the folder in command or environment."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            text = (process / "cmdline").read_text() + (process / "environ").read_text()
        except OSError:
            continue
        if str(folder) in text and process.name != str(os.getpid()):
            found.append((process / "cmdline").read_text())
    return found


@pytest.mark.timeout(240)
def test_a_whole_fine_tune_and_nothing_left(tmp: Path) -> None:
    done = subprocess.run(
        [*FTQ, "demo"], env=environment(tmp), capture_output=True, text=True, check=False
    )
    out = done.stdout
    assert done.returncode == 0, out[-3000:] + done.stderr[-3000:]
    for check in ("model", "dataset", "columns", "target repo", "disk"):
        assert f"check ok: {check}: " in out
    assert "577 rows" in out
    for rule, dropped in (("missing", 5), ("empty", 7), ("duplicate", 24), ("too_long", 1)):
        assert re.search(rf"cleaning {rule} .* rows  -{dropped} ", out), rule
    assert "golden 54 rows from train" in out
    assert re.search(r"sample row .*train", out)
    steps = [(int(n), int(of)) for n, of in re.findall(r" step (\d+)/(\d+)  loss", out)]
    assert [n for n, _ in steps] == list(range(1, steps[0][1] + 1))
    before, after = (
        float(re.findall(rf"eval golden {when}  loss ([\d.]+)", out)[0])
        for when in ("before", "after")
    )
    assert after < before / 10
    assert re.search(r"eval golden after .* token accuracy (9[5-9]|100)", out)
    assert re.search(r"published http://127.0.0.1:\d+/demo/colours-llama ", out)
    assert len(re.findall(r"\?  +(yellow|blue|red)  right\n", out)) == 3
    assert "nothing is left running" in out
    assert processes_of(tmp) == []
    assert list(tmp.iterdir()) == []


@pytest.mark.chaos
@pytest.mark.timeout(180)
def test_ctrl_c_stops_all_of_it(tmp: Path) -> None:
    demo = pexpect.spawn(
        FTQ[0],
        [*FTQ[1:], "demo"],
        env=environment(tmp),
        dimensions=(40, 100),
        timeout=120,
        encoding="utf-8",
    )
    demo.expect(r"[^0-9]3/177")
    assert processes_of(tmp)
    demo.sendintr()
    demo.expect("nothing is left running")
    demo.expect(pexpect.EOF)
    demo.close()
    assert demo.exitstatus == 130
    assert processes_of(tmp) == []
    assert list(tmp.iterdir()) == []


@pytest.mark.chaos
@pytest.mark.timeout(180)
def test_a_failure_keeps_its_code_and_the_logs(tmp: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", BROKEN],
        env=environment(tmp),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stdout + done.stderr
    assert "train.method" in done.stderr  # what `ftq submit` said
    assert "`ftq submit` ended with exit code 2" in done.stdout
    [kept] = tmp.iterdir()
    assert f"kept {kept}" in done.stdout
    assert (kept / "ftq" / "up.log").exists()
    assert processes_of(tmp) == []


def test_parts_that_are_not_installed() -> None:
    code = (
        "from ftq_client.local import demo; demo.NEEDED = ('no_such_package',);"
        "from ftq_client.cli import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "demo"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "no_such_package" in done.stderr
    assert "pip install 'ftq[all]'" in done.stderr
