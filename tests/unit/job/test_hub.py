"""Downloads from a Hub: what is shown of them, and how soon they notice a stop."""

import logging
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from huggingface_hub.utils._xet_progress_reporting import XetDownloadProgressReporter
from tests.support.data_jobs import Recorder, make_context, make_spec

from ftq_hub import Fault, HubApp, HubStore, running
from ftq_shared.errors import FtqError, JobCancelled
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
def app(tmp_path_factory: pytest.TempPathFactory) -> HubApp:
    store = HubStore(tmp_path_factory.mktemp("hub"))
    folder = tmp_path_factory.mktemp("files")
    (folder / "model.safetensors").write_bytes(bytes(WEIGHTS))
    (folder / "pytorch_model.bin").write_bytes(bytes(WEIGHTS))
    (folder / "code.py").write_text("1 / 0")
    store.create_repo("model", "me/base")
    store.commit_folder("model", "me/base", folder)
    return HubApp(store)


@pytest.fixture(scope="module")
def hub(app: HubApp) -> Iterator[str]:
    with running(app) as url:
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
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
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


def test_a_cancel_breaks_a_transfer_of_xet_off(
    app: HubApp, hub: str, cache: Path, tmp_path: Path
) -> None:
    """It stands still, so that no progress could notice; hf_xet itself would try for minutes."""
    ctx = make_context(tmp_path / "storage", make_spec(), endpoint=hub)
    app.faults.add(Fault(path="/xorb-", stall_s=60.0, times=None))
    stop = threading.Timer(1.0, ctx.control.stop, [StopReason.CANCEL])
    stop.start()
    try:
        with pytest.raises(JobCancelled):
            fetch_base(ctx, BASE)
    finally:
        stop.join()
        app.faults.clear()
    # The next one is not broken off.
    assert fetch_base(replace(ctx, control=Control()), BASE).is_dir()


@pytest.mark.parametrize("status", [401, 403, 404, 418])
def test_a_refused_transfer_of_xet_is_a_refusal(
    app: HubApp, hub: str, cache: Path, tmp_path: Path, status: int
) -> None:
    ctx = make_context(tmp_path / "storage", make_spec(), endpoint=hub)
    app.faults.add(Fault(path="/v1/reconstructions/", status=status, times=None))
    with pytest.raises(FtqError) as caught:
        fetch_base(ctx, BASE)
    app.faults.clear()
    assert caught.value.code in ("access", "no_such_model", "hub_unreachable")
    assert caught.value.hint


@pytest.mark.parametrize("damage", [b"", bytes(WEIGHTS - 1)])
def test_a_copy_in_the_cache_that_is_not_whole_is_brought_again(
    hub: str, cache: Path, tmp_path: Path, damage: bytes
) -> None:
    ctx = make_context(tmp_path / "storage", make_spec(), endpoint=hub)
    weights = fetch_base(ctx, BASE) / "model.safetensors"
    weights.resolve().write_bytes(damage)
    assert (fetch_base(ctx, BASE) / "model.safetensors").stat().st_size == WEIGHTS


def test_a_file_that_is_listed_and_not_handed_out_is_named(
    app: HubApp, hub: str, cache: Path, tmp_path: Path
) -> None:
    ctx = make_context(tmp_path / "storage", make_spec(), endpoint=hub)
    fault = Fault(path="/resolve/", status=404, error_code="EntryNotFound", times=None)
    app.faults.add(fault)
    with pytest.raises(FtqError, match=r"lists model\.safetensors") as caught:
        fetch_base(ctx, BASE)
    app.faults.clear()
    assert caught.value.code == "download_damaged"


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
