"""Runs a HubApp: binds the port, says where it listens, stops on SIGTERM and Ctrl-C."""

import os
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import uvicorn

from ftq_worker.hub_server.app import HubApp

ADMIN_FILE = "admin-token"  # in the hub's folder, of the running server


class _Server(uvicorn.Server):
    """A uvicorn server that reports when it listens."""

    def __init__(self, config: uvicorn.Config, on_ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_ready = on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start listening, then call `on_ready`."""
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


def serve(app: HubApp, sock: socket.socket, on_ready: Callable[[], None]) -> None:
    """Serve until SIGTERM or Ctrl-C; returns then, with the answers in flight cut after 1 s."""
    config = uvicorn.Config(
        app,
        lifespan="off",
        log_level="critical",  # a cut transfer is wanted here, and uvicorn calls it an error
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=1,
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        # uvicorn raises the signal again once it has stopped: a clean end, no failure.
        signal.signal(number, lambda *_: sys.exit(0))
    _Server(config, on_ready).run(sockets=[sock])


def run(app: HubApp, host: str, port: int) -> None:
    """Serve, and print one line with the URL when the server listens. Raises OSError."""
    sock, url = bind(host, port)
    write_admin_token(app)

    def ready() -> None:
        sys.stdout.write(f"{url}\n")
        sys.stdout.flush()

    serve(app, sock, ready)


def write_admin_token(app: HubApp) -> Path:
    """Leave the admin token where only this user can read it, and return the path."""
    path = app.store.folder / ADMIN_FILE
    path.unlink(missing_ok=True)  # so that the mode below is that of a new file
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as handle:
        handle.write(app.admin_token + "\n")
    return path
