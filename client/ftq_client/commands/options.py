"""What commands share in reading their arguments."""

from collections.abc import Callable
from typing import Any

import click

from ftq_shared.duration import parse_duration

json_option: Callable[[Any], Any] = click.option(
    "--json", "as_json", is_flag=True, help="Print JSON, one object a line, and nothing else."
)
dataset_option: Callable[[Any], Any] = click.option(
    "--dataset", metavar="ID", help="Hub id[:config], file, folder, glob."
)
task_option: Callable[[Any], Any] = click.option(
    "--task",
    type=click.Choice(["auto", "sft", "classification", "preference", "text"]),
    help="What kind of fine-tune; by default from the columns.",
)


def model_option(text: str) -> Callable[[Any], Any]:
    """Return the option `--model`."""
    return click.option("--model", metavar="ID", help=text)


def seconds(ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    """Read a duration such as 90s, 10m or 2h: the callback of an option."""
    try:
        return None if value is None else float(parse_duration(value))
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def timeout_option(text: str) -> Callable[[Any], Any]:
    """Return the option `--timeout`; the command gets `timeout_s`, None for no limit."""
    return click.option("--timeout", "timeout_s", callback=seconds, metavar="T", help=text)
