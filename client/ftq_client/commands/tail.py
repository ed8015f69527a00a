"""`ftq tail`: every event of a job, from any machine, at any time."""

import click

from ftq_client.commands.options import json_option, seconds


@click.command(short_help="Show a job's events, live, from any machine.")
@click.argument("jobs", nargs=-1, metavar="[JOB]...")
@click.option("--after", type=click.IntRange(min=0), default=0, help="Leave out events up to SEQ.")
@click.option("--since", callback=seconds, metavar="10m", help="Leave out what is older.")
@click.option("--no-follow", is_flag=True, help="Stop at what is there now.")
@json_option
def tail(
    jobs: tuple[str, ...], after: int, since: float | None, no_follow: bool, as_json: bool
) -> int:
    """Show a job's events, live, from any machine.

    JOB may be the beginning of an id; without one it is your newest job. All that has happened
    is shown first, then what happens. It ends when the job ends, with the job's exit code.

    \b
      ftq tail
      ftq tail ft-7k3 --since 10m
      ftq tail ft-7k3 --json | jq 'select(.type == "step") | .data.loss'
    """  # noqa: D301
    from ftq_client.client import Client
    from ftq_client.follow import Following, follow

    client = Client()
    found = [client.find(job) for job in jobs] or [client.find()]
    return follow(
        client,
        Following(found, as_json=as_json, after=after, since_s=since, follow=not no_follow),
    )
