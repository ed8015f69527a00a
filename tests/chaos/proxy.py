"""A TCP proxy between a worker and its broker that can fail in the ways of a network.

Toxiproxy does more; forty lines of Python need no binary.
"""

import contextlib
import select
import socket
import threading
from collections.abc import Iterator


class Proxy:
    """Listens on a port of its own and forwards to `target`."""

    def __init__(self, target: tuple[str, int]) -> None:
        self._target = target
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        self.cut = threading.Event()  # swallow all bytes both ways, without a word (half-open)
        self.swallow = 0  # replies to scripts that are still to be swallowed, one a connection
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        threading.Thread(target=self._accept, daemon=True).start()

    def heal(self) -> None:
        """End a cut; the connections that lived through it are closed."""
        if self.cut.is_set():
            self.cut.clear()
            self.drop_all()

    def drop_all(self) -> None:
        """Close every connection."""
        with self._lock:
            pairs, self._open = self._open, set()
        for one in pairs:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._server.close()
        self.drop_all()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        try:
            server = socket.create_connection(self._target, timeout=5)
        except OSError:
            client.close()
            return
        with self._lock:
            self._open |= {client, server}
        doomed = False  # the next reply on this connection gets lost
        try:
            for source, data in self._chunks(client, server):
                if self.cut.is_set():
                    continue
                if source is client and self.swallow and b"EVALSHA" in data:
                    self.swallow, doomed = self.swallow - 1, True
                elif source is server and doomed:
                    doomed = False
                    continue
                (server if source is client else client).sendall(data)
        except OSError:
            pass  # either side is gone: so is the other
        finally:
            with self._lock:
                self._open -= {client, server}
            client.close()
            server.close()

    def _chunks(
        self, client: socket.socket, server: socket.socket
    ) -> Iterator[tuple[socket.socket, bytes]]:
        while True:
            ready, _, _ = select.select([client, server], [], [], 60)
            for source in ready:
                data = source.recv(1 << 16)
                if not data and not self.cut.is_set():
                    return
                if not data:  # a cut hides the end of the other side as well
                    select.select([], [], [], 0.1)
                    continue
                yield source, data
