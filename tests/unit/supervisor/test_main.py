"""What a worker needs of its machine before its processes start."""

import json
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from ftq_shared.errors import UsageError
from ftq_shared.settings import load_settings
from ftq_worker.host.wire import listen
from ftq_worker.supervisor.main import folder_for_sockets, own_name


@pytest.mark.parametrize("length", [20, 95, 160])
def test_sockets_fit_however_deep_the_folder_for_temporary_files_lies(
    length: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = tmp_path / ("d" * max(1, length - len(str(tmp_path)) - 1))
    deep.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(deep))
    with tempfile.TemporaryDirectory(prefix="ftq-", dir=folder_for_sockets()) as run_dir:
        for name in ("agent.sock", "zygote.sock"):
            listen(Path(run_dir) / name).close()


@pytest.mark.parametrize(
    "name", ["", "a/b", "..", "../x", "a b", "h\udcc3\udcb4te", "a" * 64, "-x"]
)
def test_a_name_that_cannot_be_part_of_a_path_is_refused(name: str, tmp_path: Path) -> None:
    settings = load_settings({"FTQ_HOME": str(tmp_path)})
    with pytest.raises(UsageError, match="cannot be a worker's name"), own_name(settings, name):
        pass


@pytest.mark.parametrize("name", ["gpu-01", "hôte.example", "a"])
def test_a_usual_name_is_taken(name: str, tmp_path: Path) -> None:
    with own_name(load_settings({"FTQ_HOME": str(tmp_path)}), name) as (lock, before):
        assert not before
        assert Path(lock.name).parent == tmp_path / "workers"


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """What a dead worker has left behind."""
    folder = tmp_path / "ftq-abcd1234"
    folder.mkdir(mode=0o700)
    (folder / "processes.json").write_text("[]")
    return folder


def take(tmp_path: Path, held: object) -> str:
    """Take the name whose lock file says `held`; return the predecessor."""
    settings = load_settings({"FTQ_HOME": str(tmp_path / "home")})
    (settings.home / "workers").mkdir(parents=True)
    (settings.home / "workers" / "w1.lock").write_text(
        held if isinstance(held, str) else json.dumps(held)
    )
    with own_name(settings, "w1") as (_, before):
        return before


def test_the_folder_of_a_dead_worker_is_deleted(tmp_path: Path, run_dir: Path) -> None:
    assert take(tmp_path, {"instance": "i1", "run_dir": str(run_dir)}) == "i1"
    assert not run_dir.exists()


def other_name(folder: Path) -> Path:
    return folder.rename(folder.with_name("precious"))


def other_mode(folder: Path) -> Path:
    folder.chmod(0o755)
    return folder


def no_list(folder: Path) -> Path:
    (folder / "processes.json").unlink()
    return folder


def list_is_a_link(folder: Path) -> Path:
    no_list(folder)
    (folder / "processes.json").symlink_to("/etc/hostname")
    return folder


def a_link(folder: Path) -> Path:
    link = folder.with_name("ftq-efgh5678")
    link.symlink_to(folder)
    return link


def relative(folder: Path) -> Path:
    return Path(os.path.relpath(folder))


def of_somebody_else(folder: Path) -> Path:
    if os.geteuid():
        pytest.skip("only root can give a file away")
    os.chown(folder, 12345, 12345)
    return folder


@pytest.mark.parametrize(
    "change", [other_name, other_mode, no_list, list_is_a_link, a_link, relative, of_somebody_else]
)
def test_a_lock_file_deletes_no_other_folder_and_kills_no_process(
    tmp_path: Path,
    run_dir: Path,
    change: Callable[[Path], Path],
    caplog: pytest.LogCaptureFixture,
) -> None:
    folder = change(run_dir)
    (folder / "file").write_text("x")
    # A process that names the folder, as those of a worker do.
    env = {"FTQ_HOST_CONFIG": json.dumps({"run_dir": str(folder)})}
    with subprocess.Popen(["sleep", "60"], env=env) as bystander:
        take(tmp_path, {"instance": "i1", "run_dir": str(folder)})
        assert (folder / "file").exists()
        assert bystander.poll() is None
        bystander.kill()
    assert "is left alone" in caplog.text


def test_processes_are_ended_also_where_tmp_was_cleaned(tmp_path: Path, run_dir: Path) -> None:
    shutil.rmtree(run_dir)
    env = {"FTQ_HOST_CONFIG": json.dumps({"run_dir": str(run_dir)})}
    with subprocess.Popen(["sleep", "60"], env=env) as left:
        take(tmp_path, {"run_dir": str(run_dir)})
        assert left.wait(10) == -signal.SIGKILL


@pytest.mark.parametrize(
    "held", ["", "x", "[1]", "7", "[" * 100_000, {"instance": "../i"}, {"run_dir": "\x00"}]
)
def test_a_damaged_lock_file_names_nobody(tmp_path: Path, held: object) -> None:
    assert take(tmp_path, held) == ""
