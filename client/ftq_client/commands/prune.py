"""`ftq prune`: what is left of ended jobs goes from the fleet's disks."""

import sys

import click

from ftq_client.commands.options import json_option, seconds
from ftq_client.commands.output import on_terminal, print_json, print_note, print_text
from ftq_shared.errors import Exit, UsageError


@click.command(short_help="Remove what is left of ended jobs from the fleet's disks.")
@click.argument("jobs", nargs=-1, metavar="[JOB...]")
@click.option(
    "--older-than",
    "older_than_s",
    default="1d",
    show_default=True,
    metavar="T",
    callback=seconds,
    help="Only of jobs that ended so long ago: 0s, 12h, 30d.",
)
@click.option("--models", is_flag=True, help="Also the models of jobs that succeeded.")
@click.option("--all", "-a", "everybody", is_flag=True, help="Of all people, not only yours.")
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@json_option
def prune(
    jobs: tuple[str, ...],
    older_than_s: float,
    models: bool,
    everybody: bool,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> int:
    """Remove what is left of ended jobs from the disks of the workers that are online.

    Of a job that succeeded these are its inputs, prepared data and checkpoints; its model stays
    unless --models is given. Of one that failed or was cancelled everything goes: `ftq retry` then
    starts it over. Workers do the same by themselves, later.

    \b
      ftq prune --dry-run
      ftq prune --older-than 7d --yes
      ftq prune ft-abc23456 --older-than 0s
    """  # noqa: D301
    from ftq_client.client import Client
    from ftq_client.pruning import Wanted, ask_workers, why_nothing
    from ftq_client.view.format import amount, counted

    client = Client()
    only = [client.find(name) for name in jobs] if jobs else None
    if not jobs and not everybody:
        only = [record.id for record in client.list_jobs(active=False, limit=sys.maxsize)]
    wanted = Wanted(older_than_s, models, only)
    found = ask_workers(client, wanted, dry_run=True)
    if not dry_run and found:
        total = amount(sum(one["bytes"] for one in found), "bytes")
        words = f"{total} of {counted(len({one['job'] for one in found}), 'job')}"
        if not yes and not on_terminal():
            raise UsageError(
                f"{words} would be removed",
                code="not_confirmed",
                hint="add --yes to remove them, or --dry-run to see them",
            )
        if not yes and not click.confirm(f"Remove {words}?", err=True):
            return Exit.OK
        found = ask_workers(client, wanted, dry_run=False)
    for one in found:
        if as_json:
            print_json(one)
        else:
            size = amount(one["bytes"], "bytes")
            print_text(f"{one['job']}  {size:>9}  {one['part']}, {one['why']}")
    for job in sorted({client.find(name) for name in jobs} - {one["job"] for one in found}):
        print_note(f"{job}: nothing to remove: {why_nothing(client.get(job), wanted)}")
    gone = [one for one in found if dry_run or one["removed"]]
    if not as_json and (found or not jobs):
        total = amount(sum(one["bytes"] for one in gone), "bytes")
        what = "would go" if dry_run else "removed"
        print_note(f"{total} {what}" if found else "nothing to remove")
    return Exit.OK if len(gone) == len(found) else Exit.FAILED
