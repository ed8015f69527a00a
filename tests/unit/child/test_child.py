"""A real child process and its watchdog: fed, paused, stopped, and ended by the kernel without us.

The phase is a module of the test's own, put in place of a real one: what is tested is the watchdog,
the pipes and the way a death is seen.
"""

import contextlib
import json
import os
import select
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ftq_shared.processes import children_of
from ftq_worker.agent.child import Child, ColdSpawn, HostTrouble, Spawn, ZygoteSpawn
from ftq_worker.host.messages import (
    Answer,
    ChildRequest,
    LeaseTimes,
    Secrets,
    Stop,
    StopReason,
)
from ftq_worker.host.process_tree import runs
from ftq_worker.host.wire import listen, reachable


def request(phase: str, tmp_path: Path) -> ChildRequest:
    spec = '{"model": "a/b", "dataset": "c/d"}'
    return ChildRequest("ft-aaaaaaaa", phase, phase, 1, 1, spec, str(tmp_path), None)


@pytest.fixture
def start(zygote: ZygoteSpawn, tmp_path: Path) -> Iterator[Callable[[str], Child]]:
    """Starts a child with its secrets and its lease."""
    children: list[Child] = []

    def go(phase: str, lease_s: float = 20.0) -> Child:
        with (tmp_path / "output.log").open("ab") as output:
            child = zygote(request(phase, tmp_path), output.fileno())
        children.append(child)
        child.send(Secrets({"HF_TOKEN": "hf_secret"}))
        child.send(lease(lease_s))
        return child

    yield go
    for child in children:
        child.kill_tree()
        child.close()


def lease(seconds: float, pause_s: float = 15.0) -> LeaseTimes:
    now = time.monotonic()
    return LeaseTimes(now + seconds, now + pause_s)


def ended(child: Child, timeout_s: float = 20.0) -> bool:
    return bool(select.select([child.ended_fd], [], [], timeout_s)[0])


def lines(child: Child, until: Callable[[dict], bool], timeout_s: float = 20.0) -> list[dict]:  # type: ignore[type-arg]
    seen: list[dict] = []  # type: ignore[type-arg]
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        select.select([child.events.fd], [], [], 0.2)
        for line in child.events.read():
            seen.append(json.loads(line))
            if until(seen[-1]):
                return seen
    pytest.fail(f"not seen within {timeout_s} s; last: {seen[-3:]}")


def test_error_and_secrets_and_output(start: Callable[[str], Child], tmp_path: Path) -> None:
    child = start("refuse")
    outcome = lines(child, lambda m: "outcome" in m)[-1]
    assert outcome["outcome"] == "failed"
    assert outcome["error"]["secret"] == "hf_"
    assert outcome["error"]["exit_code"] == 5
    assert ended(child)
    assert child.status() == 0
    assert "words on stdout" in (tmp_path / "output.log").read_text()


def test_without_renewal_the_kernel_ends_a_busy_child(start: Callable[..., Child]) -> None:
    child = start("busy", lease_s=1.0)
    lines(child, lambda m: m.get("type") == "log")
    assert ended(child, 10)
    assert child.status() == -signal.SIGALRM


def test_renewals_keep_it_alive_and_a_stop_ends_it(start: Callable[..., Child]) -> None:
    child = start("count", lease_s=1.0)
    for _ in range(6):
        assert not ended(child, 0.4)
        child.send(lease(1.0))
    child.send(lease(20.0))
    child.send(Stop(StopReason.DRAIN))
    outcome = lines(child, lambda m: "outcome" in m)[-1]
    assert outcome["outcome"] == "interrupted"


def test_a_paused_child_stands_still_and_goes_on(start: Callable[..., Child]) -> None:
    child = start("count")
    lines(child, lambda m: m.get("type") == "progress")
    child.send(lease(20.0, pause_s=-1.0))
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:  # it stands still once nothing comes for half a second
        if not select.select([child.events.fd], [], [], 0.5)[0]:
            break
        child.events.read()
    else:
        pytest.fail("it did not pause")
    child.send(lease(20.0))
    assert lines(child, lambda m: m.get("type") == "progress")


def test_it_pauses_by_itself_before_its_lease_can_be_somebody_elses(
    start: Callable[..., Child],
) -> None:
    child = start("count")
    child.send(lease(20.0, pause_s=0.3))
    lines(child, lambda m: m.get("type") == "progress")
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        if not select.select([child.events.fd], [], [], 0.5)[0]:
            break
        child.events.read()
    else:
        pytest.fail("it did not pause")


def test_a_lease_that_comes_too_late_ends_it(start: Callable[..., Child]) -> None:
    child = start("busy")
    lines(child, lambda m: m.get("type") == "log")
    child.send(lease(-1.0))
    assert ended(child, 5)
    assert child.status() == -signal.SIGALRM


def test_a_question_is_answered_and_a_stale_claim_ends_the_phase(
    start: Callable[..., Child],
) -> None:
    child = start("ask")
    for what in ("confirm", "lock"):
        assert lines(child, lambda m: "ask" in m)[-1]["ask"] == what
        child.send(Answer("ok", "ft-other222"))
    said, asked = lines(child, lambda m: m.get("ask") == "confirm")
    assert (said["data"]["line"], asked["ask"]) == ("ft-other222", "confirm")
    child.send(Answer("stale"))
    assert lines(child, lambda m: "outcome" in m)[-1]["error"]["code"] == "stale"


def test_what_a_full_disk_raises_is_not_the_jobs_fault(start: Callable[..., Child]) -> None:
    outcome = lines(start("no_room"), lambda m: "outcome" in m)[-1]
    assert outcome["outcome"] == "host"
    assert outcome["error"]["code"] == "disk_full"


