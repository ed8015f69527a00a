"""`ftq replay`: a recorded step is trained again, and its rows are shown."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ftq_client.commands.output import print_json, print_note
from ftq_shared.errors import Exit, UsageError

if TYPE_CHECKING:
    from ftq_client.client import Client
    from ftq_shared.job_record import JobRecord


@click.command(short_help="Train a recorded step again, and show its rows.")
@click.argument("job")
@click.option("--step", type=click.IntRange(min=1), metavar="N", help="The step, from 1.")
@click.option(
    "--rows-out",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write the rows, one a line, for --without-rows of `ftq retry`.",
)
@click.option("--token-stdin", is_flag=True, help="Read the Hub token from standard input.")
@click.option("--detach", "-d", is_flag=True, help="Do not follow the replay.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, and nothing else.")
def replay(
    job: str,
    step: int | None,
    rows_out: Path | None,
    token_stdin: bool,
    detach: bool,
    as_json: bool,
) -> int:
    """Train a step of a job that has ended once more, and show the rows that it was trained on.

    It begins with the newest checkpoint before the step, on a worker that has the job's files, and
    repeats the step as it was: the same rows, settings and random numbers. Shown are the rows, each
    with its own loss and gradient norm, and whether the step has the numbers that were recorded.
    The job is left as it is. Ctrl-C ends the replay.

    The replay has an id of its own: given as JOB, it shows again what it has found.

    \b
      ftq replay ft-7k3q2xhd --step 812
      ftq replay ft-7k3q2xhd --step 812 --rows-out spike.jsonl
      ftq retry ft-7k3q2xhd --without-rows spike.jsonl
    """  # noqa: D301
    from ftq_client.client import Client
    from ftq_client.row_file import check_new
    from ftq_client.terminal_signals import interrupt_held

    if rows_out and detach:
        raise UsageError(
            "--rows-out needs the end of the replay, and --detach does not wait for it",
            code="usage",
            hint="`ftq replay JOB --rows-out FILE`, with the replay's id, writes what it found",
        )
    if rows_out:
        check_new(rows_out)  # before anything is trained
    client = Client()
    record = client.get(client.find(job))
    known = record.replay
    new = None if known and step == known.step else step  # None: what that one found is shown
    if new is None and not known:
        raise UsageError("which step? --step is missing", hint=f"ftq replay {record.id} --step N")
    mine = "" if new else record.id
    secrets = _secrets(client, record, new, from_stdin=token_stdin) if new else {}
    try:
        if new:
            with interrupt_held():
                mine = client.replay(record.id, new, secrets=secrets)
                print_note(f"{mine} replays step {new} of {record.id}")
        if detach:
            print_json({"replay": mine}) if as_json else click.echo(mine)
            return Exit.OK
        return _in_json(client, mine, rows_out) if as_json else _in_words(client, mine, rows_out)
    except KeyboardInterrupt:
        if mine and not client.get(mine).state.terminal:  # nobody else waits for what it finds
            client.cancel(mine)
            click.echo(f"\n{mine} is cancelled", err=True)
        return Exit.INTERRUPTED


def _secrets(
    client: "Client", record: "JobRecord", step: int, *, from_stdin: bool
) -> dict[str, str]:
    """Return what a new replay needs; raises UsageError where the step cannot be replayed."""
    from ftq_client.submit.build_spec import collect_secrets

    client.check_replay(record.id, step)  # before a token is looked for
    return collect_secrets(record.spec, (), None, from_stdin=from_stdin)


def _in_words(client: "Client", mine: str, rows_out: Path | None) -> int:
    from ftq_client.follow import Following, follow
    from ftq_client.replaying import ReplayResult

    code = follow(client, Following([mine], may_leave=False))
    if rows_out and code == Exit.OK:
        result = ReplayResult.of(client.tail(mine, follow=False))
        _write(result.step.get("job"), result.rows, rows_out)
    return code


def _in_json(client: "Client", mine: str, rows_out: Path | None) -> int:
    """Print what a replay has found as one object; nothing is shown on the way."""
    from ftq_client.replaying import ReplayResult

    result = ReplayResult()
    for event in client.tail(mine):
        result.add(event)
    record = client.get(mine)
    wanted = record.replay
    assert wanted
    told = {"job": wanted.job, "step": wanted.step, "replay": mine, "state": str(record.state)}
    error = {"error": record.error.to_json()} if record.error else {}
    print_json(told | result.step | {"rows": result.rows} | error)
    if rows_out and record.exit_code == Exit.OK:
        _write(wanted.job, result.rows, rows_out)
    return record.exit_code


def _write(job: object, rows: list[dict[str, object]], path: Path) -> None:
    import shlex

    from ftq_client.row_file import write_rows

    if not all("file" in row for row in rows):
        raise UsageError(
            f"nothing is written: the rows of {job} have no names",
            code="rows_unnamed",
            hint=f"`ftq retry {job} --from prepare` prepares the job again and names them",
        )
    write_rows(path, str(job), rows)
    count = "1 row" if len(rows) == 1 else f"{len(rows)} rows"
    print_note(f"written: {path}, {count}; delete the lines of those that stay, then")
    print_note(f"  ftq retry {job} --without-rows {shlex.quote(str(path))}")
