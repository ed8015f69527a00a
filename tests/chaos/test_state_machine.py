"""Ten thousand random histories of all scripts against the store in memory, and no illegal state.

The seed is printed; FTQ_CHAOS_SEED runs the same histories again.
"""

import os
import secrets
import time

import pytest
from hypothesis import HealthCheck, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from ftq_client.local.valkey import EmbeddedBroker
from tests.support.broker_view import World
from tests.support.job_machine import machine_on

HISTORIES = 10_000
BATCH = 1_000  # hypothesis remembers each history of a batch: 10,000 at once take 2 GB


@pytest.mark.chaos
@pytest.mark.timeout(3600)
def test_ten_thousand_histories(broker: EmbeddedBroker, capsys: pytest.CaptureFixture[str]) -> None:
    first = int(os.environ.get("FTQ_CHAOS_SEED") or secrets.randbelow(2**32))
    world, started = World.on(broker.url), time.monotonic()
    try:
        for number in range(first, first + HISTORIES // BATCH):
            run_state_machine_as_test(
                seed(number)(machine_on(world)),
                settings=settings(
                    max_examples=BATCH,
                    stateful_step_count=40,
                    database=None,
                    deadline=None,
                    print_blob=True,
                    suppress_health_check=[HealthCheck.too_slow],
                ),
            )
    finally:
        world.close()
        seconds = time.monotonic() - started
        with capsys.disabled():
            print(
                f"\n{world.histories} histories, {world.calls} calls in {seconds:.0f} s;"
                f" FTQ_CHAOS_SEED={first}"
            )
    assert world.histories >= HISTORIES