def test_cancel_is_told_apart(start: Callable[..., Child]) -> None:
    child = start("count")
    child.send(Stop(StopReason.CANCEL))
    assert lines(child, lambda m: "outcome" in m)[-1]["outcome"] == "cancelled"


def test_a_signal_is_seen(start: Callable[..., Child]) -> None:
    child = start("vanish")
    assert ended(child)
    assert child.status() == -signal.SIGSEGV


def test_kill_reaches_what_left_the_session(start: Callable[..., Child]) -> None:
    child = start("fork")
    lines(child, lambda m: m.get("type") == "log")
    (phase,) = children_of(child.pid)  # the child is its leash
    (below,) = children_of(phase)
    child.kill_tree()
    assert ended(child)
    wait_until(lambda: not runs(below) and not runs(phase))


def wait_until(condition: Callable[[], bool], timeout_s: float = 10.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


def test_a_library_that_holds_the_interpreter_is_not_without_a_lease(
    start: Callable[..., Child],
) -> None:
    child = start("hold", lease_s=1.0)
    lines(child, lambda m: m.get("type") == "log")
    for _ in range(10):
        assert not ended(child, 0.3), child.status()
        child.send(lease(1.0))
    assert ended(child, 10)
    assert child.status() == -signal.SIGALRM, "and when nobody renews, it ends all the same"


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM])
def test_a_phase_does_not_outlive_its_leash(
    start: Callable[..., Child], signum: signal.Signals
) -> None:
    child = start("hold")
    lines(child, lambda m: m.get("type") == "log")
    (phase,) = children_of(child.pid)
    os.kill(child.pid, signum)
    assert ended(child)
    wait_until(lambda: not runs(phase))


def test_what_is_said_to_a_busy_phase_is_heard_later(start: Callable[..., Child]) -> None:
    child = start("hold")
    lines(child, lambda m: m.get("type") == "log")
    for _ in range(2000):  # more than its pipe takes
        child.send(lease(60.0))
        time.sleep(0.001)
    child.send(Stop(StopReason.DRAIN))
    (phase,) = children_of(child.pid)
    assert runs(phase)
    outcome = lines(child, lambda m: "outcome" in m, timeout_s=30)[-1]
    assert outcome["outcome"] == "interrupted"


def test_what_a_library_warns_of_stands_in_the_output_as_it_prints_it(
    start: Callable[[str], Child], tmp_path: Path
) -> None:
    assert ended(start("warn"))
    output = (tmp_path / "output.log").read_text()
    assert "UserWarning: a library's own words" in output
    assert output.count("Traceback") == 1
    assert "ZeroDivisionError" in output
    assert '"action"' not in output


def test_children_differ_in_session_and_share_no_descriptor(start: Callable[..., Child]) -> None:
    first, second = start("count"), start("count")
    for child in (first, second):
        lines(child, lambda m: m.get("type") == "progress")
    assert os.getsid(first.pid) == first.pid != os.getsid(second.pid)
    first.kill_tree()
    assert ended(first)
    assert not ended(second, 0.3)


def test_a_cold_child_runs_a_real_phase_to_its_error(tmp_path: Path) -> None:
    spawn: Spawn = ColdSpawn()
    with (tmp_path / "out").open("ab") as output:
        child = spawn(request("train", tmp_path), output.fileno())
    child.send(Secrets({}))
    child.send(lease(60.0))
    outcome = lines(child, lambda m: "outcome" in m, 90)[-1]
    assert outcome["error"]["code"] == "missing_handover", (tmp_path / "out").read_text()
    assert ended(child)
    child.close()


def test_a_zygote_that_dies_while_it_is_asked_leaves_no_descriptor(tmp_path: Path) -> None:
    path = tmp_path / "z.sock"

    def die(server: socket.socket) -> None:
        server.accept()[0].close()

    with listen(path) as server, (tmp_path / "output.log").open("ab") as output:
        before = _descriptors()
        asked = threading.Thread(target=die, args=(server,))
        asked.start()
        with pytest.raises(HostTrouble) as raised:
            ZygoteSpawn(path)(request("count", tmp_path), output.fileno())
        asked.join()
        assert _descriptors() <= before
    assert raised.value.code == "no_fork"


def _descriptors() -> set[str]:
    """What this process holds open, by inode: another test's garbage may close in the meantime."""
    held = set()
    for fd in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the directory's own, closed by now
            held.add(f"{fd.name} {fd.readlink()}")
    return {entry for entry in held if "/proc/" not in entry}


def test_a_zygote_whose_socket_was_cleaned_away_listens_again(
    zygote: ZygoteSpawn, start: Callable[[str], Child]
) -> None:
    assert not ended(start("count"), 0.5)
    zygote._path.unlink()
    assert not ended(start("count"), 0.5)


def test_a_socket_that_cannot_be_made_anew_is_tried_again(tmp_path: Path) -> None:
    path = tmp_path / "run" / "z.sock"
    server = listen(path)
    path.unlink()
    path.parent.rmdir()
    path.parent.touch()  # in the way
    with pytest.raises(FileExistsError):
        reachable(server)
    path.parent.unlink()
    fresh = reachable(server)
    assert path.exists()
    assert reachable(fresh) is fresh
    fresh.close()


def test_what_was_told_is_written_before_a_phase_goes_on(start: Callable[[str], Child]) -> None:
    child = start("tell")
    *told, asked = lines(child, lambda m: m.get("ask") == "written")
    assert [m["data"]["line"] for m in told] == list("01234")
    assert asked == {"ask": "written"}
    child.send(Answer("ok"))
    (sealed,) = lines(child, lambda m: "data" in m)
    assert sealed["data"]["line"] == "sealed"
