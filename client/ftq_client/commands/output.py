"""What commands share in printing. Text of others cannot steer a terminal by it."""

import json
import shutil
import sys
from collections.abc import Mapping

import click

from ftq_shared.redaction import escape_control, escape_json


def print_json(data: Mapping[str, object]) -> None:
    """Print one object on one line of stdout, at once."""
    click.echo(escape_json(json.dumps(data, ensure_ascii=False, separators=(",", ":"))))


def print_text(text: str) -> None:
    """Print what the command was asked for, to stdout."""
    click.echo(escape_control(text))


def print_note(text: str) -> None:
    """Print words for people to stderr."""
    click.echo(escape_control(text), err=True)


def table_width() -> int | None:
    """Return the terminal's columns, None where stdout is none and nothing is cut."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def on_terminal() -> bool:
    """Return whether a person is at both ends."""
    return sys.stdin.isatty() and sys.stdout.isatty()
