"""What a worker needs of its machine before its processes start."""

import tempfile
from pathlib import Path

import pytest

from ftq_worker.host.wire import listen
from ftq_worker.supervisor.main import folder_for_sockets


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
