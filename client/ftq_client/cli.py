"""The `ftq` command: the table of commands, and the one place where errors become messages.

Importing this module costs little more than click: each command's module is imported when the
command is used.
"""

import importlib
import os
import sys
import traceback
from typing import NoReturn

import click

from ftq_client import edge
from ftq_shared import __version__
from ftq_shared.errors import Exit

# command -> (module, one line of help); a test holds the lines and the commands together.
COMMANDS = {
    "submit": ("submit", "Submit a fine-tune and follow it."),
    "preview": ("preview", "Show what a job would train on: nothing is submitted."),
    "tail": ("tail", "Show a job's events, live, from any machine."),
    "list": ("jobs", "List jobs: yours that are active, or all."),
    "show": ("jobs", "Show one job in full."),
    "cancel": ("jobs", "Cancel jobs."),
    "retry": ("jobs", "Start a failed or cancelled job again, where it ended."),
    "replay": ("replay", "Train a recorded step again, and show its rows."),
    "wait": ("jobs", "Wait until jobs have ended."),
    "fetch": ("fetch", "Bring a finished job's model here."),
    "spec": ("spec", "Print what a spec may hold, or a file to begin with."),
    "search": ("search", "Search models or datasets on the Hub."),
    "workers": ("fleet", "List the fleet's workers."),
    "worker": ("fleet", "Run a worker on this host."),
    "drain": ("fleet", "Empty a worker: its jobs go on elsewhere."),
    "prune": ("prune", "Remove what is left of ended jobs from the fleet's disks."),
    "keygen": ("fleet", "Make the fleet's key pair."),
    "up": ("local", "Start an embedded broker and a worker on this machine."),
    "down": ("local", "Stop what `ftq up` started."),
    "hub": ("local", "Run a local Hub server."),
    "demo": ("demo", "Run a whole fine-tune here, without any network."),
    "doctor": ("doctor", "Print the effective settings and check that all answers."),
}


# What other tools call it.
ELSEWHERE = {
    "logs": "tail",
    "log": "tail",
    "watch": "tail",
    "follow": "tail",
    "attach": "tail",
    "ps": "list",
    "ls": "list",
    "queue": "list",
    "jobs": "list",
    "status": "show or list",
    "inspect": "show",
    "describe": "show",
    "info": "show",
    "why": "show",
    "stop": "cancel (a job) or down (this machine)",
    "kill": "cancel",
    "rm": "cancel",
    "delete": "cancel",
    "rerun": "retry",
    "resume": "retry",
    "restart": "retry",
    "run": "submit",
    "train": "submit",
    "create": "submit",
    "start": "up",
    "serve": "up or hub",
    "download": "fetch",
    "pull": "fetch",
    "hosts": "workers",
    "nodes": "workers",
    "check": "doctor",
    "schema": "spec",
    "explain": "spec",
}


class LazyGroup(click.Group):
    """A group that imports a command when it is used, and lists all without importing any."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of the table: the common ones first."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"ftq_client.commands.{COMMANDS[cmd_name][0]}")
        command = getattr(module, cmd_name if cmd_name != "list" else "list_")
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Answer a wrong name with the nearest one."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            import difflib

            word = args[0].lower()
            near = ELSEWHERE.get(word) or " or ".join(
                difflib.get_close_matches(word, COMMANDS, n=2)
            )
            if near:
                raise click.UsageError(f"{error.message} Did you mean {near}?", ctx) from None
            raise

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, "--version", message="ftq %(version)s")
@click.option("--debug", is_flag=True, expose_value=False, help="Show tracebacks.")  # see main
def cli() -> None:
    """ftq, the fine-tune queue.

    \b
    Submit a fine-tune from anywhere, watch every step live, end with a verified
    model on the Hub.

    \b
      ftq up -d                       one machine: start a broker and a worker
      ftq submit --model Qwen/Qwen3-0.6B --dataset openai/gsm8k:main \\
                 --publish-to me/qwen-gsm8k
      ftq tail                        watch your newest job, from any machine
    """  # noqa: D301  \b is click's mark for a paragraph that is not rewrapped


def main() -> NoReturn:
    """Run the command; every error becomes a short message and an exit code."""
    debug = "--debug" in sys.argv[1:] or bool(os.environ.get("FTQ_DEBUG"))
    edge.open_streams()
    stdout = sys.stdout
    code: int = Exit.OK
    try:
        edge.check_arguments(sys.argv[1:])
        result = cli.main(prog_name="ftq", standalone_mode=False)
        code = result if isinstance(result, int) else Exit.OK
        edge.flush()
    except BaseException as error:
        if not edge.is_reader_gone(error, stdout):
            if isinstance(error, SystemExit):
                raise
            if debug:
                traceback.print_exc()
            code = edge.show_end(error)
    edge.leave(code)
