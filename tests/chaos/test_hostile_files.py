"""Data files damaged in every way, through validate and prepare: told, or read and counted.

make test                           40 datasets, always the same
make chaos                          2,000 datasets; a new seed, which it prints
FTQ_CHAOS_SEED=7 make chaos         the same datasets again
"""

import os
import secrets
from pathlib import Path

import pytest

from tests.support import fuzz_data

ALWAYS = 20261126


def flood(seed: int, count: int, folder: Path) -> None:
    found = fuzz_data.run(seed, count, folder)
    print(f"\nhostile files: seed {seed}: {found}")
    assert not found.faults, f"{len(found.faults)} faults:\n" + "\n".join(found.faults[:20])
    assert found.ends.total() == count
    # A flood of which nothing is read, or nothing refused, would prove little.
    assert found.ends["prepared"] > count / 5
    assert len(found.ends) > 5


@pytest.mark.timeout(300)
def test_a_few_hostile_files(tmp_path: Path) -> None:
    flood(ALWAYS, 40, tmp_path)


@pytest.mark.chaos
@pytest.mark.timeout(3600)
def test_two_thousand_hostile_files(tmp_path: Path) -> None:
    given = os.environ.get("FTQ_CHAOS_SEED")
    flood(int(given) if given else secrets.randbelow(10**6), 2_000, tmp_path)
