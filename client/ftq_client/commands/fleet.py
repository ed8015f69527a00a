"""`ftq workers`, `worker`, `drain` and `keygen`."""

import os
import sys
from pathlib import Path
from typing import NoReturn

import click

from ftq_client.commands.options import json_option, timeout_option
from ftq_client.commands.output import print_json, print_note, print_text, table_width
from ftq_shared.errors import Exit
from ftq_shared.processes import own_module


@click.command(short_help="List the fleet's workers.")
@json_option
def workers(as_json: bool) -> None:
    """List the fleet's workers: what each offers, and what runs on it.

    \b
      ftq workers
      ftq workers --json
    """  # noqa: D301
    from ftq_client.client import Client
    from ftq_client.fleet import worker_rows
    from ftq_client.view.tables import workers_table

    rows = worker_rows(Client())
    if as_json:
        for row in rows:
            print_json(row)
        return
    click.echo(workers_table(rows, tty=sys.stdout.isatty(), width=table_width()))
    for row in rows:
        for gpu in row["gpus"]:
            if gpu["fault"]:
                print_note(f"{row['name']}: {gpu['name']} {gpu['uuid']} {gpu['fault']}")


@click.command(short_help="Run a worker on this host.")
@click.option("--gpus", default="all", metavar="LIST|N", help="Cards to offer: 0,1 or a number.")
@click.option("--slots", type=click.IntRange(min=1), help="CPU phases at a time.")
@click.option("--name", metavar="NAME", help="Name in the fleet; by default the host's.")
def worker(gpus: str, slots: int | None, name: str | None) -> NoReturn:
    """Run a worker on this host, in the foreground; SIGTERM or Ctrl-C drains it.

    It needs FTQ_REDIS_URL (the fleet's broker) and FTQ_FLEET_KEY (the fleet's key file), or what
    `ftq up` made on this machine.

    \b
      ftq worker
      ftq worker --gpus 0,1 --slots 4 --name gpu-03
    """  # noqa: D301
    from importlib.util import find_spec

    from ftq_shared.errors import UsageError

    if find_spec("torch") is None or find_spec("trl") is None:
        raise UsageError(
            "the training stack is not installed here",
            code="not_installed",
            hint="pip install 'ftq[worker]' (for your CUDA version, install torch first)",
        )
    options = ["--gpus", gpus]
    options += ["--slots", str(slots)] if slots else []
    options += ["--name", name] if name else []
    env = {k: v for k, v in os.environ.items() if k not in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")}
    os.execve(  # noqa: S606  the worker takes this process's place: one pid, one Ctrl-C
        sys.executable, own_module("ftq_worker.supervisor.main", *options), env
    )


@click.command(short_help="Empty a worker: its jobs go on elsewhere.")
@click.argument("host")
@click.option("--wait", "wait_", is_flag=True, help="Return when it has left.")
@timeout_option("With --wait: give up after 90s, 10m; exit code 124.")
def drain(host: str, wait_: bool, timeout_s: float | None) -> int:
    """Empty the worker HOST: it takes no new work, its phases save and go on elsewhere.

    Where no other worker sees a job's files, that job waits for this one. No attempt is used up,
    and the worker's process ends with exit code 0.

    \b
      ftq drain gpu-03
      ftq drain gpu-03 --wait --timeout 5m && ssh gpu-03 sudo reboot
    """  # noqa: D301
    from ftq_client.client import Client
    from ftq_client.fleet import only_there, wait_until_gone
    from ftq_client.view.format import counted

    client = Client()
    if stuck := only_there(client, host):
        print_note(
            f"{counted(len(stuck), 'job')} with files only there: {', '.join(stuck[:10])}"
            f"{' ...' if len(stuck) > 10 else ''}. They wait until a worker runs there again; with"
            " a folder that all hosts share (FTQ_STORAGE) jobs go on elsewhere"
        )
    client.drain(host)
    if not wait_:
        print_note(f"{host} is draining; watch it leave: ftq workers")
        return Exit.OK
    if not wait_until_gone(client, host, timeout_s):
        print_note(f"ftq: {host} is still there")
        return Exit.TIMEOUT
    print_note(f"{host} has left")
    return Exit.OK


@click.command(short_help="Make the fleet's key pair.")
@click.argument("file", required=False, type=click.Path(path_type=Path, dir_okay=False))
def keygen(file: Path | None) -> None:
    """Make the fleet's key pair in FILE (by default FTQ_HOME/fleet.key), mode 0600.

    Copy the file to every worker and name it in FTQ_FLEET_KEY. Clients need no key: they seal
    tokens for the fleet's public half and pin its fingerprint at first use.

    \b
      ftq keygen ./fleet.key
    """  # noqa: D301
    from ftq_shared.secrets import FleetKey
    from ftq_shared.settings import load_settings

    path = file or load_settings().fleet_key_file
    key = FleetKey.generate()
    key.save(path)
    print_text(str(path))
    print_note(f"fingerprint {key.fingerprint}")
