"""What each process of a worker has imported, seen in the real processes while they work.

The import contracts in pyproject.toml read the code; this looks at what a running process holds.
"""

import os
import signal
from pathlib import Path

import psutil
import pytest

from .conftest import Fleet, wait_for

TRAINING = {"torch", "transformers", "datasets", "trl", "peft", "accelerate"}
BROKER_MESSAGES = {"celery", "kombu"}
# Loaded by every process of the worker: on a signal, it writes down what it has imported.
HOOK = """
import os, signal, sys
def write(*_):
    path = os.environ["IMPORTED"] + f"/{os.getpid()}"
    with open(path + ".part", "w") as file:
        file.write("\\n".join(list(sys.modules)))
    os.replace(path + ".part", path)
signal.signal(signal.SIGRTMIN, write)
"""
PROCESSES = {
    "ftq_worker.supervisor.main": TRAINING | BROKER_MESSAGES | {"ftq_worker.agent"},
    "ftq_worker.agent.main": TRAINING | BROKER_MESSAGES | {"ftq_worker.child"},
    "ftq_worker.dispatch.celery_app": TRAINING | {"ftq_worker.agent", "ftq_worker.child"},
    "ftq_worker.child.zygote": BROKER_MESSAGES | {"ftq_worker.agent", "ftq_worker.supervisor"},
}


@pytest.fixture
def imported(fleet: Fleet, tmp_path: Path) -> dict[str, set[str]]:
    """The modules of each process of a worker that has run a phase."""
    (tmp_path / "sitecustomize.py").write_text(HOOK)
    (tmp_path / "modules").mkdir()
    path = os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH")]))
    worker = fleet.start_worker("looked-at", PYTHONPATH=path, IMPORTED=str(tmp_path / "modules"))
    try:
        supervisor = psutil.Process(worker.pid)
        zygote = "ftq_worker.child.zygote"
        wait_for(lambda: any(zygote in p.cmdline() for p in supervisor.children()))
        warm = fleet.client()
        wait_for(lambda: any(h.name == "looked-at" and h.warm for h in warm.workers()))
        return {
            module: _modules_of(process, tmp_path / "modules")
            for process in [supervisor, *supervisor.children()]
            for module in PROCESSES.keys() & set(process.cmdline())
        }
    finally:
        fleet.stop_worker(worker)


def _modules_of(process: psutil.Process, folder: Path) -> set[str]:
    process.send_signal(signal.SIGRTMIN)
    written = folder / str(process.pid)
    wait_for(written.exists, what=process.cmdline)
    return set(written.read_text().splitlines())


def test_no_process_holds_what_it_must_live_without(imported: dict[str, set[str]]) -> None:
    assert imported.keys() == PROCESSES.keys()
    for module, forbidden in PROCESSES.items():
        assert not imported[module] & forbidden, module
    # The look itself works: each has what it is there for.
    assert "ftq_worker.agent.run_pool" in imported["ftq_worker.agent.main"]
    assert "celery" in imported["ftq_worker.dispatch.celery_app"]
    assert "torch" in imported["ftq_worker.child.zygote"]
