"""Faults on request, and what a restart keeps."""

import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import HfApi, hf_hub_download
from huggingface_hub import constants as hub_constants
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
)

from ftq_hub import Fault, HubApp, HubStore, Tls, running

BIG = bytes(range(256)) * 20_000  # 5 MB, five chunks
NAME = "model.safetensors"


@pytest.fixture(scope="module")
def repo(hub: Any, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A public model with one large file."""
    folder = tmp_path_factory.mktemp("big")
    (folder / NAME).write_bytes(BIG)
    hub.store.create_repo("model", "me/big")
    hub.store.commit_folder("model", "me/big", folder)
    return "me/big"


@pytest.fixture(autouse=True)
def no_faults(hub: Any) -> Iterator[None]:
    """Leave no fault to the next test."""
    yield
    hub.clear_faults()


@pytest.fixture
def fetch(hub: Any, repo: str, tmp_path: Path) -> Callable[[], bytes]:
    """Download the large file into an empty cache."""

    def run() -> bytes:
        path = hf_hub_download(
            repo, NAME, endpoint=hub.url, token=False, cache_dir=tmp_path / "cache"
        )
        return Path(path).read_bytes()

    return run


@pytest.fixture
def no_xet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Large files come by plain HTTP."""
    monkeypatch.setattr(hub_constants, "HF_HUB_DISABLE_XET", True)


def test_a_cut_transfer_goes_on_by_range(
    hub: Any, fetch: Callable[[], bytes], no_xet: None
) -> None:
    hub.fault(path="/me/big/file/", method="GET", cut_after_bytes=2_000_000, times=1)
    assert fetch() == BIG
    assert [fault["hits"] for fault in hub.faults()] == [1]


def test_hf_xet_fetches_from_here_and_gets_over_a_cut(hub: Any, fetch: Callable[[], bytes]) -> None:
    hub.fault(path="/me/big/xorb-", method="GET", cut_after_bytes=2_000_000, times=1)
    hub.fault(path="/me/big/file/", status=500, times=None)
    assert fetch() == BIG
    assert [fault["hits"] for fault in hub.faults()] == [1, 0]


def test_a_429_is_waited_out(hub: Any, fetch: Callable[[], bytes], no_xet: None) -> None:
    hub.fault(path="/me/big/file/", method="GET", status=429, retry_after_s=1, times=1)
    start = time.monotonic()
    assert fetch() == BIG
    assert time.monotonic() - start > 1.0  # the client adds a second of its own


def test_a_500_is_retried(hub: Any, fetch: Callable[[], bytes]) -> None:
    hub.fault(path=NAME, method="HEAD", status=500, times=2)
    assert fetch() == BIG
    assert [fault["hits"] for fault in hub.faults()] == [2]


def test_a_503_that_stays_is_an_error(hub: Any, repo: str) -> None:
    hub.fault(path="/api/models/", status=503, times=None)
    for _ in range(2):
        with pytest.raises(HfHubHTTPError, match="503"):
            hub.api().model_info(repo)


def test_refusals_name_their_error(hub: Any, repo: str, fetch: Callable[[], bytes]) -> None:
    hub.fault(path="/api/", status=403, error_code="GatedRepo")
    with pytest.raises(GatedRepoError):
        hub.api().model_info(repo)
    hub.fault(path=NAME, status=404, error_code="EntryNotFound")
    with pytest.raises(EntryNotFoundError):
        fetch()
    hub.fault(path="whoami", status=401)
    with pytest.raises(HfHubHTTPError):
        hub.api().whoami()
    assert hub.api().whoami()["name"] == "me"


def test_a_stall_runs_into_the_clients_timeout(hub: Any, repo: str) -> None:
    hub.fault(path="/api/models/", stall_s=30)
    start = time.monotonic()
    with pytest.raises(Exception, match="timed out"):
        hub.api().model_info(repo, timeout=0.5)
    assert time.monotonic() - start < 10
    hub.fault(path="/api/models/", stall_s=0.3)
    assert hub.api().model_info(repo).sha


def test_only_the_admin_sets_faults(hub: Any) -> None:
    for headers in ({}, {"Authorization": "Bearer hf_me"}):
        with pytest.raises(OSError, match="401"):
            hub.call("POST", "/_faults", {"status": 500}, **headers)
    for bad in ({"status": 200}, {"path": "("}, {"status": 500, "colour": 1}, {}):
        with pytest.raises(OSError, match="400"):
            hub.fault(**bad)
    assert hub.faults() == []
    token_file = hub.store.folder / "admin-token"
    assert token_file.stat().st_mode & 0o077 == 0


def test_a_hub_inside_the_process(tmp_path: Path, tls: Tls) -> None:
    """The form for demos: the app object takes faults without the admin endpoint."""
    store = HubStore(tmp_path)
    store.create_repo("model", "demo/inside")
    app = HubApp(store)
    with running(app, tls=tls) as url:
        api = HfApi(endpoint=url, token=False)
        assert api.model_info("demo/inside").sha
        app.faults.add(Fault(path="/api/models/demo", status=503))
        with pytest.raises(HfHubHTTPError, match="503"):
            api.model_info("demo/inside")
        assert [fault.hits for fault in app.faults.list()] == [1]


@pytest.mark.parametrize(
    "number", [pytest.param(signal.SIGTERM, marks=pytest.mark.chaos), signal.SIGKILL]
)
def test_a_restart_keeps_everything(
    tmp_path: Path, start_process: Callable[..., Any], number: int
) -> None:
    HubStore(tmp_path).add_token("hf_me", "me", "write")
    first = start_process(tmp_path)
    api = HfApi(endpoint=first.url, token="hf_me")
    api.create_repo("me/kept", private=True)
    sha = api.upload_file(path_or_fileobj=b"k", path_in_repo="k.txt", repo_id="me/kept").oid
    code = first.stop(number)
    assert code == (0 if number != signal.SIGKILL else -signal.SIGKILL)
    second = start_process(tmp_path)
    info = HfApi(endpoint=second.url, token="hf_me").model_info("me/kept")
    assert (info.sha, info.private) == (sha, True)
    second.stop()


def test_a_hub_that_is_gone_is_a_connection_error(
    tmp_path: Path, start_process: Callable[..., Any]
) -> None:
    process = start_process(tmp_path / "store")
    process.stop()
    with pytest.raises(LocalEntryNotFoundError):
        hf_hub_download(
            "me/x",
            "x",
            endpoint=process.url,
            token=False,
            cache_dir=tmp_path / "cache",
            local_files_only=True,
        )
