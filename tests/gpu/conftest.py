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


@pytest.fixture(scope="session")
def card() -> Card:
    if not (torch.cuda.is_available() or REHEARSE):
        pytest.skip("no CUDA device is here")
    return find_card(REHEARSE)


@pytest.fixture(scope="session")
def tiny(card: Card, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny model, `model`, and real rows for it, `rows.jsonl`."""
    folder = tmp_path_factory.mktemp("tiny")
    make_model("tiny", folder / "model", card.device)
    make_rows(folder / "rows.jsonl", folder / "model", SHAPES["tiny"].length)
    return folder
