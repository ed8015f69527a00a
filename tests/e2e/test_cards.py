"""A card that was asked for is a card that is used, or the job waits and is told why.

The driver's tool is a stand-in here: it lists a card that this machine does not have.
"""

import json
import os
from functools import partial
from pathlib import Path

import pytest

from ftq_client.client import Client

from .conftest import QUICK, Fleet, wait_for

BASE = ("--model", "demo/tiny-llama", "--dataset", "demo/colours")
SMI = "#!/bin/sh\necho 'GPU-5ca1ab1e, NVIDIA H100 80GB HBM3, 81559'\n"


@pytest.fixture
def broken_driver(tmp_path: Path) -> str:
    """A PATH on which nvidia-smi lists a card that cannot be used."""
    tool = tmp_path / "nvidia-smi"
    tool.write_text(SMI)
    tool.chmod(0o755)
    return f"{tmp_path}:{os.environ['PATH']}"


def waiting_for(client: Client, job: str) -> str:
    return client.get(job).summary.get("waiting", "")


def was_tried(client: Client) -> bool:
    return any("CUDA" in card.why for host in client.workers() for card in host.sick)


def test_a_card_that_cannot_be_used_is_set_aside_and_no_job_falls_to_the_cpu(
    fleet: Fleet, broken_driver: str
) -> None:
    worker = fleet.start_worker("sick", PATH=broken_driver)
    client = fleet.client()
    try:
        wait_for(partial(was_tried, client), what=client.workers)
        for gpus in ("1", "auto"):
            job = fleet.detach(*BASE, *QUICK, "--gpus", gpus)
            reason = wait_for(partial(waiting_for, client, job), what=partial(client.get, job))
            assert reason.startswith("the cards of sick cannot be used: NVIDIA H100")
            client.cancel(job)
        shown = fleet.run("workers")
        assert "0/0 H100 80GB HBM3 86 GB, 1 set aside" in shown.stdout
        assert "sick: NVIDIA H100 80GB HBM3 GPU-5ca1ab1e" in shown.stderr
        assert "CUDA" in shown.stderr
        submitted = fleet.run("submit", *BASE, *QUICK, "--gpus", "1", "--detach", "--json")
        assert "no GPU at all" not in submitted.stderr
        assert "NVIDIA H100 80GB HBM3 on sick: " in submitted.stderr
        client.cancel(json.loads(submitted.stdout)["job"])
    finally:
        fleet.stop_worker(worker)
