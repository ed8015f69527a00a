"""The agent's socket for its host's Celery worker: phases come in, requests to dispatch go out."""

import contextlib
import logging
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ftq_worker.host.wire import lines, listen, reachable, to_line

log = logging.getLogger("ftq.agent")

ACCEPT_AGAIN_S = 0.5  # after a connection that could not be taken
LOOK_S = 5.0  # between two looks whether we can still be reached


class Bells:
    """Serves {"run": job, "token"}, answered with {"taken"}, and {"bells": true}: it gets rings."""

    def __init__(
        self, path: Path, take: Callable[[str, str], bool], missed: Callable[[], None]
    ) -> None:
        self._take = take
        self._missed = missed  # looks for what messages may have told while nobody listened
        self._server = listen(path)
        self._ringing: list[socket.socket] = []
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
                log.warning("bells: %s", error)
                time.sleep(ACCEPT_AGAIN_S)

    def ring(self) -> None:
        """Ask the Celery worker for a dispatch pass; without one, the next repair asks again."""
        with self._lock:
            ringing = list(self._ringing)
        for connection in ringing:
            try:
                connection.send(to_line({"ring": True}), socket.MSG_DONTWAIT)
            except BlockingIOError:
                continue  # it has not taken the last bell yet: that one will do
            except OSError:
                with self._lock, contextlib.suppress(ValueError):  # another ring saw it as well
                    self._ringing.remove(connection)

    def _listen_to(self, connection: socket.socket) -> None:
        """Serve one connection; one that breaks off costs nothing."""
        with connection:
            try:
                for message in lines(connection):
                    self._hear(connection, message)
            except (OSError, ValueError) as error:
                log.info("bells: %s", error)

    def _hear(self, connection: socket.socket, message: dict[str, Any]) -> None:
        """Act on one message of the Celery worker."""
        if message.get("bells"):
            with self._lock:
                self._ringing.append(connection)
            # Messages may have been lost with a Celery worker that died, and rings with an agent
            # that did.
            self._missed()
            self.ring()
        elif "run" in message:
            taken = self._take(message["run"], message["token"])
            connection.sendall(to_line({"taken": taken}))
