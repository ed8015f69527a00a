"""`ftq prune`: a person sees what is left of ended jobs, and has the workers remove it."""

import json
from pathlib import Path

import pytest

from .conftest import Fleet

BASE = ("--model", "demo/tiny-llama", "--dataset", "demo/colours")


def test_what_is_seen_is_what_goes(fleet: Fleet, tmp_path: Path) -> None:
    job = fleet.submit(*BASE).job
    asked = ("prune", job, "--older-than", "0s")
    seen = fleet.run(*asked, "--dry-run", "--json")
    (one,) = [json.loads(line) for line in seen.stdout.splitlines()]
    assert (one["job"], one["part"], one["removed"]) == (job, "work files", False)
    assert one["bytes"] > 10_000

    refused = fleet.run(*asked)
    assert refused.returncode == 2
    assert "--yes" in refused.stderr
    done = fleet.run(*asked, "--yes")
    assert done.returncode == 0, done.stderr
    assert job in done.stdout
    assert "removed" in done.stderr
    nothing = fleet.run(*asked, "--yes").stderr
    assert f"{job}: nothing to remove: " in nothing
    assert "--models" in nothing
    assert fleet.run("fetch", job, str(tmp_path / "model")).returncode == 0, "its model stays"

    assert fleet.run(*asked, "--models", "--yes").returncode == 0
    assert fleet.run("fetch", job, str(tmp_path / "again")).returncode == 1


@pytest.mark.chaos
def test_a_failed_job_that_was_removed_starts_over(fleet: Fleet) -> None:
    failed = fleet.submit(*BASE, "--set", "data.columns.prompt=nowhere")
    assert failed.code == 5
    assert fleet.run("prune", failed.job, "--older-than", "0s", "--yes").returncode == 0
    again = fleet.run("retry", failed.job, "--json")
    assert again.returncode == 5
    phases = [json.loads(line).get("phase") for line in again.stdout.splitlines()]
    assert "validate" in phases
