"""`ftq up`: an embedded broker and one worker, looked after until `ftq down`.

    python -m ftq_client.local.stack [worker options]

The process holds the broker's lock; its pid stands there. It restarts what dies, and on SIGTERM
stops the worker first (its jobs go back to the queue), then the broker.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from ftq_client.local.lock import already_up, holder
from ftq_client.local.valkey import EmbeddedBroker
from ftq_shared.errors import FtqError, UsageError
from ftq_shared.processes import own_module
from ftq_shared.secrets import FleetKey
from ftq_shared.settings import Settings, load_settings
from ftq_shared.signals import Wakeup

STOP_TIMEOUT_S = 660.0  # a worker may be writing a large checkpoint
# A worker that somebody drained ends so, with 75 when not all was handed back: it stays down.
DRAINED = (0, 75)
RESTART_S = 1.0  # between two starts of what keeps dying
START_TIMEOUT_S = 45.0  # of a detached stack, until its broker answers


class LocalStack:
    """Keeps the broker and the worker of one machine running."""

    def __init__(self, settings: Settings, worker_options: list[str]) -> None:
        self._settings = settings
        self._options = worker_options
        self._broker = EmbeddedBroker(settings.broker_dir)
        self._worker: subprocess.Popen[bytes] | None = None
        self._is_ready = False

    def run(self) -> int:
        """Serve until SIGTERM or SIGINT; returns the exit code. Raises FtqError at the start."""
        wakeup = Wakeup((signal.SIGTERM, signal.SIGINT), children=False)
        try:
            self._broker.start()
            make_key(self._settings)
            while not wakeup.wait(RESTART_S if self._worker else 0):
                self._start_missing()
                self._say_ready()
        finally:
            self._end_worker()
            self._broker.stop()
        return 0

    def _start_missing(self) -> None:
        assert self._broker.process
        if self._broker.process.poll() is not None:
            before = self._broker.url
            self._broker.launch()
            if self._broker.url != before:  # the worker has the old one in its environment
                self._end_worker()
        if self._worker is None or self._worker.poll() not in (None, *DRAINED):
            options = [*self._options, "--parent", str(os.getpid())]
            self._worker = subprocess.Popen(
                own_module("ftq_worker.supervisor.main", *options),
                env={"FTQ_DATA_ROOTS": own_roots(self._settings), **os.environ}
                | {"FTQ_REDIS_URL": self._broker.url},
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )

    def _say_ready(self) -> None:
        """Say once that jobs can be submitted."""
        if not self._is_ready and any_ready(self._broker.url):
            self._is_ready = True
            print("ready: ftq submit", file=sys.stderr, flush=True)  # noqa: T201  the edge

    def _end_worker(self) -> None:
        """Let the worker hand its jobs back."""
        if self._worker and self._worker.poll() is None:
            self._worker.terminate()
            try:
                self._worker.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self._worker.kill()
                self._worker.wait()


def own_roots(settings: Settings) -> str:
    """Return what `worker:` may name where one person submits to a worker of their own."""
    home = os.path.expanduser("~")
    own = [home] if home not in ("/", "~") else []  # no home is set: nothing is opened for it
    return os.pathsep.join([f"{settings.storage.removeprefix('file://')}/data", *own])


def any_ready(url: str) -> bool:
    """Return whether a worker has reported that it can begin a phase at once."""
    from redis.exceptions import RedisError

    from ftq_shared.broker import connect
    from ftq_shared.hosts import HostStore

    try:
        with connect(url, retries=0) as redis:
            return any(host.online and host.warm for host in HostStore(redis).all())
    except RedisError:  # it is loading its data, or was just started again
        return False


def make_key(settings: Settings) -> None:
    """Make this machine's own fleet key at first use."""
    if not settings.fleet_key_file.exists():
        settings.fleet_key_file.parent.mkdir(parents=True, exist_ok=True)
        FleetKey.generate().save(settings.fleet_key_file)


def running_pid(settings: Settings) -> int | None:
    """Return the process that holds the broker's lock, None when nobody does.

    Raises UsageError when it is one of another machine or container.
    """
    found = holder(settings.broker_dir / "lock")
    return found.pid if found else None


def start_detached(settings: Settings, worker_options: list[str]) -> int:
    """Start the stack in a process of its own and return its pid; output goes to up.log.

    Raises UsageError when it is up already or ends at once.
    """
    if pid := running_pid(settings):
        raise already_up(pid)
    settings.home.mkdir(parents=True, exist_ok=True, mode=0o700)
    log = log_file(settings)
    with open(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab") as output:
        process = subprocess.Popen(
            own_module("ftq_client.local.stack", *worker_options),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    deadline = time.monotonic() + START_TIMEOUT_S
    while not _is_published(settings, process.pid):
        ended = process.poll() is not None
        if ended and (other := running_pid(settings)):
            raise already_up(other)  # it was started at the same time
        if ended or time.monotonic() > deadline:
            last = log.read_text(errors="replace").splitlines()[-5:]
            raise UsageError("ftq did not come up:\n" + "\n".join(last), hint=f"look at {log}")
        time.sleep(0.05)
    return process.pid


def _is_published(settings: Settings, pid: int) -> bool:
    """Return whether the broker of this very process is up and can be found."""
    return (settings.broker_dir / "url").exists() and running_pid(settings) == pid


def stop(settings: Settings) -> bool:
    """Stop what `ftq up` started and wait for its end; False when nothing was up.

    Raises UsageError when it does not end, or is one of another machine or container.
    """
    path = settings.broker_dir / "lock"
    found = holder(path)
    if found is None:
        return False
    found.terminate()
    deadline = time.monotonic() + STOP_TIMEOUT_S + 30
    while holder(path) == found:
        if time.monotonic() > deadline:
            raise UsageError(f"process {found.pid} does not end", hint=f"kill -9 {found.pid}")
        time.sleep(0.05)
    return True


def log_file(settings: Settings) -> Path:
    """Where a detached stack and its worker write."""
    return settings.home / "up.log"


def main() -> int:
    """Run in the foreground."""
    try:
        settings = load_settings()
        os.umask(settings.umask)
        return LocalStack(settings, sys.argv[1:]).run()
    except FtqError as error:
        print(f"ftq up: {error.message}", file=sys.stderr)  # noqa: T201  the edge of a process
        if error.hint:
            print(f"  {error.hint}", file=sys.stderr)  # noqa: T201
        return int(error.exit_code)


if __name__ == "__main__":
    sys.exit(main())
