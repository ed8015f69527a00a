"""`ftq up`, `down` and `hub`: one machine for itself."""

import os
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn

import click

from ftq_client.commands.output import print_note
from ftq_shared.errors import UsageError
from ftq_shared.settings import Settings, load_settings

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
    """
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
    print_note(f"broker is up (process {pid}); the worker is loading, log: {log_file(settings)}")
    _wait_online(pid, settings)
    print_note("ready: ftq submit")
    return 0


def _wait_online(pid: int, settings: Settings) -> None:
    """Wait until the worker has reported. Raises UsageError with its last words."""
    from ftq_client.client import Client
    from ftq_client.local.stack import log_file

    client = Client(load_settings())
    deadline = time.monotonic() + ONLINE_TIMEOUT_S
    while not any(host.online and host.warm for host in client.workers()):
        if time.monotonic() > deadline:
            last = log_file(settings).read_text(errors="replace").splitlines()[-8:]
            raise UsageError("the worker did not come up:\n" + "\n".join(last))
        time.sleep(0.1)


@click.command(short_help="Stop what `ftq up` started.")
def down() -> None:
    """Stop what `ftq up` started. Running jobs save a checkpoint and go on at the next `ftq up`."""
    from ftq_client.local.stack import stop

    if not stop(load_settings()):
        print_note("nothing is up")
        return
    print_note("stopped")


@click.command(short_help="Run a local Hub server.")
@click.option("--port", default=8080, show_default=True, help="0 takes a free one.")
@click.option("--dir", "directory", type=click.Path(path_type=Path), help="Where it keeps repos.")
@click.option("--host", default="127.0.0.1", show_default=True)
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

    Point ftq at it with HF_ENDPOINT=http://127.0.0.1:8080. With a certificate it is https; where
    its CA is one of your own, name that in SSL_CERT_FILE.
    """
    if find_spec("uvicorn") is None:
        raise UsageError(
            "the local Hub is not installed",
            code="not_installed",
            hint="pip install 'ftq[embedded]'",
        )
    folder = directory or load_settings().home / "hub"
    command = [sys.executable, "-m", "ftq_hub", "--port", str(port)]
    command += ["--dir", str(folder), "--host", host, "--content-port", str(content_port)]
    command += ["--tls-cert", tls_cert] if tls_cert else []
    command += ["--tls-key", tls_key] if tls_key else []
    for token in tokens:
        command += ["--token", token]
    os.execv(sys.executable, command)  # noqa: S606  the server takes this process's place
