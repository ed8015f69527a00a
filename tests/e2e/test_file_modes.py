"""Who may read what ftq writes: its user alone, whatever the shell's umask is; or a group."""

import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ftq_client import Client
from ftq_shared.errors import FtqError
from ftq_shared.settings import load_settings
from tests.e2e.conftest import wait_for


def too_open(folder: Path, denied: int) -> list[str]:
    """Return what under a folder has one of these bits."""
    paths = [folder, *folder.rglob("*")]
    modes = {str(path): path.lstat().st_mode for path in paths if not path.is_symlink()}
    return [path for path, mode in modes.items() if stat.S_IMODE(mode) & denied]


def online(home: Path) -> bool:
    try:
        return Client(load_settings({"FTQ_HOME": str(home)})).online()
    except FtqError:
        return False


@pytest.mark.parametrize(("umask", "denied"), [("", 0o077), ("027", 0o027), ("007", 0o007)])
def test_a_stack_under_a_careless_umask(tmp_path: Path, umask: str, denied: int) -> None:
    home = tmp_path / "home"
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("FTQ_", "HF_"))}
    env = kept | {"FTQ_HOME": str(home), "FTQ_UMASK": umask, "HF_HOME": str(home / "hf")}
    command = [sys.executable, "-m", "ftq_client.local.stack", "--gpus", "0", "--slots", "1"]
    with (tmp_path / "log").open("wb") as log:
        stack = subprocess.Popen(
            command, env=env, stdout=log, stderr=log, umask=0, start_new_session=True
        )
    try:
        wait_for(lambda: online(home), what=(tmp_path / "log").read_text)
        assert not too_open(home, denied)
        assert not too_open(home / "broker" / "url", 0o077)
        assert not too_open(home / "fleet.key", 0o077)
        group = stat.S_IMODE((home / "storage" / "storage_id").stat().st_mode) & 0o040
        assert bool(group) is bool(umask)
    finally:
        stack.send_signal(signal.SIGTERM)
        stack.wait(120)


def test_the_local_hub(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "ftq_hub", "--dir", str(tmp_path / "hub"), "--token", "t=me"]
    hub = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, umask=0)
    try:
        deadline = time.monotonic() + 30
        while not (tmp_path / "hub" / "users.json").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert (tmp_path / "hub" / "users.json").exists()
        assert not too_open(tmp_path / "hub", 0o077)
    finally:
        hub.terminate()
        hub.wait(30)
