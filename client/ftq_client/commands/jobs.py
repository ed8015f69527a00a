"""`ftq list`, `show`, `cancel`, `retry` and `wait`."""

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ftq_client.commands.options import json_option, timeout_option
from ftq_client.commands.output import print_json, print_note, table_width
from ftq_shared.errors import Exit, UsageError
from ftq_shared.states import JobState, Phase

if TYPE_CHECKING:
    from ftq_client.client import Client


@click.command("list", short_help="List jobs: yours that are active, or all.")
@click.option("--all", "-a", "everything", is_flag=True, help="Of all people, ended ones too.")
@click.option("--ended", is_flag=True, help="Those that have ended: yours, with -a of all.")
@click.option(
    "--state", type=click.Choice([str(s) for s in JobState]), help="Only jobs in this state."
)
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    default=100,
    show_default=True,
    help="At most so many, the newest.",
)
@click.option("--quiet", "-q", is_flag=True, help="Print ids only, one a line.")
@json_option
def list_(
    everything: bool, ended: bool, state: str | None, limit: int, quiet: bool, as_json: bool
) -> None:
    """List jobs: yours that are active, or all.

    \b
      ftq list
      ftq list --ended
      ftq list -a --state failed --json
      ftq list -q | xargs ftq cancel
    """  # noqa: D301
    from ftq_client.client import Client
    from ftq_client.view.tables import jobs_table

    client = Client()
    found = client.list_jobs(
        mine=not everything, active=not everything, ended=ended, state=state, limit=limit
    )
    rows = [record.to_row() for record in found]
    if as_json:
        for row in rows:
            print_json(row)
        return
    if quiet:
        for row in rows:
            click.echo(row["id"])
        return
    if not rows:
        print_note(_nothing(client, everything, ended, state))
        return
    table = jobs_table(rows, tty=sys.stdout.isatty(), width=table_width(), owners=everything)
    click.echo(table)


def _nothing(client: "Client", everything: bool, ended: bool, state: str | None) -> str:
    """Say what there is instead of the jobs that were asked for."""
    from ftq_client.view.format import counted

    name = client.identity.me.name
    what = f"{state} jobs" if state else "jobs that have ended" if ended else "active jobs"
    if everything:
        return f"no {what}" if state or ended else "no jobs"
    most = 100
    mine = len(client.list_jobs(active=False, limit=most))
    if mine and not (ended or state):
        more = "or more " if mine == most else ""
        return f"no active jobs of {name}; {counted(mine, 'job')} {more}ended: ftq list --ended"
    if mine:
        return f"no {what} of {name}; `ftq list` shows those that are active"
    others = client.list_jobs(mine=False, active=False, limit=1)
    return f"no jobs of {name}" + ("; `ftq list -a` shows those of everybody" if others else "")


@click.command(short_help="Show one job in full.")
@click.argument("job", required=False)
@json_option
def show(job: str | None, as_json: bool) -> None:
    """Show one job in full: state, host, spec, what was resolved, scores, error.

    JOB may be the beginning of an id; without one it is your newest job. Of the spec, those fields
    are shown that differ from their default.

    \b
      ftq show
      ftq show ft-7k3
      ftq show ft-7k3 --json
    """  # noqa: D301
    import json

    from ftq_client.client import Client
    from ftq_client.submit.spec_reference import changed_fields
    from ftq_client.view.model import view_of
    from ftq_client.view.show import result_json, show_rows
    from ftq_client.view.tables import show_block

    client = Client()
    record = client.get(client.find(job))
    row = {**record.to_row(), "spec": json.loads(record.spec_json)}
    if position := client.store.queue_position(record.id):
        row["queue_position"] = position
    view = view_of(record.id, record.name, client.tail(record.id, follow=False))
    if as_json:
        print_json(row | result_json(view))
        return
    rows = show_rows(row, view, changed_fields(row["spec"]))
    click.echo(show_block(rows, tty=sys.stdout.isatty(), width=table_width()))


