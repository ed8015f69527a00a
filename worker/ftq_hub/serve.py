"""Runs a HubApp: binds the port, says where it listens, stops on SIGTERM and Ctrl-C."""

import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import uvicorn

from ftq_hub.app import HubApp
from ftq_hub.errors import HubError

ADMIN_FILE = "admin-token"  # in the hub's folder, of the running server
_START_S = 10.0  # to start or stop a thread; it takes a tenth of a second


class _Server(uvicorn.Server):
    """A uvicorn server that reports when it listens."""

    def __init__(self, config: uvicorn.Config, on_ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_ready = on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._on_ready()


def bind(host: str, port: int) -> tuple[socket.socket, str]:
    """Return a bound socket and the URL it serves; port 0 takes a free one. Raises OSError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((host, port))
    name = f"[{host}]" if ":" in host else host
    return sock, f"http://{name}:{sock.getsockname()[1]}"


def _config(app: HubApp) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        lifespan="off",
        log_level="critical",  # a cut transfer is wanted here, and uvicorn calls it an error
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=1,
    )


@contextmanager
def running(app: HubApp, host: str = "127.0.0.1", port: int = 0) -> Iterator[str]:
    """Serve from a thread of this process while the block runs; yields the URL.

    Raises OSError when the port cannot be had, HubError when the server does not come up.
    """
    sock, url = bind(host, port)
    ready = threading.Event()
    server = _Server(_config(app), ready.set)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]}, daemon=True)
    thread.start()
    if not ready.wait(_START_S):
        raise HubError(f"the local hub did not start listening at {url}")
    try:
        yield url
    finally:
        server.should_exit = True
        thread.join(_START_S)


def run(app: HubApp, host: str, port: int) -> None:
    """Serve until SIGTERM or Ctrl-C; print one line, the URL, when the server listens.

    Answers in flight are cut after 1 s. Raises OSError when the port cannot be had, and
    SystemExit with 0 at the signal. For the main thread only.
    """
    sock, url = bind(host, port)
    write_admin_token(app)

    def ready() -> None:
        sys.stdout.write(f"{url}\n")
        sys.stdout.flush()

    for number in (signal.SIGTERM, signal.SIGINT):
        # uvicorn raises the signal again once it has stopped: a clean end, no failure.
        signal.signal(number, lambda *_: sys.exit(0))
    _Server(_config(app), ready).run(sockets=[sock])


def write_admin_token(app: HubApp) -> Path:
    """Leave the admin token where only this user can read it, and return the path."""
    path = app.store.folder / ADMIN_FILE
    path.unlink(missing_ok=True)  # so that the mode below is that of a new file
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as handle:
        handle.write(app.admin_token + "\n")
    return path
