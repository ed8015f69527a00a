"""Downloads from a Hub: what is shown of them, and how soon they notice a stop."""

import logging
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from huggingface_hub.utils._xet_progress_reporting import XetDownloadProgressReporter
from tests.support.data_jobs import Recorder, make_context, make_spec

from ftq_hub import HubApp, HubStore, running
from ftq_shared.errors import JobCancelled
from ftq_shared.events import EventType
from ftq_shared.sources import Place
from ftq_worker.job.context import Control, PhaseContext, StopReason
from ftq_worker.job.hub import _byte_bar
from ftq_worker.job.progress import Progress
from ftq_worker.job.reports import ModelFacts
from ftq_worker.training.base_model import fetch_base

WEIGHTS, CHUNK = 200_000, 5_000  # bytes
BASE = ModelFacts(
    place=Place.HUB,
    name="me/base",
    architecture="LlamaForCausalLM",
    model_type="llama",
    kind="decoder",
    hidden_size=8,
    layers=1,
    vocab_size=300,
)


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    store = HubStore(tmp_path_factory.mktemp("hub"))
    folder = tmp_path_factory.mktemp("files")
    (folder / "model.safetensors").write_bytes(bytes(WEIGHTS))
    (folder / "pytorch_model.bin").write_bytes(bytes(WEIGHTS))
    (folder / "code.py").write_text("1 / 0")
    store.create_repo("model", "me/base")
    store.commit_folder("model", "me/base", folder)
    with running(HubApp(store)) as url:
        yield url


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", CHUNK)
    return tmp_path / "cache"


def sent(ctx: PhaseContext) -> list[dict[str, Any]]:
    assert isinstance(ctx.emit, Recorder)
    return [data for type_, data in ctx.emit.events if type_ is EventType.PROGRESS]


def test_a_base_model_comes_with_weights_of_one_kind_and_no_code(
    hub: str, cache: Path, tmp_path: Path
) -> None:
    ctx = make_context(tmp_path / "storage", make_spec(), endpoint=hub)
    folder = fetch_base(ctx, BASE)
    assert [path.name for path in folder.iterdir()] == ["model.safetensors"]
    assert sent(ctx)[-1] == {
        "task": "download me/base",
        "done": WEIGHTS,
        "unit": "bytes",
        "total": WEIGHTS,
    }
    fetch_base(ctx, BASE)  # from the cache
    assert sent(ctx)[-1]["done"] == WEIGHTS


def test_a_cancel_ends_the_download_of_a_base_model_within_a_chunk(
    hub: str, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ctx = make_context(tmp_path / "storage", make_spec(), endpoint=hub)
    chunks: list[int] = []
    advance = Progress.advance

    def cancel_at_the_first_byte(self: Progress, units: int = 1) -> None:
        if units:
            chunks.append(units)
            ctx.control.stop(StopReason.CANCEL)
        advance(self, units)

    monkeypatch.setattr(Progress, "advance", cancel_at_the_first_byte)
    with pytest.raises(JobCancelled):
        fetch_base(ctx, BASE)
    assert chunks == [CHUNK]


def test_bytes_that_come_through_xet_count_once() -> None:
    events = Recorder()
    progress = Progress(events, Control(), "download m", "bytes", total=100)
    report = SimpleNamespace(
        total_bytes=100,
        total_bytes_completed=100,
        total_bytes_completion_rate=1.0,
        total_transfer_bytes_completed=100,
        total_transfer_bytes_completion_rate=1.0,
    )
    with XetDownloadProgressReporter(
        reconstruction_desc="m: reconstructing file",
        transfer_desc="m: downloading bytes",  # as `xet_get` names them
        total=100,
        log_level=logging.WARNING,
        tqdm_class=_byte_bar(progress),
    ) as bars:
        bars.update_progress(report)
    assert progress.done == 100
