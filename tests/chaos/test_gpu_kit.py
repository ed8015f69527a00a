"""The kit for cards, rehearsed on the CPU: what is tried is the kit, not a card."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(1200)]


def run(*command: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=ROOT,
        env={**os.environ, "FTQ_GPU_REHEARSE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def test_the_tests_of_a_card_run_without_the_other_tests_set_up(test_data: Path) -> None:
    said = run("pytest", "-q", "-m", "gpu", "--confcutdir=tests/gpu", "tests/gpu")
    assert "3 passed" in said


def test_the_figures_of_a_card_are_all_there(test_data: Path, tmp_path: Path) -> None:
    print(run("benchmarks.gpu", "--rehearse", "--out", str(tmp_path)))
    lines = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    assert lines[0]["part"] == "card"
    for line in lines:
        assert "failed" not in line
        assert "left_out" not in line
