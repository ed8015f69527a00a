"""`ftq ...` without its imports: forked from a process that has them.

The command runs as it does from a shell: its own process and session, environment, directory and
streams. What is only read while modules are imported (the Hub's address by huggingface_hub) is
imported in the fork, after its environment is set.
"""

import contextlib
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

from ftq_client import cli


class WarmCommand:
    """The server, which lives as long as this object's `with` block."""

    def __init__(self, socket_path: Path) -> None:
        self._path = str(socket_path)

    def __enter__(self) -> "WarmCommand":
        command = [sys.executable, "-P", "-m", "tests.support.warm_command", self._path]
        self._server = subprocess.Popen(
            command, stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": os.getcwd()}
        )
        assert self._server.stdout
        assert self._server.stdout.readline() == b"ready\n"
        return self

    def __exit__(self, *_: object) -> None:
        self._server.kill()
        self._server.communicate()

    def run(
        self, *args: str, env: Mapping[str, str], stdin: str = "", timeout_s: float = 110
    ) -> "subprocess.CompletedProcess[str]":
        """Run `ftq ARGS...` to its end.

        Raises:
            TimeoutError: it has not ended in `timeout_s` seconds.
        """
        with (
            tempfile.TemporaryFile("w+") as given,
            tempfile.TemporaryFile("w+") as out,
            tempfile.TemporaryFile("w+") as err,
            socket.socket(socket.AF_UNIX) as asking,
        ):
            given.write(stdin)
            given.seek(0)
            asking.settimeout(timeout_s)
            asking.connect(self._path)
            request = json.dumps({"args": args, "env": dict(env), "cwd": os.getcwd()}).encode()
            streams = [stream.fileno() for stream in (given, out, err)]
            socket.send_fds(asking, [len(request).to_bytes(4, "big")], streams)
            asking.sendall(request)
            code = int(asking.makefile("rb").read())
            out.seek(0)
            err.seek(0)
            return subprocess.CompletedProcess(["ftq", *args], code, out.read(), err.read())


def _serve(path: str) -> None:
    """Fork for each connection; the fork of the fork becomes the command."""
    for module, _ in cli.COMMANDS.values():
        importlib.import_module(f"ftq_client.commands.{module}")
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        listening.listen(8)
        os.write(1, b"ready\n")
        while True:
            connection, _ = listening.accept()
            if os.fork() == 0:
                listening.close()
                _answer(connection)
                os._exit(0)
            connection.close()


def _answer(connection: socket.socket) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    length, streams, _, _ = socket.recv_fds(connection, 4, 3)
    request = json.loads(connection.makefile("rb").read(int.from_bytes(length, "big")))
    child = os.fork()
    if child == 0:
        connection.close()
        _become(request["args"], request["env"], request["cwd"], streams)
    _, status = os.waitpid(child, 0)
    with contextlib.suppress(BrokenPipeError):  # who asked did not wait for it
        connection.sendall(str(os.waitstatus_to_exitcode(status)).encode())


def _become(args: list[str], env: dict[str, str], cwd: str, streams: list[int]) -> NoReturn:
    os.setsid()
    os.chdir(cwd)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.environ.clear()
    os.environ.update(env)
    sys.argv = ["ftq", *args]
    try:
        cli.main()
    except SystemExit as end:
        os._exit(end.code if isinstance(end.code, int) else 1)
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    os._exit(1)


if __name__ == "__main__":
    _serve(sys.argv[1])
