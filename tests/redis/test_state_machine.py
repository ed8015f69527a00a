"""Random histories of all scripts against the store in memory; `make chaos` runs many more.

The rules are in `tests/support/job_machine.py`, what must always hold in `broker_view.py` beside
it. So a unit test may take `ftq_shared.in_memory` for the real store.
"""

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test
from tests.support.broker_view import World
from tests.support.job_machine import machine_on

from ftq_client.local.valkey import EmbeddedBroker

HISTORIES = 100


@pytest.mark.timeout(600)  # 8 s on a machine that has nothing else to do
def test_no_history_leads_to_an_illegal_state(broker: EmbeddedBroker) -> None:
    world = World.on(broker.url)
    try:
        run_state_machine_as_test(
            machine_on(world),
            settings=settings(
                max_examples=HISTORIES,
                stateful_step_count=40,
                derandomize=True,
                deadline=None,
                suppress_health_check=[HealthCheck.too_slow],
            ),
        )
    finally:
        world.close()
    assert world.histories >= HISTORIES
