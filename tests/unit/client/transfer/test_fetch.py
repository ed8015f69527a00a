"""`ftq fetch` brings the reports of a job along: files, and the folder of TensorBoard files."""

import io
import tarfile
from types import SimpleNamespace

import pytest

from ftq_client.transfer.fetch import fetch_model
from ftq_shared.paths import JobPaths
from ftq_shared.settings import load_settings
from ftq_worker.agent.model_relay import send_folder

JOB = "ft-aaaaaaaa"
FILES = {"config.json", "train.json", "tensorboard/events.out.tfevents.1.host.1"}


@pytest.fixture
def paths(tmp_path):
    paths = JobPaths(tmp_path / "storage", JOB)
    for path in (
        paths.model / "config.json",
        paths.train_report,
        paths.tensorboard / "events.out.tfevents.1.host.1",
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(path.name)
    return paths


def files_below(folder):
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}


def test_from_a_shared_storage(tmp_path, paths):
    settings = load_settings({"FTQ_STORAGE": str(paths.storage), "FTQ_HOME": str(tmp_path)})
    fetch_model(None, settings, JOB, "", tmp_path / "model")
    assert files_below(tmp_path / "model") == FILES


def test_through_the_broker(tmp_path, paths):
    pieces = []
    binary = SimpleNamespace(
        set=lambda *_, **__: True,
        llen=lambda key: 0,
        rpush=lambda key, piece: pieces.append(piece[8:]),
        expire=lambda *_: True,
    )
    send_folder(binary, paths, {"fetch": JOB, "storage_id": "", "nonce": "n"})
    with tarfile.open(fileobj=io.BytesIO(b"".join(pieces))) as tar:
        tar.extractall(tmp_path / "model", filter="data")
    assert files_below(tmp_path / "model") == FILES
