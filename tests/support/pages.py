"""The documents as the tests read them: pages, fences, anchors, commands."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click

from ftq_client.cli import cli

ROOT = Path(__file__).resolve().parents[2]
_FENCE = re.compile(r"^( *)```(\w*)[^\n]*\n(.*?)^\1```", re.DOTALL | re.MULTILINE)
# What stands before a command on its line: assignments, and words such as export or sudo.
_BEFORE = re.compile(r"^(?:export|sudo|exec|[A-Za-z_]\w*=.*)$")
# What click says of a call that only lacks something.
_INCOMPLETE = re.compile(r"^Missing |requires an argument")
_STOPS = {"|", "||", "&&", ";", "<", ">", ">>", "&"}


def pages() -> list[Path]:
    """Return every document."""
    return [ROOT / n for n in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md")] + sorted(
        (ROOT / "docs").rglob("*.md")
    )


def name(path: Path) -> str:
    """Return a document's name for people."""
    return path.relative_to(ROOT).as_posix()


def fences(text: str, *kinds: str) -> list[str]:
    """Return the fenced blocks of these kinds."""
    return [body for _, kind, body in _FENCE.findall(text) if kind in kinds]


def without_fences(text: str) -> str:
    """Return a document without its fenced blocks."""
    return _FENCE.sub("", text)


def section(text: str, heading: str) -> str:
    """Return what stands under a heading, up to the next of its level or above; '' for none."""
    level = len(heading) - len(heading.lstrip("#"))
    found = re.search(
        rf"^{re.escape(heading)}\n(.*?)(?=^#{{1,{level}}} |\Z)", text, re.DOTALL | re.MULTILINE
    )
    return found[1] if found else ""


def anchors(text: str) -> set[str]:
    """Return the anchors that GitHub makes of a document's headings."""
    found: set[str] = set()
    for heading in re.findall(r"^#{1,6} (.+)$", without_fences(text), re.MULTILINE):
        plain = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).lower()
        anchor = re.sub(r"[^\w\- ]", "", plain).strip().replace(" ", "-")
        number = 1
        unique = anchor
        while unique in found:
            unique, number = f"{anchor}-{number}", number + 1
        found.add(unique)
    return found


def links(text: str) -> list[str]:
    """Return the targets of all links of a document."""
    return re.findall(r"\]\(([^)\s]+)\)", without_fences(text))


def block_lines(text: str) -> list[str]:
    """Return the lines of all shell blocks; continued ones are joined."""
    return [
        line for block in fences(text, "sh") for line in block.replace("\\\n", " ").splitlines()
    ]


def inline_lines(text: str) -> list[str]:
    """Return all inline code."""
    return re.findall(r"`([^`\n]+)`", without_fences(text))


def calls(line: str) -> Iterator[list[str]]:
    """Yield the arguments of every call of ftq in a line of shell."""
    try:
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        words = list(lexer)
    except ValueError:  # no shell: an inline word with one quote
        return
    start, current = True, None
    for word in [*words, ";"]:
        if word in _STOPS:
            if current is not None:
                yield current
            start, current = word not in ("<", ">", ">>"), None
        elif current is not None:
            current.append(word)
        elif start and word == "ftq":
            current = []
        elif not _BEFORE.match(word):
            start = False


def why_wrong(arguments: list[str], *, named_only: bool = False) -> str:
    """Return what the real command line has against these arguments, '' for nothing.

    With `named_only` a call need not be complete, and a word in capitals stands for any command.
    """
    try:
        context = cli.make_context("ftq", list(arguments) or ["--help"])
        rest = [*context._protected_args, *context.args]
        if not rest or (named_only and rest[0].isupper()):
            return ""
        command = cli.get_command(context, rest[0])
        if command is None:
            return f"no such command {rest[0]!r}"
        command.make_context(rest[0], rest[1:], parent=context)
    except click.exceptions.Exit:  # --help, --version
        return ""
    except click.ClickException as error:
        text = error.format_message()
        return "" if named_only and _INCOMPLETE.search(text) else text
    return ""
