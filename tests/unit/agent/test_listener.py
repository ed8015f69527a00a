"""The agent's socket: asked by its Celery worker, and found again after /tmp was cleaned."""

import json
import threading
import time
from pathlib import Path

import pytest

from ftq_worker.agent import listener
from ftq_worker.host.messages import TakePhase
from ftq_worker.host.wire import ask


def test_a_socket_that_was_cleaned_away_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener, "LOOK_S", 0.1)
    path = tmp_path / "run" / "agent.sock"
    served = listener.Listener(path, take=lambda job, token: job == "ft-a", missed=lambda: None)
    threading.Thread(target=served.serve, daemon=True).start()
    assert json.loads(ask(path, TakePhase(run="ft-a", token="1:a"))) == {"taken": True}
    path.unlink()
    path.parent.rmdir()
    deadline = time.monotonic() + 10.0
    while time.monotonic() < deadline:
        try:
            answer = ask(path, TakePhase(run="ft-b", token="1:a"))
            break
        except OSError:  # not there yet, or bound and not yet listening
            time.sleep(0.05)
    assert json.loads(answer) == {"taken": False}
