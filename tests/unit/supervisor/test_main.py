"""What a worker needs of its machine before its processes start."""

import tempfile
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
