"""How the processes of one host talk: one JSON object a line, over Unix sockets and pipes."""

import json
import os
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path


def to_line(message: Mapping[str, object]) -> bytes:
    """Return a message as one line; half a surrogate pair, as of a file's name, becomes a `?`."""
    text = json.dumps(message, separators=(",", ":"), ensure_ascii=False)
    return text.encode(errors="replace") + b"\n"


SOCKET_PATH_MAX = 103  # bytes of a Unix socket's path on macOS; Linux takes 107


def listen(path: Path) -> socket.socket:
    """Return a listening Unix socket that only this user can reach."""
    path.parent.mkdir(mode=0o700, exist_ok=True)
    path.unlink(missing_ok=True)
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(path))
    path.chmod(0o600)
    server.listen(64)
    return server


def reachable(server: socket.socket) -> socket.socket:
    """Return the same socket, or a new one where its file has gone: /tmp may be cleaned.

    Raises OSError when there is no room for one; the old one is then left as it is.
    """
    path = Path(server.getsockname())
    if path.exists():
        return server
    fresh = listen(path)
    server.close()
    return fresh


def ask(path: Path, message: Mapping[str, object], *, timeout_s: float = 10.0) -> bytes:
    """Send one message and return the line that answers it.

    Raises OSError, or ValueError when there is no answer.
    """
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(timeout_s)
        client.connect(str(path))
        client.sendall(to_line(message))
        for answer in lines(client):
            return answer
    raise ValueError(f"no answer from {path.name}")


def lines(connection: socket.socket) -> Iterator[bytes]:
    """Yield whole lines until the other side closes."""
    buffer = b""
    while data := connection.recv(65536):
        *whole, buffer = (buffer + data).split(b"\n")
        yield from whole


class LineReader:
    """Takes whole lines from a non-blocking pipe."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.open = True
        self._buffer = b""
        os.set_blocking(fd, False)

    def read(self) -> list[bytes]:
        """Return the lines that are there now; `open` turns False at the end of the pipe."""
        chunks = [self._buffer]
        try:
            while data := os.read(self.fd, 1 << 16):
                chunks.append(data)
                if len(chunks) > 64:  # leave the rest for the next turn: others wait too
                    break
            else:
                self.open = False
        except BlockingIOError:
            pass  # nothing more for now
        *whole, self._buffer = b"".join(chunks).split(b"\n")
        return whole
