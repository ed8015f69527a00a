"""Processes that are written down can be ended by others, and only they."""

import errno
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ftq_shared.processes import children_of
from ftq_worker.host import process_tree

FORKER = """
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"],
                         start_new_session=True)
print(child.pid, flush=True)
time.sleep(600)
"""


@pytest.fixture
def tree() -> Iterator[tuple[int, int]]:
    """A process with a child in a session of its own."""
    process = subprocess.Popen([sys.executable, "-c", FORKER], stdout=subprocess.PIPE, text=True)
    assert process.stdout
    below = int(process.stdout.readline())
    yield process.pid, below
    process_tree.kill_all([process.pid, below])
    process.wait()
    process.stdout.close()


def test_what_is_saved_is_found_while_it_runs(tmp_path: Path, tree: tuple[int, int]) -> None:
    path = tmp_path / "processes.json"
    process_tree.save_pids(path, [*tree, 2**22 + 1])
    assert process_tree.load_pids(path) == set(tree)


def test_a_pid_that_somebody_else_got_is_left_alone(tmp_path: Path, tree: tuple[int, int]) -> None:
    path = tmp_path / "processes.json"
    process_tree.save_pids(path, tree)
    entries = [[pid, start - 1] for pid, start in json.loads(path.read_text())]
    path.write_text(json.dumps(entries))
    assert process_tree.load_pids(path) == set()
    process_tree.kill_leftovers(tmp_path)
    assert all(process_tree.runs(pid) for pid in tree)


@pytest.mark.parametrize("text", ["", "{", "[1]", '[["x", 1]]', "null"])
def test_a_damaged_list_names_nobody(tmp_path: Path, text: str) -> None:
    path = tmp_path / "processes.json"
    path.write_text(text)
    assert process_tree.load_pids(path) is None


def test_a_list_that_cannot_be_written_stops_nobody(tmp_path: Path) -> None:
    process_tree.save_pids(tmp_path / "gone" / "phases.json", [os.getpid()])
    assert process_tree.load_pids(tmp_path / "gone" / "phases.json") is None


def test_a_list_that_is_not_up_to_date_is_no_list(
    tmp_path: Path, tree: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk was full when a process was started again: it may not count as an orphan."""
    path = tmp_path / "processes.json"
    process_tree.save_pids(path, [os.getpid()])

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", full)
        process_tree.save_pids(path, [os.getpid(), tree[0]])
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(process_tree, "children_of", lambda _: [tree[0]])
    process_tree.PhaseProcesses(os.getpid(), tmp_path).remove([])
    assert process_tree.runs(tree[0])


def test_without_the_supervisors_list_nothing_is_an_orphan(
    tmp_path: Path, tree: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process_tree, "children_of", lambda _: [tree[0]])
    process_tree.PhaseProcesses(os.getpid(), tmp_path).remove([])
    assert all(process_tree.runs(pid) for pid in tree)


def test_what_a_dead_supervisor_has_left_is_killed(tmp_path: Path, tree: tuple[int, int]) -> None:
    process_tree.save_pids(tmp_path / "phases.json", tree[:1])
    process_tree.kill_leftovers(tmp_path)
    assert not any(process_tree.runs(pid) for pid in tree)


def test_what_fell_to_init_is_known_by_its_environment(tmp_path: Path) -> None:
    config = json.dumps({"name": "h1", "run_dir": str(tmp_path)})
    other = json.dumps({"name": "h1", "run_dir": f"{tmp_path}-other"})
    sleeping = [sys.executable, "-c", "import time; time.sleep(600)"]
    mine, its = (
        subprocess.Popen(sleeping, env=os.environ | {"FTQ_HOST_CONFIG": text})
        for text in (config, other)
    )
    try:
        process_tree.kill_leftovers(tmp_path)
        assert not process_tree.runs(mine.pid)
        assert process_tree.runs(its.pid)
    finally:
        for process in (mine, its):
            process.kill()
            process.wait()


def test_a_pid_that_somebody_else_has_now_is_struck_out(
    tmp_path: Path, tree: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A phase that hung in the kernel stays in the list after its run; then it ends after all."""
    phases = process_tree.PhaseProcesses(os.getpid(), tmp_path)
    phases.add(tree[0])
    start = process_tree.start_ticks(tree[0])
    assert start is not None
    monkeypatch.setattr(process_tree, "start_ticks", lambda pid: start + 1)
    phases.remove([])
    assert json.loads((tmp_path / "phases.json").read_text()) == []


def test_orphans_are_unknown_children_of_the_supervisor(
    tmp_path: Path, tree: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    orphan, _ = tree
    known = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    phase = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    try:
        process_tree.save_pids(tmp_path / "processes.json", [known.pid])
        monkeypatch.setattr(process_tree, "children_of", lambda _: [known.pid, phase.pid, orphan])
        phases = process_tree.PhaseProcesses(os.getpid(), tmp_path)
        phases.add(phase.pid)
        phases.remove([])
        assert not process_tree.runs(orphan)
        assert process_tree.runs(known.pid)
        assert process_tree.runs(phase.pid)
    finally:
        for process in (known, phase):
            process.kill()
            process.wait()


def test_a_child_that_a_thread_has_started_is_seen(tmp_path: Path) -> None:
    started: list[subprocess.Popen[bytes]] = []
    sleeping = [sys.executable, "-c", "import time; time.sleep(600)"]
    go_on = threading.Event()

    def start() -> None:
        started.append(subprocess.Popen(sleeping))
        go_on.wait(60)  # the kernel lists a child under the thread that started it

    thread = threading.Thread(target=start)
    thread.start()
    try:
        deadline = time.monotonic() + 10
        while not started and time.monotonic() < deadline:
            time.sleep(0.01)
        assert started[0].pid in children_of(os.getpid())
    finally:
        go_on.set()
        thread.join()
        for process in started:
            process.kill()
            process.wait()
