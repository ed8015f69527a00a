"""`ftq list`, `show`, `cancel`, `retry` and `wait`."""

import sys
import time

import click

from ftq_client.commands.options import json_option, timeout_option
from ftq_client.commands.output import print_json, print_note
from ftq_shared.errors import Exit
from ftq_shared.states import JobState, Phase


@click.command("list", short_help="List jobs: yours that are active, or all.")
@click.option("--all", "-a", "everything", is_flag=True, help="All jobs of all people.")
@click.option(
    "--state", type=click.Choice([str(s) for s in JobState]), help="Only jobs in this state."
)
@click.option("--limit", type=click.IntRange(min=1), default=100, show_default=True)
@json_option
def list_(everything: bool, state: str | None, limit: int, as_json: bool) -> None:
    """List jobs: yours that are active, or all.

    \b
      ftq list
      ftq list -a --state failed --json
    """  # noqa: D301
    from ftq_client.client import Client
    from ftq_client.view.tables import jobs_table

    client = Client()
    found = client.list_jobs(mine=not everything, active=not everything, state=state, limit=limit)
    rows = [record.to_row() for record in found]
    if as_json:
        for row in rows:
            print_json(row)
        return
    click.echo(jobs_table(rows, tty=sys.stdout.isatty()))


@click.command(short_help="Show one job in full.")
@click.argument("job", required=False)
@json_option
def show(job: str | None, as_json: bool) -> None:
    """Show one job in full: state, spec, host, error, result.

    JOB may be the beginning of an id; without one it is your newest job.
    """
    import json

    from ftq_client.client import Client
    from ftq_client.view.tables import show_block

    client = Client()
    record = client.get(client.find(job))
    row = record.to_row() | {"spec": json.loads(record.spec_json)}
    if position := client.store.queue_position(record.id):
        row["queue_position"] = position
    if as_json:
        print_json(row)
    else:
        click.echo(show_block(row, tty=sys.stdout.isatty()))


@click.command(short_help="Cancel jobs.")
@click.argument("jobs", nargs=-1, required=True, metavar="JOB...")
def cancel(jobs: tuple[str, ...]) -> None:
    """Cancel jobs. A running one saves a checkpoint and ends; `ftq retry` goes on from there."""
    from ftq_client.client import Client

    client = Client()
    for job in [client.find(name) for name in jobs]:
        state = client.cancel(job)
        if state is JobState.CANCELLED:
            print_note(f"{job} is cancelled")
        elif state.terminal:
            print_note(f"{job} had {state} already")
        else:
            print_note(f"{job} is being cancelled; watch it end: ftq tail {job}")


@click.command(short_help="Start a failed or cancelled job again, where it ended.")
@click.argument("job")
@click.option(
    "--from", "phase", type=click.Choice([str(p) for p in Phase]), help="Start at this phase."
)
@click.option("--set", "sets", multiple=True, metavar="KEY=VALUE", help="Make a child job instead.")
@click.option("--token-stdin", is_flag=True, help="Read the Hub token from standard input.")
@click.option("--detach", "-d", is_flag=True, help="Do not follow the job.")
@json_option
def retry(
    job: str,
    phase: str | None,
    sets: tuple[str, ...],
    token_stdin: bool,
    detach: bool,
    as_json: bool,
) -> int:
    """Start a failed or cancelled job again, from its last checkpoint or phase.

    --from PHASE starts at that phase from its beginning; checkpoints of before are left alone.
    With --set a new job is made from the old one's spec.
    """
    from ftq_client.client import Client
    from ftq_client.follow import Following, follow
    from ftq_client.submit.build_spec import collect_secrets, read_raw
    from ftq_shared.spec_input import parse_spec

    client = Client()
    found = client.find(job)
    spec = parse_spec(read_raw(client, None, found, {}, sets))
    record = client.get(found)
    on_hub = not sets and any(file.hub for file in record.inputs)
    secrets = collect_secrets(spec, (), None, from_stdin=token_stdin, via_hub=on_hub)
    after = record.seq
    if sets:
        found, after = client.submit(spec, secrets=secrets), 0
    else:
        client.retry(found, phase=Phase(phase) if phase else None, secrets=secrets)
    if detach:
        print_json({"job": found}) if as_json else click.echo(found)
        return Exit.OK
    return follow(client, Following([found], as_json=as_json, after=after))


@click.command(short_help="Wait until jobs have ended.")
@click.argument("jobs", nargs=-1, required=True, metavar="JOB...")
@timeout_option("Give up after 90s, 10m, 2h ... with exit code 124.")
def wait(jobs: tuple[str, ...], timeout_s: float | None) -> int:
    """Wait until jobs have ended; the exit code is that of the worst."""
    from ftq_client.client import Client

    client = Client()
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    codes = []
    for job in [client.find(name) for name in jobs]:
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        try:
            record = client.wait(job, timeout_s=left)
        except TimeoutError as error:
            print_note(f"ftq: {error}")
            return Exit.TIMEOUT
        print_note(f"{job} {record.state}")
        codes.append(record.exit_code)
    return max(codes)
