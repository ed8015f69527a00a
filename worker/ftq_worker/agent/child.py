"""A child process as its agent holds it: pipes down and up, and its death by pidfd."""

import contextlib
import os
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path
from typing import Protocol

import psutil

from ftq_shared.errors import FtqError
from ftq_shared.processes import own_module
from ftq_shared.signals import readable
from ftq_worker.host.environment import child_environment
from ftq_worker.host.messages import (
    ChildRequest,
    ControlMessage,
    control_line,
    read_exited,
    read_forked,
)
from ftq_worker.host.process_tree import session_of
from ftq_worker.host.wire import LineReader, lines

DIE_S = 30.0  # a killed process that is still there hangs in the kernel, as in a driver
ZYGOTE_START_S = 120.0  # its imports take 6 s on a fast disk, far longer on a cold one


class HostTrouble(FtqError):
    """Raised when this host cannot start a child: its own fault, not the job's."""

    default_code = "host_trouble"


class Spawn(Protocol):
    """Starts a child for a request; `output` is the file that gets what it prints."""

    def __call__(self, request: ChildRequest, output: int) -> "Child":
        """Return the running child; raises HostTrouble when it cannot be started."""


class Child:
    """One running phase process, leader of a session of its own."""

    def __init__(self, pid: int, ended_fd: int, control: int, events: int) -> None:
        self.pid = pid
        self.ended_fd = ended_fd  # readable once the child is dead, whoever holds its pipes
        self.events = LineReader(events)
        self._control = control
        self._lock = threading.Lock()
        self.ended = False  # seen dead: its pid may be somebody else's by now
        os.set_blocking(control, False)

    def send(self, message: ControlMessage) -> None:
        """Send a message; a child that does not read any more does not hold us up."""
        with self._lock, contextlib.suppress(OSError):
            os.write(self._control, control_line(message))

    def status(self) -> int | None:
        """Return the exit code, negative for a signal; None when nobody knows it."""
        raise NotImplementedError  # pragma: no cover

    def kill_tree(self, signum: int = signal.SIGKILL) -> None:
        """Signal the child and everything below it, also what left its session."""
        if self.ended:
            return
        with contextlib.suppress(psutil.NoSuchProcess):
            for process in psutil.Process(self.pid).children(recursive=True):
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.send_signal(signum)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signum)

    def end(self) -> None:
        """Kill the child if it lives, what it left in its session in any case, and wait."""
        if self.ended:
            return
        deadline = time.monotonic() + DIE_S
        self.kill_tree()
        gone = readable(self.ended_fd, DIE_S)  # the leash; the phase below it dies with it
        left = session_of(self.pid)
        while gone and left and time.monotonic() < deadline:
            time.sleep(0.05)
            left = session_of(self.pid)
        if not gone or left:
            raise HostTrouble(f"process {self.pid} does not die")
        self.ended = True

    def close(self) -> None:
        with self._lock:
            for fd in (self.ended_fd, self._control, self.events.fd):
                with contextlib.suppress(OSError):
                    os.close(fd)
            self._control = -1


class WarmChild(Child):
    """A child that the zygote forked; the zygote reports its status."""

    def __init__(
        self, pid: int, ended_fd: int, control: int, events: int, zygote: socket.socket
    ) -> None:
        super().__init__(pid, ended_fd, control, events)
        self._zygote = zygote
        self._status: int | None = None

    def status(self) -> int | None:
        """Read the zygote's report; None when the zygote is gone."""
        self._zygote.settimeout(2)
        with contextlib.suppress(OSError):
            for line in lines(self._zygote):
                self._status = read_exited(line)["status"]
                break
        return self._status

    def close(self) -> None:
        """Give the descriptors back, the line to the zygote included."""
        super().close()
        self._zygote.close()


class ColdChild(Child):
    """A child in a fresh interpreter, where there is no zygote."""

    def __init__(self, process: "subprocess.Popen[bytes]", control: int, events: int) -> None:
        ended, write = os.pipe()
        super().__init__(process.pid, ended, control, events)
        self._process = process
        threading.Thread(target=self._watch, args=(write,), daemon=True).start()

    def _watch(self, write: int) -> None:
        """Close the pipe when the child has ended, as a pidfd would turn readable."""
        self._process.wait()
        os.close(write)

    def status(self) -> int | None:
        return self._process.wait(timeout=5)


class ZygoteSpawn:
    """Asks the zygote at `path` for children."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __call__(self, request: ChildRequest, output: int) -> Child:
        """Fork a child; waits while the zygote is still importing. Raises HostTrouble."""
        connection = self._connect()
        control_read, control_write = os.pipe()
        events_read, events_write = os.pipe()
        theirs = [control_read, events_write, output]
        try:
            socket.send_fds(connection, [request.dumps().encode() + b"\n"], theirs)
            data, fds, _, _ = socket.recv_fds(connection, 4096, 1)
            if not fds:
                raise ConnectionResetError("it died")
        except OSError as error:
            connection.close()
            os.close(control_write)
            os.close(events_read)
            raise HostTrouble(f"the zygote did not fork: {error}", code="no_fork") from error
        finally:
            os.close(control_read)
            os.close(events_write)
        return WarmChild(read_forked(data)["pid"], fds[0], control_write, events_read, connection)

    def _connect(self) -> socket.socket:
        """Return a connection; raises HostTrouble after ZYGOTE_START_S."""
        deadline = time.monotonic() + ZYGOTE_START_S
        while True:
            connection = socket.socket(socket.AF_UNIX)
            connection.settimeout(30)
            try:
                connection.connect(str(self._path))
                return connection
            except OSError as error:
                connection.close()
                if time.monotonic() > deadline:
                    raise HostTrouble(f"the zygote is not there: {error}") from error
                time.sleep(0.05)  # it is still importing, or being restarted


class ColdSpawn:
    """Starts a fresh interpreter for each phase."""

    def __call__(self, request: ChildRequest, output: int) -> Child:
        """Start one; its imports take seconds."""
        control_read, control_write = os.pipe()
        events_read, events_write = os.pipe()
        args = [request.dumps(), str(control_read), str(events_write)]
        process = subprocess.Popen(
            own_module("ftq_worker.child", *args),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=(control_read, events_write),
            env=child_environment(os.environ),
            start_new_session=True,
        )
        os.close(control_read)
        os.close(events_write)
        return ColdChild(process, control_write, events_read)
