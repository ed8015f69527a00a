"""`ftq up`, `down` and `hub`: one machine for itself."""

import os
import socket
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn

import click

from ftq_client.commands.output import print_note
from ftq_shared.errors import FtqError, UsageError
from ftq_shared.processes import own_module
from ftq_shared.settings import Settings, load_settings
from ftq_shared.states import JobState

ONLINE_TIMEOUT_S = 120.0  # a worker's imports, on a cold disk


@click.command(short_help="Start an embedded broker and a worker on this machine.")
@click.option("--detach", "-d", is_flag=True, help="Go to the background once it is ready.")
@click.option("--gpus", default="all", metavar="LIST|N", help="Cards to offer: 0,1 or a number.")
@click.option("--slots", type=click.IntRange(min=1), help="CPU phases at a time.")
@click.option("--name", metavar="NAME", help="The worker's name; by default the host's.")
def up(detach: bool, gpus: str, slots: int | None, name: str | None) -> int:
    """Start an embedded broker and a worker on this machine.

    All other commands find it by themselves. For a fleet, run one Redis or Valkey, set
    FTQ_REDIS_URL everywhere, and start `ftq worker` on each host instead.

    \b
      ftq up -d
      ftq up --gpus 0,1
    """  # noqa: D301
    from ftq_client.local.stack import LocalStack, log_file, start_detached

    settings = load_settings()
    if os.environ.get("FTQ_REDIS_URL"):
        raise UsageError(
            "FTQ_REDIS_URL names a broker already",
            code="broker_is_set",
            hint="`ftq worker` starts a worker for it; unset the variable for an embedded broker",
        )
    options = ["--gpus", gpus]
    options += ["--slots", str(slots)] if slots else []
    options += ["--name", name] if name else []
    if not detach:
        return LocalStack(settings, options).run()
    pid = start_detached(settings, options)
    print_note(f"broker is up (process {pid}); the worker is loading, which can take a minute")
    print_note(f"its log: {log_file(settings)}")
    _wait_online(pid, settings)
    print_note("ready: ftq submit")
    return 0


def _wait_online(pid: int, settings: Settings) -> None:
    """Wait until the worker has reported. Raises UsageError with its last words."""
    from ftq_client.local.stack import any_ready, log_file, running_pid

    url = str(load_settings().redis_url)
    deadline = time.monotonic() + ONLINE_TIMEOUT_S
    while not any_ready(url):
        if time.monotonic() > deadline or running_pid(settings) != pid:
            last = log_file(settings).read_text(errors="replace").splitlines()[-8:]
            raise UsageError("the worker did not come up:\n" + "\n".join(last))
        time.sleep(0.1)


@click.command(short_help="Stop what `ftq up` started.")
def down() -> None:
    """Stop what `ftq up` started.

    Running jobs save a checkpoint and go on at the next `ftq up`; those that wait, wait on.

    \b
      ftq down
    """  # noqa: D301
    from ftq_client.local.stack import running_pid, stop

    settings = load_settings()
    if running_pid(settings):
        print_note(_what_goes_on(settings))
    print_note("stopped" if stop(settings) else "nothing is up")


def _what_goes_on(settings: Settings) -> str:
    """Say what the next `ftq up` will go on with."""
    from ftq_client.client import Client
    from ftq_client.view.format import counted

    try:
        own = load_settings({"FTQ_HOME": str(settings.home)})
        states = [job.state for job in Client(own).list_jobs(mine=False)]
    except FtqError:  # a broker that is just starting or ending tells nothing
        return "stopping"
    waiting = states.count(JobState.QUEUED)
    running = len(states) - waiting
    parts = [f"{counted(running, 'running job')} will save a checkpoint"] if running else []
    parts += [f"{counted(waiting, 'job')} will wait"] if waiting else []
    later = "; the next `ftq up` goes on with them" if parts else ""
    return f"stopping{': ' if parts else ''}{', '.join(parts)}{later}"


@click.command(short_help="Run a local Hub server.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8080,
    show_default=True,
    help="0 takes a free one.",
)
@click.option("--dir", "directory", type=click.Path(path_type=Path), help="Where it keeps repos.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen at.")
@click.option("--content-port", default=0, help="For large files; by default a free one.")
@click.option("--tls-cert", metavar="FILE", help="Serve https with this certificate (PEM).")
@click.option("--tls-key", metavar="FILE", help="The certificate's key (PEM).")
@click.option(
    "--token",
    "tokens",
    multiple=True,
    metavar="TOKEN=USER[:ROLE[:ORG[=ROLE],...]]",
    help="A user of the Hub; ROLE is read or write, in an organisation also contributor or admin.",
)
def hub(
    port: int,
    directory: Path | None,
    host: str,
    content_port: int,
    tls_cert: str | None,
    tls_key: str | None,
    tokens: tuple[str, ...],
) -> NoReturn:
    """Run a local Hub server, for tests, demos and places without internet.

    Point ftq at it with HF_ENDPOINT=http://127.0.0.1:8080, on clients and workers. With a
    certificate it is https; where its CA is one of your own, name that in SSL_CERT_FILE.

    \b
      ftq hub --token hf_mine=me:write
      ftq hub --port 0 --dir ./hub
    """  # noqa: D301
    if find_spec("uvicorn") is None:
        raise UsageError(
            "the local Hub is not installed",
            code="not_installed",
            hint="pip install 'ftq[embedded]'",
        )
    _refuse_bad_tokens(tokens)
    _refuse_taken_port(host, port)
    if port:  # of another one nobody knows yet
        scheme = "https" if tls_cert else "http"
        print_note(f"for clients and workers: export HF_ENDPOINT={scheme}://{host}:{port}")
    folder = directory or load_settings().home / "hub"
    command = own_module("ftq_hub", "--port", str(port))
    command += ["--dir", str(folder), "--host", host, "--content-port", str(content_port)]
    command += ["--tls-cert", tls_cert] if tls_cert else []
    command += ["--tls-key", tls_key] if tls_key else []
    for token in tokens:
        command += ["--token", token]
    os.execv(sys.executable, command)  # noqa: S606  the server takes this process's place


def _refuse_bad_tokens(tokens: tuple[str, ...]) -> None:
    """Raise UsageError for a --token that does not say whose it is; the token is not repeated."""
    for number, text in enumerate(tokens, 1):
        token, equals, user = text.partition("=")
        name, _, rest = user.partition(":")
        role = rest.partition(":")[0] or "write"
        problem = ""
        if not equals or not token or not name:
            problem = "lacks the user: write TOKEN=USER"
        elif role not in ("read", "write"):
            problem = f"gives {name} the role {role!r}; it is read or write"
        if problem:
            raise UsageError(
                f"--token number {number} {problem}",
                code="bad_token_option",
                hint="for example: ftq hub --token hf_mine=me:write",
            )


def _refuse_taken_port(host: str, port: int) -> None:
    """Raise UsageError for an address that cannot be listened at."""
    try:
        with socket.create_server((host, port)):
            return
    except OSError as error:
        raise UsageError(
            f"cannot listen at {host}:{port}: {os.strerror(error.errno) if error.errno else error}",
            code="port_taken",
            hint="`ftq hub --port 0` takes a free port",
        ) from error
