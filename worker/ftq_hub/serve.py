"""Runs a HubApp: binds its ports, says where it listens, stops on SIGTERM and Ctrl-C.

There are two ports, as the Hub has two hosts: one for the API, one for the content of large files,
which a signed URL opens and a token does not.
"""

import asyncio
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import uvicorn

from ftq_hub.app import HubApp
from ftq_hub.errors import HubError

ADMIN_FILE = "admin-token"  # in the hub's folder, of the running server
_START_S = 10.0  # to start or stop a thread; it takes a tenth of a second


@dataclass(frozen=True)
class Tls:
    """What a server proves its name with, in PEM files."""

    cert: Path  # the server's certificate, then those between it and the CA
    key: Path


class _Server(uvicorn.Server):
    """A uvicorn server that reports when it listens."""

    def __init__(self, config: uvicorn.Config, on_ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_ready = on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._on_ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        connections = list(self.server_state.connections)
        await super().shutdown(sockets)
        # Over TLS a connection is closed once the client has said so too; an idle one does not.
        for connection in connections:
            if connection.transport is not None:
                connection.transport.abort()
        await asyncio.sleep(0)  # the transports close in the loop's next turn


def bind(host: str, port: int) -> socket.socket:
    """Return a bound socket; port 0 takes a free one. Raises OSError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((host, port))
    return sock


def _bind_both(
    app: HubApp, host: str, port: int, content_port: int, tls: Tls | None
) -> tuple[list[socket.socket], str]:
    """Return the sockets for API and content, and the URL of the API."""
    sockets = [bind(host, port), bind(host, content_port)]
    app.content_port = sockets[1].getsockname()[1]
    name = f"[{host}]" if ":" in host else host
    return sockets, f"{'https' if tls else 'http'}://{name}:{sockets[0].getsockname()[1]}"


def _config(app: HubApp, tls: Tls | None) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        lifespan="off",
        log_level="critical",  # a cut transfer is wanted here, and uvicorn calls it an error
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=1,
        ssl_certfile=tls.cert if tls else None,
        ssl_keyfile=tls.key if tls else None,
    )


@contextmanager
def running(
    app: HubApp, host: str = "127.0.0.1", port: int = 0, *, tls: Tls | None = None
) -> Iterator[str]:
    """Serve from a thread of this process while the block runs; yields the URL.

    Raises OSError when a port cannot be had or a PEM file not be read, HubError when the server
    does not come up.
    """
    config = _config(app, tls)
    config.load()  # here, and not in the thread: a bad PEM file is the caller's to hear of
    sockets, url = _bind_both(app, host, port, 0, tls)
    ready = threading.Event()
    server = _Server(config, ready.set)
    thread = threading.Thread(target=server.run, kwargs={"sockets": sockets}, daemon=True)
    thread.start()
    if not ready.wait(_START_S):
        raise HubError(f"the local hub did not start listening at {url}")
    try:
        yield url
    finally:
        server.should_exit = True
        thread.join(_START_S)


def run(
    app: HubApp, host: str, port: int, *, content_port: int = 0, tls: Tls | None = None
) -> None:
    """Serve until SIGTERM or Ctrl-C; print one line, the URL, when the server listens.

    Answers in flight are cut after 1 s. Raises OSError when a port cannot be had or a PEM file
    not be read, and SystemExit with 0 at the signal. For the main thread only.
    """
    config = _config(app, tls)
    config.load()
    sockets, url = _bind_both(app, host, port, content_port, tls)
    write_admin_token(app)

    def ready() -> None:
        sys.stdout.write(f"{url}\n")
        sys.stdout.flush()

    for number in (signal.SIGTERM, signal.SIGINT):
        # uvicorn raises the signal again once it has stopped: a clean end, no failure.
        signal.signal(number, lambda *_: sys.exit(0))
    _Server(config, ready).run(sockets=sockets)


def write_admin_token(app: HubApp) -> Path:
    """Leave the admin token where only this user can read it, and return the path."""
    path = app.store.folder / ADMIN_FILE
    path.unlink(missing_ok=True)  # so that the mode below is that of a new file
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as handle:
        handle.write(app.admin_token + "\n")
    return path
