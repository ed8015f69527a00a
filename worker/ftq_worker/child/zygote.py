"""The zygote, a fork server: has imported the training stack, and forks children in milliseconds.

    python -m ftq_worker.child.zygote SOCKET PARENT_PID

It has exactly one thread (asserted before each fork) and has not touched CUDA, so a fork is safe.
A client connects, sends one JSON line with three file descriptors (control, events, output), and
gets Forked with a pidfd; later, on the same connection, Exited when the child has ended.
Measured: imports 5 to 7 s, a fork 17 to 20 ms.
"""

import gc
import importlib
import logging
import os
import selectors
import signal
import socket
import sys
from functools import partial
from pathlib import Path
from typing import NoReturn

from ftq_worker.child.leash import run_on_leash
from ftq_worker.host.cold_imports import collector_off
from ftq_worker.host.heartbeat import touch
from ftq_worker.host.linux import end_with_parent, thread_count
from ftq_worker.host.log import leave_logging, setup_logging
from ftq_worker.host.messages import ChildRequest, Exited, Forked
from ftq_worker.host.wire import listen, reachable, to_line

log = logging.getLogger(__name__)

HEARTBEAT_S = 5.0  # between two heartbeats

PRELOAD = (
    "torch",
    "transformers",
    "transformers.trainer",
    "transformers.models.auto.modeling_auto",
    "transformers.models.auto.tokenization_auto",
    "trl.trainer.sft_trainer",
    "datasets",
    "peft",
    "ftq_worker.child.main",
    "ftq_worker.phases.validate",
    "ftq_worker.phases.prepare",
    "ftq_worker.phases.train",
    "ftq_worker.phases.publish",
)


class Zygote:
    """Forks children and tells their clients how they ended. Single-threaded."""

    def __init__(self, server: socket.socket, heartbeat: Path) -> None:
        self._server, self._heartbeat = server, heartbeat
        self._children: dict[int, socket.socket] = {}  # pid -> who asked for it
        self._selector = selectors.DefaultSelector()
        self._selector.register(server, selectors.EVENT_READ)
        self._wake, wake_write = socket.socketpair()
        self._wake.setblocking(False)
        wake_write.setblocking(False)
        self._selector.register(self._wake, selectors.EVENT_READ)
        signal.set_wakeup_fd(wake_write.fileno())
        self._wake_write = wake_write
        signal.signal(signal.SIGCHLD, lambda *_: None)

    def serve(self) -> NoReturn:
        """Answer requests and reap children until killed."""
        while True:
            touch(self._heartbeat)
            self._stay_reachable()
            for key, _ in self._selector.select(HEARTBEAT_S):
                if key.fileobj is self._server:
                    self._accept()
                else:
                    self._wake.recv(4096)
            self._reap()

    def _stay_reachable(self) -> None:
        """Listen again where the socket's file has gone."""
        old = self._server
        try:
            self._server = reachable(old)
        except OSError as error:  # no room in /tmp: the next turn tries again
            log.warning("socket: %s", error, extra={"action": "listen_failed"})
        if self._server is not old:
            self._selector.unregister(old)
            self._selector.register(self._server, selectors.EVENT_READ)

    def _accept(self) -> None:
        """Take one request and fork; a client that breaks off costs nothing."""
        client, _ = self._server.accept()
        client.settimeout(5)
        try:
            data, fds, _, _ = socket.recv_fds(client, 1 << 20, 3)
            while not data.endswith(b"\n"):
                more = client.recv(1 << 20)
                if not more:
                    raise ConnectionError("request cut off")
                data += more
        except OSError as error:
            log.warning("request: %s", error, extra={"action": "request_lost"})
            client.close()
            return
        self._fork(client, ChildRequest.loads(data), fds)

    def _fork(self, client: socket.socket, request: ChildRequest, fds: list[int]) -> None:
        """Make the child; the parent answers with its pid and a pidfd."""
        assert thread_count() == 1, "a fork with threads can deadlock the child"
        pid = os.fork()
        if pid == 0:
            self._become_child(request, *fds)
        for fd in fds:
            os.close(fd)
        pidfd = os.pidfd_open(pid)
        self._children[pid] = client
        try:
            socket.send_fds(client, [to_line(Forked(pid=pid))], [pidfd])
        except OSError as error:  # its watchdog ends the child; nothing to undo here
            extra = {"action": "answer_lost", "job": request.job, "pid": pid}
            log.warning("answer for %d: %s", pid, error, extra=extra)
        os.close(pidfd)

    def _become_child(
        self, request: ChildRequest, control: int, events: int, output: int
    ) -> NoReturn:
        """Leave everything of the zygote behind, and run the phase."""
        code = 1
        try:
            signal.set_wakeup_fd(-1)
            for signum in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT):
                signal.signal(signum, signal.SIG_DFL)
            self._selector.close()
            for connection in [
                self._server,
                self._wake,
                self._wake_write,
                *self._children.values(),
            ]:
                connection.close()
            leave_logging()
            os.setsid()
            os.dup2(output, 1)
            os.dup2(output, 2)
            os.environ.update(request.env)
            from ftq_worker.child.main import run_phase

            code = run_on_leash(control, events, partial(run_phase, request))
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(code)

    def _reap(self) -> None:
        """Collect ended children and report their status."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            client = self._children.pop(pid, None)
            if client is None:
                continue
            try:
                client.sendall(to_line(Exited(status=os.waitstatus_to_exitcode(status))))
            except OSError as error:
                extra = {"action": "status_unheard", "pid": pid}
                log.info("nobody waits for %d any more: %s", pid, error, extra=extra)
            client.close()


def main() -> None:
    """Import, then serve."""
    path, parent = Path(sys.argv[1]), int(sys.argv[2])
    end_with_parent(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with collector_off():  # for children too: they copy no pages just because it looks at them
        for name in PRELOAD:
            importlib.import_module(name)
        gc.collect()
    # Not by load_settings: it reads the broker's address, which no child may have.
    setup_logging("zygote", os.environ.get("FTQ_LOG") or "text")
    assert thread_count() == 1, f"{thread_count()} threads after the imports"
    Zygote(listen(path), path.with_name("zygote.heartbeat")).serve()


if __name__ == "__main__":
    main()
