"""Every `ftq <command>` that the code tells people to use is there, with the options it names."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from tests.support.pages import ROOT, name

from ftq_client.cli import COMMANDS, cli

_CALL = re.compile(r"\bftq ([a-z]+)([^`\n,;|&()]*)")
_OPTION = re.compile(r"(?<!\S)--?[a-z][\w-]*")
# What follows where ftq is the subject of a sentence.
_VERBS = {
    "and", "asks", "at", "did", "does", "is", "keeps", "loads", "makes", "may", "never", "or",
    "owns", "raises", "reads", "reports", "sets",
}  # fmt: skip


def product_files() -> list[Path]:
    found = [
        path for part in ("client", "shared", "worker") for path in (ROOT / part).rglob("*.py")
    ]
    return sorted(path for path in found if "ftq_hub" not in path.parts)


def literals(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield line and text of every string; a placeholder of an f-string becomes X."""
    inside: set[ast.AST] = set()
    for node in ast.walk(tree):  # an f-string comes before its parts
        if isinstance(node, ast.JoinedStr):
            parts = [v.value if isinstance(v, ast.Constant) else "X" for v in node.values]
            inside.update(node.values)
            yield node.lineno, "".join(map(str, parts))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in inside:
            yield node.lineno, node.value


def why_not(command: str, rest: str) -> str:
    """Return what is wrong with a command as it is named, '' for nothing."""
    if command in _VERBS:
        return ""
    if command not in COMMANDS:
        return f"there is no command `ftq {command}`"
    found = cli.get_command(click.Context(cli), command)
    assert found is not None
    known = {o for p in [*found.params, *cli.params] for o in (*p.opts, *p.secondary_opts)}
    missing = [option for option in _OPTION.findall(rest) if option not in known | {"--help"}]
    return f"`ftq {command}` has no {', '.join(missing)}" if missing else ""


@pytest.mark.parametrize("path", product_files(), ids=name)
def test_commands_that_are_named_are_there(path: Path) -> None:
    tree = ast.parse(path.read_text())
    wrong = [
        f"line {line}: {why}"
        for line, text in literals(tree)
        for command, rest in _CALL.findall(text)
        if (why := why_not(command, rest))
    ]
    assert not wrong


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ('hint = f"`ftq clear {job}` clears old jobs"', False),
        ('hint = "ftq worker --nmae NAME"', False),
        ('hint = f"give another name: ftq worker --name {name}"', True),
        ('hint = "ftq tail" " JOB --from 3"', False),
    ],
)
def test_the_test_finds_what_is_not_there(text: str, right: bool) -> None:
    ((_, found),) = literals(ast.parse(text))
    ((command, rest),) = _CALL.findall(found)
    assert (why_not(command, rest) == "") is right