@click.command(short_help="Cancel jobs.")
@click.argument("jobs", nargs=-1, required=True, metavar="JOB...")
def cancel(jobs: tuple[str, ...]) -> None:
    """Cancel jobs. A running one ends within seconds; `ftq retry` goes on from its checkpoint.

    It saves one first, if its step ends within 3 s.

    JOB is a whole id, or the name of an active job of yours.

    \b
      ftq cancel ft-7k3q2xhd
      ftq list -q | xargs ftq cancel
    """  # noqa: D301
    from ftq_client.client import Client

    client = Client()
    for job in [client.find_whole(name) for name in jobs]:
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
@click.option(
    "--set",
    "sets",
    multiple=True,
    metavar="KEY=VALUE",
    help="Make a new job from this one's spec instead: train.learning_rate=1e-4.",
)
@click.option(
    "--without-rows",
    "rows_file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Leave these rows out of training from here on.",
)
@click.option("--token-stdin", is_flag=True, help="Read the Hub token from standard input.")
@click.option("--detach", "-d", is_flag=True, help="Do not follow the job.")
@json_option
def retry(
    job: str,
    phase: str | None,
    sets: tuple[str, ...],
    rows_file: Path | None,
    token_stdin: bool,
    detach: bool,
    as_json: bool,
) -> int:
    """Start a failed or cancelled job again, from its last checkpoint or phase.

    --from PHASE starts at that phase from its beginning; checkpoints of before are left alone.
    With --set a new job is made from the old one's spec.

    --without-rows names rows that are left out of training from the step on where it goes on: all
    others keep their step. FILE is what `ftq replay --rows-out` writes, less the lines of rows that
    stay. A job that failed as its loss diverged goes on from a checkpoint before that.

    \b
      ftq retry ft-7k3q2xhd
      ftq retry ft-7k3q2xhd --from prepare
      ftq retry ft-7k3q2xhd --without-rows spike.jsonl
      ftq retry ft-7k3q2xhd --set train.learning_rate=1e-4
    """  # noqa: D301
    from ftq_client.client import Client
    from ftq_client.follow import Following, follow
    from ftq_client.row_file import read_rows
    from ftq_client.submit.build_spec import (
        collect_secrets,
        read_raw,
        refuse_without_token,
    )
    from ftq_shared.spec_input import parse_spec

    read_raw(None, {}, sets)  # first what can be judged without a network
    if sets and rows_file:
        raise UsageError(
            "--set makes a new job, and --without-rows goes on with this one",
            code="usage",
            hint="leave one of them out",
        )
    client = Client()
    found = client.find(job)
    rows = read_rows(rows_file, found) if rows_file else []
    spec = parse_spec(read_raw(None, {}, sets, client.raw_spec(found)))
    record = client.get(found)
    on_hub = not sets and any(file.hub for file in record.inputs)
    secrets = collect_secrets(spec, (), None, from_stdin=token_stdin, via_hub=on_hub)
    refuse_without_token(spec, secrets, client.settings.hf_endpoint)
    after = record.seq
    if sets:
        found, after = client.submit(spec, secrets=secrets), 0
    else:
        start = Phase(phase) if phase else None
        client.retry(found, phase=start, secrets=secrets, without_rows=rows)
    if detach:
        print_json({"job": found}) if as_json else click.echo(found)
        return Exit.OK
    return follow(client, Following([found], as_json=as_json, after=after))


@click.command(short_help="Wait until jobs have ended.")
@click.argument("jobs", nargs=-1, metavar="[JOB]...")
@timeout_option("Give up after 90s, 10m, 2h ... with exit code 124.")
def wait(jobs: tuple[str, ...], timeout_s: float | None) -> int:
    """Wait until jobs have ended; the exit code is that of the worst.

    JOB may be the beginning of an id; without one it is your newest job.

    \b
      ftq wait && ftq fetch
      ftq wait ft-7k3q2xhd --timeout 2h
    """  # noqa: D301
    from ftq_client.client import Client

    client = Client()
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    codes = []
    for job in [client.find(name) for name in jobs] or [client.find()]:
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        try:
            record = client.wait(job, timeout_s=left)
        except TimeoutError as error:
            print_note(f"ftq: {error}")
            return Exit.TIMEOUT
        print_note(f"{job} {record.state}")
        codes.append(record.exit_code)
    return max(codes)
