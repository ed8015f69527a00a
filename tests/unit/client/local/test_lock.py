"""The lock of the embedded broker: who holds it."""

import fcntl
import os
import threading
from pathlib import Path

import pytest

from ftq_client.local import lock
from ftq_shared.errors import UsageError


def test_the_holder_is_known_and_a_second_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    assert lock.holder(path) is None
    with lock.take(path):
        assert lock.holder(path) == lock.Holder(os.getpid(), lock.started(os.getpid()))
        with pytest.raises(UsageError, match=f"up already .process {os.getpid()}"):
            lock.take(path)
    assert lock.holder(path) is None


def test_somebody_who_looks_at_the_lock_does_not_hold_it(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.touch()
    with path.open() as looking:
        fcntl.flock(looking, fcntl.LOCK_SH)
        release = threading.Timer(0.2, fcntl.flock, (looking, fcntl.LOCK_UN))
        release.start()
        lock.take(path).close()
        release.join()


def test_a_holder_of_an_older_version_is_known_by_its_pid(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with lock.take(path) as file:
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        assert lock.holder(path) == lock.Holder.here()


@pytest.mark.parametrize(
    "text",
    ["", "x", "1 2", "999999999 5", pytest.param(f"{os.getpid()} 1", id="this process, reused")],
)
def test_a_lock_of_somebody_who_cannot_be_seen_names_nobody(
    tmp_path: Path, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "_WRITTEN_S", 0.0)
    path = tmp_path / "lock"
    with lock.take(path) as file:
        file.truncate(0)
        file.write(text)
        file.flush()
        with pytest.raises(UsageError, match="not by a process"):
            lock.holder(path)
