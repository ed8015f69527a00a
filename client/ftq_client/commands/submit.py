"""`ftq submit`: read the spec, ask for what is missing, submit, follow."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ftq_client.commands.options import dataset_option, json_option, model_option, task_option
from ftq_client.commands.output import on_terminal, print_json, print_note
from ftq_shared.errors import Exit

if TYPE_CHECKING:
    from ftq_client.client import Client
    from ftq_client.submit.own_rows import OwnData
    from ftq_shared.preview_messages import ColumnsAnswer
    from ftq_shared.spec import JobSpec, Resources

# Flags that are short for a field of the spec.
_FLAGS = {
    "model": "model",
    "dataset": "dataset",
    "task": "task",
    "publish_to": "publish.repo",
    "gpus": "resources.gpus",
    "priority": "resources.priority",
    "name": "name",
}


@click.command(short_help="Submit a fine-tune and follow it.")
@click.argument("spec", required=False, type=click.Path(path_type=Path))
@model_option("Base model: Hub id, ./folder or worker:/path.")
@dataset_option
@task_option
@click.option("--publish-to", metavar="REPO", help="Hub repo that gets the model.")
@click.option("--gpus", metavar="SPEC", help="2, or h100:2; 0 forces the CPU.")
@click.option(
    "--priority", type=click.Choice(["high", "normal", "low"]), help="Order in the queue."
)
@click.option("--name", metavar="NAME", help="A name for people.")
@click.option(
    "--set",
    "sets",
    multiple=True,
    metavar="KEY=VALUE",
    help="Any field of the spec: train.epochs=2. `ftq spec` prints them.",
)
@click.option("--from", "from_job", metavar="JOB", help="Begin with the spec of another job.")
@click.option(
    "--via-hub", is_flag=True, help="Let large files travel through a private Hub repo of yours."
)
@click.option("--detach", "-d", is_flag=True, help="Do not follow the job.")
@click.option("--yes", "-y", is_flag=True, help="Never ask.")
@click.option("--token-stdin", is_flag=True, help="Read the Hub token from standard input.")
@click.option(
    "--secret",
    "secret_names",
    multiple=True,
    metavar="NAME",
    help="Send an environment variable, sealed.",
)
@json_option
def submit(
    spec: Path | None,
    sets: tuple[str, ...],
    from_job: str | None,
    via_hub: bool,
    detach: bool,
    yes: bool,
    token_stdin: bool,
    secret_names: tuple[str, ...],
    as_json: bool,
    **flags: str | None,
) -> int:
    """Submit a fine-tune and follow it.

    The spec comes from SPEC.yaml, from flags, or from both (flags win). On a terminal ftq asks
    for a model and a dataset that are missing, and shows the whole before it is submitted.
    Ctrl-C leaves the job running. `ftq spec` prints what a spec may hold.

    \b
      ftq submit --model Qwen/Qwen3-0.6B --dataset openai/gsm8k:main --publish-to me/qwen-gsm8k
      ftq submit job.yaml --set train.epochs=2 --detach
      ftq submit --model Qwen/Qwen3-0.6B --dataset ./rows.jsonl
    """  # noqa: D301
    from ftq_client.client import Client
    from ftq_client.follow import Following, follow  # now: Ctrl-C may come right after the submit
    from ftq_client.submit.build_spec import (
        collect_secrets,
        complete,
        read_raw,
        refuse_bad,
        refuse_without_token,
    )
    from ftq_client.submit.own_columns import judged
    from ftq_client.submit.own_rows import look_at

    asks = on_terminal() and not yes and not token_stdin
    given = {_FLAGS[k]: v for k, v in flags.items() if v}
    raw = read_raw(spec, given, sets)
    if not from_job:  # first what can be judged without a network
        refuse_bad(raw, may_lack=("model", "dataset") if asks else ())
    client = Client()
    if from_job:
        raw = read_raw(spec, given, sets, client.raw_spec(client.find(from_job)))
        refuse_bad(raw)
    token = None
    typed = _typed(spec, from_job, flags, sets, secret_names, via_hub, detach)
    confirmed = asks and not (raw.get("model") and raw.get("dataset"))
    if asks:
        from ftq_client.preview import can_preview, show_rows

        rows = partial(show_rows, client.settings.hf_endpoint) if can_preview() else None
        raw, token = complete(raw, client.settings, typed, rows)
    draft = client.draft(raw)
    hub = (via_hub or asks) and draft.needs_hub
    secrets = collect_secrets(draft.spec, secret_names, token, from_stdin=token_stdin, via_hub=hub)
    refuse_without_token(draft.spec, secrets, client.settings.hf_endpoint)
    _note_missing_gpus(client, draft.spec.resources)
    data = look_at(draft.files)
    # Else it has been shown before the confirmation.
    answer = judged(data, draft.spec) if as_json or not confirmed else None
    if data and not confirmed:
        _note_data(data, answer, draft.spec, typed)
    consent = _consent if asks and not via_hub else via_hub
    job = client.submit(draft, secrets=secrets, via_hub=consent, on_progress=print_note)
    if detach:
        told = data.as_json() | (answer or {}) if data else None
        return _detached(client, job, told, as_json)
    if not as_json:
        print_note(f"submitted {job}")
    return follow(client, Following([job], as_json=as_json))


def _typed(
    spec: Path | None,
    from_job: str | None,
    flags: Mapping[str, str | None],
    sets: Sequence[str],
    secret_names: Sequence[str],
    via_hub: bool,
    detach: bool,
) -> list[str]:
    """Return the arguments that were typed, to show them with the answers added."""
    words = [str(spec)] if spec else []
    words += ["--from", from_job] if from_job else []
    for name, value in flags.items():
        words += [f"--{name.replace('_', '-')}", value] if value else []
    for option, values in (("--set", sets), ("--secret", secret_names)):
        words += [word for value in values for word in (option, value)]
    return words + ["--via-hub"] * via_hub + ["--detach"] * detach


def _note_missing_gpus(client: "Client", resources: "Resources") -> None:
    """Say at once that no host online has the cards: one that has may come, so it is no error."""
    from ftq_client.fleet import missing_gpus

    if missing := missing_gpus(resources, client.workers()):
        print_note(f"warning: {missing}; the job waits until a host with them is online")


def _note_data(
    data: "OwnData", answer: "ColumnsAnswer | None", spec: "JobSpec", typed: Sequence[str]
) -> None:
    """Say what the person's own files hold, before they leave."""
    from ftq_client.submit.confirm import preview_command
    from ftq_client.submit.own_columns import lines

    for line in (*data.lines(), *lines(answer)):
        print_note(line)
    if look := preview_command(spec, typed):
        print_note(f"the rows as the model sees them: {look}")


def _consent(question: str) -> bool:
    return click.confirm(question, default=False, err=True)


def _detached(client: "Client", job: str, data: Mapping[str, object] | None, as_json: bool) -> int:
    if as_json:
        print_json({"job": job} | ({"data": data} if data else {}))
        return Exit.OK
    click.echo(job)
    if not client.online():
        print_note("no worker is online; the job waits. Start one: `ftq worker`, or `ftq up` here")
    print_note(f"follow it: ftq tail {job}")
    return Exit.OK
