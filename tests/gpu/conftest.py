"""Runs without the rest of the tests' set-up: a bare machine with a card has no broker.

With FTQ_GPU_REHEARSE set, what can be tried on the CPU is: the tests, not the card.
"""

import os
from pathlib import Path

import pytest
import torch
from benchmarks.gpu.card import Card, find_card
from benchmarks.gpu.models import SHAPES, make_model, make_rows

REHEARSE = bool(os.environ.get("FTQ_GPU_REHEARSE"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark all of them, and skip them where no card is."""
    for item in items:
        item.add_marker(pytest.mark.gpu)
        item.add_marker(pytest.mark.timeout(300))
        if not (torch.cuda.is_available() or REHEARSE):
            item.add_marker(pytest.mark.skip(reason="no CUDA device is here"))


@pytest.fixture(scope="session")
def card() -> Card:
    return find_card(REHEARSE)


@pytest.fixture(scope="session")
def tiny(card: Card, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny model, `model`, and real rows for it, `rows.jsonl`."""
    folder = tmp_path_factory.mktemp("tiny")
    make_model("tiny", folder / "model", card.device)
    make_rows(folder / "rows.jsonl", folder / "model", SHAPES["tiny"].length)
    return folder
