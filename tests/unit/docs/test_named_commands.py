"""Every `ftq <command>` that the code tells people to use is there, with the options it names."""

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from tests.support.pages import ROOT, name, why_wrong

from ftq_client.cli import COMMANDS, cli
from ftq_client.view.next_commands import with_job

JOB = "ft-abcdefgh"

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


# A command to be copied: in back-ticks, or behind a colon up to the next sign of a sentence.
_COPIED = re.compile(r"`(ftq [^`]+)`|: (ftq [a-z]+(?: (?!stop:)[^\s;,()|`]+)*)")
# Words that stand for what a person has.
_PLACEHOLDERS = {
    "NAME": "name",
    "SEQ": "1",
    "N": "3",
    "PHASE": "train",
    "SPEC": "job.yaml",
    "T": "90s",
}


def copied(text: str) -> Iterator[str]:
    """Yield the commands of a text as a person would paste them, with a job of theirs."""
    text = text.replace("--from X", "--from PHASE").replace("--step X", "--step N")
    whole = with_job(re.sub(r"\b(JOB|X)\b", JOB, text), JOB)
    for quoted, after_colon in _COPIED.findall(whole):
        command = (quoted or after_colon).rstrip(".").replace("\n", " ")
        yield " ".join(_PLACEHOLDERS.get(word, word) for word in command.split())


def hints() -> Iterator[tuple[str, str]]:
    """Yield file and text of all that people are told, Lua included."""
    for path in product_files():
        tree = ast.parse(path.read_text())
        notes = {ast.get_docstring(node, clean=False) for node in ast.walk(tree)
                 if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)}  # fmt: skip
        yield from ((name(path), text) for _, text in literals(tree) if text not in notes)
    for path in sorted((ROOT / "shared").rglob("*.lua")):
        text = re.sub(r"' \.\. id \.\. '", JOB, path.read_text())
        yield from ((name(path), line) for line in text.splitlines() if not line.startswith("--"))


def test_every_command_that_is_printed_can_be_pasted() -> None:
    seen, wrong = set(), []
    for place, text in hints():
        for command in copied(text):
            seen.add(command.split()[1])
            try:
                words = shlex.split(command)[1:]
            except ValueError as error:
                wrong.append((place, command, str(error)))
                continue
            # `ftq COMMAND` in a sentence about the commands themselves
            if words[0] in COMMANDS and (why := why_wrong(words)):
                wrong.append((place, command, why))
    assert not wrong
    assert {"submit", "tail", "retry", "up", "down", "worker", "keygen", "list"} <= seen


def test_the_judge_of_pasted_commands_sees_what_is_wrong() -> None:
    assert list(copied("start one: ftq worker, or `ftq up` here")) == ["ftq worker", "ftq up"]
    assert list(copied("`ftq retry JOB` goes on")) == [f"ftq retry {JOB}"]
    assert list(copied("Back: ftq tail X   stop: ftq cancel X")) == [
        f"ftq tail {JOB}",
        f"ftq cancel {JOB}",
    ]
    assert why_wrong(shlex.split(next(copied("`ftq cancel --now`")))[1:])
