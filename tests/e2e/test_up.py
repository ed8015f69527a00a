"""`ftq up` and `ftq down`: whose server is it, and who may end it."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis

from ftq_client.local.valkey import EmbeddedBroker, _binary
from ftq_shared.errors import UsageError
from ftq_worker.host.process_tree import runs

from .conftest import wait_for

FTQ = [sys.executable, "-m", "ftq_client"]


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """An FTQ_HOME; whatever `ftq up` left there is ended."""
    folder = tmp_path / 'a "quoted" \\home'
    yield folder
    ftq(folder, "down")


def environment(home: Path) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("FTQ_", "HF_"))}
    return kept | {"FTQ_HOME": str(home), "HF_ENDPOINT": "http://127.0.0.1:1"}


def ftq(home: Path, *args: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [*FTQ, *args],
        env=environment(home),
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


def start_other(folder: Path, port: int, *options: str) -> "subprocess.Popen[bytes]":
    """Start a server that is not ftq's, on the port that ftq would take."""
    folder.mkdir()
    process = subprocess.Popen(
        [_binary(), "--port", str(port), "--save", "", *options],
        cwd=folder,
        stdout=subprocess.DEVNULL,
    )
    password = options[1] if options else None

    def answers() -> bool:
        with contextlib.suppress(Exception), Redis(port=port, password=password) as client:
            return bool(client.ping())
        return False

    wait_for(answers)
    return process


def test_a_second_up_leaves_the_first_published_and_running(home: Path) -> None:
    up = ftq(home, "up", "-d")
    assert up.returncode == 0, up.stderr + (home / "up.log").read_text()[-2000:]
    assert "ready" in up.stderr
    url = (home / "broker" / "url").read_text()
    for again in (("up",), ("up", "-d")):
        second = ftq(home, *again)
        assert second.returncode == 2
        assert "is up already" in second.stderr
        assert (home / "broker" / "url").read_text() == url
        assert ftq(home, "list").returncode == 0
    down = ftq(home, "down")
    assert down.returncode == 0
    assert "stopped" in down.stderr
    assert ftq(home, "list").returncode == 6


@pytest.mark.chaos
def test_of_two_at_once_one_is_up_and_the_other_says_so(home: Path) -> None:
    both = [
        subprocess.Popen([*FTQ, "up", "-d"], env=environment(home), stderr=subprocess.PIPE)
        for _ in range(2)
    ]
    words = [process.communicate(timeout=200)[1].decode() for process in both]
    assert sorted(process.returncode for process in both) == [0, 2], words
    assert any("is up already" in text for text in words), words
    assert ftq(home, "list").returncode == 0


def test_after_a_kill_the_next_up_has_the_data(home: Path) -> None:
    folder = home / "broker"
    script = (
        "import sys,time;from pathlib import Path;"
        "from ftq_client.local.valkey import EmbeddedBroker;"
        f"EmbeddedBroker(Path({str(folder)!r})).start();print('up',flush=True);time.sleep(600)"
    )
    first = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    assert first.stdout
    assert first.stdout.readline()
    url = (folder / "url").read_text()
    with Redis.from_url(url) as client, first.stdout:
        client.set("customer", "data")
        orphan = client.info("server")["process_id"]
        first.kill()
        first.wait()
        assert client.get("customer") == b"data", "the server outlives a kill"
    with EmbeddedBroker(folder) as second, Redis.from_url(second.url) as client:
        assert client.get("customer") == b"data"
        assert not runs(int(orphan))
        assert second.url == url


@pytest.mark.chaos
def test_an_orphan_that_does_not_answer_is_ended_too(tmp_path: Path) -> None:
    broker = EmbeddedBroker(tmp_path / "b")
    broker.start()
    assert broker.process
    os.kill(broker.process.pid, signal.SIGSTOP)
    assert broker._lock
    broker._lock.close()  # as if its `ftq up` had been killed
    with EmbeddedBroker(tmp_path / "b") as second:
        assert broker.process.wait(10) is not None
        assert second.process
        assert second.process.poll() is None


@pytest.mark.parametrize("options", [(), ("--requirepass", "theirs")])
def test_somebody_elses_server_on_our_port_is_left_alone(
    tmp_path: Path, options: tuple[str, ...]
) -> None:
    with EmbeddedBroker(tmp_path / "b") as first:
        port = int(first.url.rpartition(":")[2].removesuffix("/0"))
    other = start_other(tmp_path / "other", port, *options)
    try:
        with EmbeddedBroker(tmp_path / "b") as again:
            assert other.poll() is None
            assert f":{port}/" not in again.url
            with Redis.from_url(again.url) as client:
                assert client.info("server")["process_id"] == again.process.pid  # type: ignore[union-attr]
            assert (tmp_path / "b" / "url").read_text() == again.url
    finally:
        other.kill()
        other.wait()


def test_a_program_on_our_port_means_another_port(tmp_path: Path) -> None:
    with EmbeddedBroker(tmp_path / "b") as first, Redis.from_url(first.url) as client:
        client.set("customer", "data")
        port = int(first.url.rpartition(":")[2].removesuffix("/0"))
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", port))
        taken.listen()
        with EmbeddedBroker(tmp_path / "b") as again, Redis.from_url(again.url) as client:
            assert client.get("customer") == b"data"


def test_a_process_that_got_the_pid_of_a_dead_up_is_left_alone(home: Path) -> None:
    """The lock names a pid; a stranger may have it by now."""
    from ftq_client.local.stack import stop
    from ftq_shared.settings import load_settings

    with subprocess.Popen(["sleep", "600"]) as stranger:
        try:
            folder = home / "broker"
            folder.mkdir(parents=True)
            (folder / "lock").write_text(f"{stranger.pid} 1")
            settings = load_settings({"FTQ_HOME": str(home)})
            assert stop(settings) is False, "nobody holds the lock"
            with (folder / "lock").open("r+") as lock:
                import fcntl

                fcntl.flock(lock, fcntl.LOCK_EX)
                with pytest.raises(UsageError, match="lock"):
                    stop(settings)
            assert stranger.poll() is None
        finally:
            stranger.kill()


def test_up_in_the_foreground_says_when_it_is_ready(home: Path) -> None:
    with subprocess.Popen(
        [*FTQ, "up"], env=environment(home), stderr=subprocess.PIPE, text=True
    ) as up:
        try:
            assert up.stderr
            seen: list[str] = []
            deadline = time.monotonic() + 120
            while time.monotonic() < deadline and not any("ready" in line for line in seen):
                seen.append(up.stderr.readline())
            assert any("ready: ftq submit" in line for line in seen), seen
        finally:
            up.terminate()
            up.communicate(timeout=150)
    assert up.returncode == 0
