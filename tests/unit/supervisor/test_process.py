"""A sign of life that stops: seen after a while, and never by mistake of the one who looks."""

import os
from pathlib import Path

import pytest

from ftq_worker.host.heartbeat import touch
from ftq_worker.supervisor.process import HANG_S, LONGEST_LOOK_S, HeartbeatWatch, Process


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def watched(tmp_path: Path) -> tuple[HeartbeatWatch, Path, Clock]:
    clock = Clock()
    path = tmp_path / "x.heartbeat"
    return HeartbeatWatch(path, clock), path, clock


def looks(watch: HeartbeatWatch, clock: Clock, seconds: float, step_s: float = 0.5) -> bool:
    """Look again and again; return whether it was ever seen to hang."""
    seen = False
    for _ in range(round(seconds / step_s)):
        clock.now += step_s
        seen |= watch.is_hung()
    return seen


def heartbeat(path: Path, number: int) -> None:
    touch(path)
    os.utime(path, ns=(number, number))  # the file system's clock may be coarse


def test_silence_after_a_sign_is_a_hang(watched: tuple[HeartbeatWatch, Path, Clock]) -> None:
    watch, path, clock = watched
    heartbeat(path, 1)
    assert not looks(watch, clock, HANG_S)
    assert looks(watch, clock, 1.0)


def test_each_sign_starts_the_time_anew(watched: tuple[HeartbeatWatch, Path, Clock]) -> None:
    watch, path, clock = watched
    for number in range(1, 5):
        heartbeat(path, number)
        assert not looks(watch, clock, HANG_S - 5)


def test_before_the_first_sign_it_may_import_for_minutes(
    watched: tuple[HeartbeatWatch, Path, Clock],
) -> None:
    watch, _, clock = watched
    assert not looks(watch, clock, 10 * HANG_S)


def test_time_in_which_nobody_looked_does_not_count(
    watched: tuple[HeartbeatWatch, Path, Clock],
) -> None:
    watch, path, clock = watched
    heartbeat(path, 1)
    looks(watch, clock, 1.0)
    clock.now += 1000 * HANG_S  # the supervisor was frozen as well
    assert not watch.is_hung()
    assert not looks(watch, clock, HANG_S - LONGEST_LOOK_S - 2)
    assert looks(watch, clock, LONGEST_LOOK_S + 2)


def test_a_new_start_forgets_the_old_signs(watched: tuple[HeartbeatWatch, Path, Clock]) -> None:
    watch, path, clock = watched
    heartbeat(path, 1)
    looks(watch, clock, HANG_S - 1)
    watch.reset()
    assert not path.exists()
    assert not looks(watch, clock, 2 * HANG_S)


def test_a_folder_that_was_cleaned_away_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "run" / "x.heartbeat"
    touch(path)
    assert path.exists()
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_a_sign_that_cannot_be_given_is_no_reason_to_die(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    touch(tmp_path / "file" / "x.heartbeat")


def test_a_process_that_cannot_be_started_is_tried_again(tmp_path: Path) -> None:
    process = Process("x", [str(tmp_path / "none")], {}, HeartbeatWatch(tmp_path / "x.heartbeat"))
    assert not process.ensure_running()
    assert process.pid is None
    process.command, process.not_before = ["/bin/true"], 0.0
    assert process.ensure_running()
    assert process.pid
    process.end(10.0)
