"""What commands share in printing."""

import json
import sys
from collections.abc import Mapping

import click


def print_json(data: Mapping[str, object]) -> None:
    """Print one object on one line of stdout, at once."""
    click.echo(json.dumps(data, ensure_ascii=False, separators=(",", ":")))


def print_note(text: str) -> None:
    """Print words for people to stderr."""
    click.echo(text, err=True)


def on_terminal() -> bool:
    """Return whether a person is at both ends."""
    return sys.stdin.isatty() and sys.stdout.isatty()
