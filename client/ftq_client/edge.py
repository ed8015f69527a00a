"""The edge of the process: its streams and arguments, and every error as words and an exit code."""

import contextlib
import io
import os
import sys
from collections.abc import Sequence
from typing import NoReturn, TextIO

import click

from ftq_shared.errors import Exit, FtqError, Unexpected, UsageError

_LONGEST = 2000  # characters of somebody else's message


def open_streams() -> None:
    """Make the standard streams usable: a closed one is /dev/null, and none fails on a character.

    A file or socket that is opened later would otherwise get the number of a closed stream.
    """
    closed = [name for name in ("stdin", "stdout", "stderr") if getattr(sys, name) is None]
    for name in closed:
        number = os.open(os.devnull, os.O_RDWR)  # the lowest that is free: that of the stream
        setattr(sys, name, open(number, "r" if name == "stdin" else "w"))  # noqa: SIM115
    if "stdout" in closed:
        click.echo("ftq: standard output is closed; what belongs there is lost", err=True)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def check_arguments(arguments: Sequence[str]) -> None:
    """Raise UsageError for an argument that is no text in this locale."""
    for argument in arguments:
        try:
            argument.encode()
        except UnicodeEncodeError:
            encoding = sys.getfilesystemencoding()
            utf8 = encoding.lower() in ("utf-8", "utf8")
            raise UsageError(
                f"an argument is no text in {encoding}: {argument.encode(errors='replace')!r}",
                code="bad_argument",
                hint="" if utf8 else "set a locale that has it: LC_ALL=C.UTF-8",
            ) from None


def flush() -> None:
    """Write out what is buffered, while an error can still be told."""
    sys.stdout.flush()
    sys.stderr.flush()


def is_reader_gone(error: BaseException, stdout: TextIO) -> bool:
    """Return whether an error is that of `ftq list | head`: the reader has enough.

    click answers it with SystemExit(1), which here would mean that the job failed, and with
    another sys.stdout than `stdout`, that of before.
    """
    swapped = isinstance(error, SystemExit) and sys.stdout is not stdout
    return swapped or isinstance(error, BrokenPipeError)


def leave(code: int) -> NoReturn:
    """End the process without another try to write to a stream that has failed."""
    try:
        flush()
    except OSError:
        null = os.open(os.devnull, os.O_WRONLY)
        for number in (1, 2):
            with contextlib.suppress(OSError):
                os.dup2(null, number)
    sys.exit(code)


def show_end(error: BaseException) -> int:
    """Tell people what ended the command; return its exit code."""
    with contextlib.suppress(OSError):  # nobody reads stderr
        if isinstance(error, click.Abort | KeyboardInterrupt):
            click.echo("", err=True)
        elif isinstance(error, click.ClickException):
            _show_click(error)
        elif isinstance(error, Exception):
            show_error(as_ftq_error(error))
    if isinstance(error, click.Abort | KeyboardInterrupt):
        return Exit.INTERRUPTED
    if isinstance(error, click.ClickException):
        return Exit.USAGE
    return as_ftq_error(error).exit_code


def as_ftq_error(error: BaseException) -> FtqError:
    """Return any error as one of ours, with what was found and what to do."""
    if isinstance(error, FtqError):
        return error
    text = " ".join(str(error).split())[:_LONGEST]
    if isinstance(error, ImportError) and "socks" in text.lower():
        return UsageError(
            "the proxy that ALL_PROXY names speaks SOCKS, which this installation cannot",
            code="no_socks",
            hint="pip install socksio, or unset ALL_PROXY (and all_proxy)",
        )
    if isinstance(error, OSError) and error.strerror:
        return _of_system(error)
    return Unexpected(
        f"unexpected {type(error).__name__}: {text}",
        hint="this is a bug in ftq or in a library it uses; the same with `ftq --debug` in front"
        " of the command shows where",
    )


def _of_system(error: OSError) -> FtqError:
    try:
        os.getcwd()
    except OSError:
        return UsageError(
            "the working directory is gone",
            code="no_directory",
            hint="cd to a folder that is there, and run the command again",
        )
    name = f"{error.filename}: " if error.filename else "cannot read or write: "
    return Unexpected(f"{name}{error.strerror}", code="system")


def show_error(error: FtqError) -> None:
    """Print what was found and what to do, to people."""
    from ftq_shared.redaction import Redactor, escape_control

    def told(text: str) -> str:
        return escape_control(Redactor().text(text))

    click.echo(f"ftq: {told(error.message)}", err=True)
    if nearest := error.where.get("nearest"):
        click.echo(f"  near: {told(', '.join(map(str, nearest)))}", err=True)
    if error.hint:
        click.echo(f"  {told(error.hint)}", err=True)


def _show_click(error: click.ClickException) -> None:
    """Print click's own words; what was typed is in them."""
    from ftq_client.submit.spec_options import instead_of
    from ftq_shared.redaction import escape_control

    if isinstance(error, click.UsageError) and (answer := instead_of(error, sys.argv[1:])):
        error = click.UsageError(answer, error.ctx)
    text = io.StringIO()
    error.show(text)
    click.echo(escape_control(text.getvalue()), err=True, nl=False)
