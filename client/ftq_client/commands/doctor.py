"""`ftq doctor`: what is set, where it came from, and whether it answers."""

import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass

import click

from ftq_client.commands.options import json_option
from ftq_client.commands.output import print_json, print_text
from ftq_client.edge import as_ftq_error
from ftq_shared.broker import translated
from ftq_shared.broker_check import Trouble, look_at_broker
from ftq_shared.errors import Exit
from ftq_shared.settings import SETTINGS, Settings, load_settings


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    name: str
    ok: bool
    value: str
    hint: str = ""
    exit_code: int = Exit.OK


@click.command(short_help="Print the effective settings and check that all answers.")
@json_option
def doctor(as_json: bool) -> int:
    """Print the effective settings and where each came from, and check that all answers.

    It exits with 6 when the broker, and with 7 when the Hub, does not answer.

    \b
      ftq doctor
      ftq doctor --json
    """  # noqa: D301
    settings = load_settings()
    values = _values(settings)
    findings = [Finding(n, True, f"{values[n]}  ({settings.sources[n]})") for n in SETTINGS]
    findings += [_person(settings), *_broker(settings), _hub(settings), _stack()]
    for finding in findings:
        if as_json:
            print_json(asdict(finding))
            continue
        print_text(f"{'ok ' if finding.ok else 'BAD'}  {finding.name:<15} {finding.value}")
        if finding.hint:
            print_text(f"     {'':<15} {finding.hint}")
    return max(finding.exit_code for finding in findings)


def _values(settings: Settings) -> dict[str, str]:
    from ftq_client.submit.tokens import find_token
    from ftq_shared.broker_url import shown

    return {
        "FTQ_REDIS_URL": shown(settings.redis_url) if settings.redis_url else "not set",
        "FTQ_FLEET_KEY": str(settings.fleet_key_file),
        "FTQ_STORAGE": settings.storage,
        "FTQ_HOME": str(settings.home),
        "FTQ_LOG": settings.log,
        "FTQ_DATA_ROOTS": _roots(settings),
        "FTQ_UMASK": f"{settings.umask:03o}",
        "HF_ENDPOINT": settings.hf_endpoint,
        "HF_TOKEN": "found, not shown" if find_token() else "not set",
        "HF_HOME": str(settings.hf_home),
    }


def _roots(settings: Settings) -> str:
    if settings.data_roots is None:
        return f"{settings.storage}/data"
    return os.pathsep.join(map(str, settings.data_roots)) or "none"


def _checked(name: str, work: Callable[[], str]) -> Finding:
    """Run one check; its error becomes a finding."""
    try:
        return Finding(name, True, work())
    except Exception as error:  # what a doctor cannot explain, it still tells
        told = as_ftq_error(error)
        return Finding(name, False, told.message, told.hint, told.exit_code)


def _person(settings: Settings) -> Finding:
    """Return whose the jobs are that are submitted here."""

    def ask() -> str:
        from ftq_client.identity import Identity

        me = Identity(settings).me
        also = f"; also {', '.join(sorted(me.also))}" if me.also else ""
        return f"{me.name}{also}  (the Hub user, else FTQ_USER, else the account)"

    return _checked("you", ask)


def _broker(settings: Settings) -> Iterator[Finding]:
    """Say what the broker is, and each thing that is wrong with it."""
    troubles: tuple[Trouble, ...] = ()

    def ask() -> str:
        nonlocal troubles
        from ftq_client.client import Client
        from ftq_client.view.format import counted

        client = Client(settings)
        with translated(settings.redis_url):
            state = look_at_broker(client.redis)
        troubles = state.troubles
        online = sum(host.online for host in client.workers())
        return f"{state.words}, {counted(online, 'worker')} online"

    yield _checked("broker", ask)
    for it in troubles:
        code = Exit.BROKER if it.fatal else Exit.OK
        yield Finding("broker", False, it.text, it.hint, code)


def _hub(settings: Settings) -> Finding:

    def ask() -> str:
        from ftq_client.submit.tokens import find_token
        from ftq_shared.hub import HubClient, Retry

        retry = Retry(total_s=3.0, request_s=5.0, asked_s=3.0)
        hub = HubClient(settings.hf_endpoint, find_token(), retry=retry)
        if hub.token:
            return f"{settings.hf_endpoint} knows you as {hub.whoami().name}"
        hub.search_models("gpt2", 1)
        return f"{settings.hf_endpoint} answers (without a token)"

    return _checked("hub", ask)


def _stack() -> Finding:
    """Return whether this machine could be a worker."""
    from importlib.util import find_spec

    missing = [name for name in ("torch", "transformers", "trl", "peft") if find_spec(name) is None]
    if missing:
        return Finding("worker", True, "client only; for a worker: pip install 'ftq[worker]'")
    return Finding("worker", True, "the training stack is installed")
