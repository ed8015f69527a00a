"""What `ftq demo` prints: headings, the commands it runs, and what it waits for."""

import contextlib
import shlex
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence

import click


def out(text: str = "") -> None:
    """Print a line of the demo, before a command's own output may come."""
    click.echo(text)
    sys.stdout.flush()


def section(name: str, text: str) -> None:
    """Print a heading."""
    out()
    out(f"{click.style(f'== {name}', fg='cyan', bold=True)}: {text}")


def command(words: Sequence[str]) -> None:
    """Show a command as a person would type it, folded between its options where it is long."""
    width = min(shutil.get_terminal_size().columns, 100) - 2  # room for the backslash
    lines = ["$"]
    for part in _with_values(words):
        if len(lines[-1]) + 1 + len(part) > width:
            lines.append("     ")
        lines[-1] += f" {part}"
    out(click.style(" \\\n".join(lines), bold=True))


def _with_values(words: Sequence[str]) -> list[str]:
    """Return a command's parts, an option together with its value."""
    parts: list[str] = []
    for word in words:
        if parts and parts[-1].startswith("--") and not word.startswith("--"):
            parts[-1] += f" {shlex.quote(word)}"
        else:
            parts.append(shlex.quote(word))
    return parts


@contextlib.contextmanager
def progress(text: str) -> Iterator[Callable[[], None]]:
    """Show a line with the seconds so far while the block runs; call what it yields to update."""
    started = time.monotonic()
    live = sys.stdout.isatty()
    if not live:
        out(f"  {text} ...")

    def tick() -> None:
        if live:
            passed = round(time.monotonic() - started)
            click.echo(f"\r\x1b[K  {text} ... {f'{passed} s' if passed else ''}", nl=False)

    tick()
    try:
        yield tick
    finally:
        if live:
            click.echo("\r\x1b[K", nl=False)
