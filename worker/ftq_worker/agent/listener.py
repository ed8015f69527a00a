"""The agent's socket for the Celery worker of its host: placements come in, requests go out."""

import contextlib
import logging
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

from ftq_worker.host.messages import DISPATCH, Taken, read_request
from ftq_worker.host.wire import lines, listen, reachable, to_line

log = logging.getLogger(__name__)

ACCEPT_AGAIN_S = 0.5  # after a connection that could not be taken
LOOK_S = 5.0  # between two looks whether we can still be reached


class Listener:
    """Answers TakePhase with Taken; sends DISPATCH to whoever said FORWARD_REQUESTS."""

    def __init__(
        self, path: Path, take: Callable[[str, str], bool], missed: Callable[[], None]
    ) -> None:
        self._take = take
        self._missed = missed  # looks for placements whose message came while nobody listened
        self._server = listen(path)
        self._forwarders: list[socket.socket] = []
        self._lock = threading.Lock()

    def serve(self) -> None:
        """Take connections for as long as the process lives."""
        while True:
            try:
                self._server = reachable(self._server)
                self._server.settimeout(LOOK_S)
                connection, _ = self._server.accept()
                threading.Thread(target=self._listen_to, args=(connection,), daemon=True).start()
            except TimeoutError:
                continue
            except (OSError, RuntimeError) as error:  # out of descriptors or threads, for a while
                log.warning("listener: %s", error, extra={"action": "accept_failed"})
                time.sleep(ACCEPT_AGAIN_S)

    def request_dispatch(self) -> None:
        """Ask the Celery worker for a dispatch pass; without one, the next repair asks again."""
        with self._lock:
            forwarders = list(self._forwarders)
        for connection in forwarders:
            try:
                connection.send(to_line(DISPATCH), socket.MSG_DONTWAIT)
            except BlockingIOError:
                continue  # it has not taken the last request yet: that one will do
            except OSError:
                with self._lock, contextlib.suppress(ValueError):  # another thread saw it as well
                    self._forwarders.remove(connection)

    def _listen_to(self, connection: socket.socket) -> None:
        """Serve one connection; one that breaks off costs nothing."""
        with connection:
            try:
                for line in lines(connection):
                    self._handle(connection, line)
            except (OSError, ValueError) as error:
                log.info("listener: %s", error, extra={"action": "connection_lost"})

    def _handle(self, connection: socket.socket, line: bytes) -> None:
        """Act on one message of the Celery worker."""
        if placed := read_request(line):
            taken = self._take(placed["run"], placed["token"])
            connection.sendall(to_line(Taken(taken=taken)))
            return
        with self._lock:
            self._forwarders.append(connection)
        # A Celery worker or an agent that died may have taken messages and requests with it.
        self._missed()
        self.request_dispatch()
