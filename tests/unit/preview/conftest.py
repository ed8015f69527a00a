"""A model folder without weights, and a look at files beside it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.support.data_jobs import CHAT_TEMPLATE, MakeJob, job_maker, make_tokenizer
from transformers import LlamaConfig, PreTrainedTokenizerFast

from ftq_shared.data_report import DataReport
from ftq_shared.preview_messages import PreviewRequest
from ftq_shared.spec_input import parse_spec
from ftq_worker.preview.run import preview

MakeLook = Callable[..., DataReport]


@pytest.fixture
def make_job(tmp_path: Path) -> MakeJob:
    return job_maker(tmp_path)


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    return make_tokenizer(chat=CHAT_TEMPLATE)


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory, tokenizer: PreTrainedTokenizerFast) -> Path:
    folder = tmp_path_factory.mktemp("model")
    tokenizer.save_pretrained(folder)
    LlamaConfig(
        architectures=["LlamaForCausalLM"],
        vocab_size=len(tokenizer),
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        max_position_embeddings=512,
    ).save_pretrained(folder)
    return folder


@pytest.fixture
def look(tmp_path: Path, model: Path) -> MakeLook:
    """Return a function that looks at one file of rows: look(path, rows=3, data={...})."""

    def make(path: Path, rows: int = 3, **fields: Any) -> DataReport:
        spec = parse_spec({"model": str(model), "dataset": str(path), **fields})
        request = PreviewRequest(
            spec=spec.model_dump(mode="json"),
            endpoint="http://127.0.0.1:9",
            rows=rows,
            folder=str(tmp_path / f"look{len(list(tmp_path.glob('look*')))}"),
            model_folder=str(model),
            dataset_folder=str(path) if path.is_dir() else "",
            files=() if path.is_dir() else ((str(path), f"dataset/{path.name}"),),
        )
        return preview(request, lambda _: None)

    return make
