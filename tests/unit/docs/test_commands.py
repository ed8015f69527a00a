"""The documents and the command line say the same."""

import re
import shlex
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from tests.support.pages import (
    ROOT,
    block_lines,
    calls,
    inline_lines,
    name,
    pages,
    section,
    why_wrong,
)

from ftq_client.cli import COMMANDS, cli
from ftq_shared.errors import Exit

README = (ROOT / "README.md").read_text()


def command_of(command: str) -> click.Command:
    found = cli.get_command(click.Context(cli), command)
    assert found is not None
    return found


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_has_a_section_with_an_example(command: str) -> None:
    text = section(README, f"### ftq {command}")
    assert text, f"README.md has no section '### ftq {command}'"
    used = [call for line in block_lines(text) + inline_lines(text) for call in calls(line)]
    assert any(call[:1] == [command] for call in used), f"no example of ftq {command}"


@pytest.mark.parametrize("command", COMMANDS)
def test_the_table_of_commands_tells_what_the_command_tells(command: str) -> None:
    assert command_of(command).get_short_help_str(limit=200) == COMMANDS[command][1]
    assert f"| [`ftq {command}`](#ftq-{command}) | {COMMANDS[command][1]} |" in README


def test_the_readme_has_no_section_of_a_command_that_is_gone() -> None:
    assert set(re.findall(r"^### ftq (\w+)$", README, re.MULTILINE)) == set(COMMANDS)


def test_the_help_lists_every_command() -> None:
    result = CliRunner().invoke(cli, ["--help"])
    assert result.exit_code == 0
    listed = re.findall(r"^  (\w+)  +\S", result.output.split("Commands:")[1], re.MULTILINE)
    assert listed == list(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_explains_itself(command: str) -> None:
    """By help, or by its choices or default in the help."""
    silent = [
        option.opts[-1]
        for option in command_of(command).params
        if isinstance(option, click.Option)
        and not (option.help or option.show_default or isinstance(option.type, click.Choice))
    ]
    assert not silent


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_a_command_has_an_example_that_works(command: str) -> None:
    text = command_of(command).help or ""
    examples = [call for line in text.splitlines() for call in calls(line.strip())]
    mine = [call for call in examples if call[:1] == [command]]
    assert mine, f"ftq {command} --help has no example"
    assert not [(call, why) for call in mine if (why := why_wrong(call))]


@pytest.mark.parametrize("page", pages(), ids=name)
def test_commands_in_documents_exist_with_their_options(page: Path) -> None:
    text = page.read_text()
    wrong = [
        (line, why)
        for lines, named_only in ((block_lines(text), False), (inline_lines(text), True))
        for line in lines
        for call in calls(line)
        if (why := why_wrong(call, named_only=named_only))
    ]
    assert not wrong


def test_the_judge_of_commands_sees_what_is_wrong() -> None:
    assert "no such command" in why_wrong(["why", "ft-1"]).lower()
    assert "No such option" in why_wrong(["tail", "--nope"])
    assert "Missing argument" in why_wrong(["cancel"])
    assert not why_wrong(["cancel"], named_only=True)
    assert not why_wrong(["COMMAND", "--help"], named_only=True)
    assert not why_wrong(shlex.split("tail ft-7k3 --since 10m"))
    line = "FTQ_HOME=x ftq list -a | ftq show && echo ftq nothing"
    assert list(calls(line)) == [["list", "-a"], ["show"]]


def test_exit_codes_are_those_of_the_code() -> None:
    rows = re.findall(r"^\| (\d+) \| .+ \|$", section(README, "## Exit codes"), re.MULTILINE)
    assert [int(number) for number in rows] == [int(code) for code in Exit]


def test_exit_codes_in_the_text_are_real() -> None:
    for page in pages():
        for number in re.findall(r"exit(?:s with| code| codes)? (\d+)", page.read_text()):
            # forkserver's own answer is quoted in a decision
            assert number in {str(int(code)) for code in Exit} | {"255"}, f"{name(page)}: {number}"


def test_symptoms_in_troubleshooting_are_messages_of_the_code() -> None:
    source = "\n".join(
        path.read_text()
        for folder in ("client", "shared", "worker")
        for path in sorted([*(ROOT / folder).rglob("*.py"), *(ROOT / folder).rglob("*.lua")])
    )
    # Strings that are split over lines become one; what is filled in becomes the three dots.
    source = re.sub(r'"\s+f?"', "", source)
    table = section(README, "## Troubleshooting")
    symptoms = [row.split("|")[1] for row in table.splitlines() if row.startswith("| ")][1:]
    quoted = [text for symptom in symptoms[1:] for text in re.findall(r"`([^`]+)`", symptom)]
    assert len(quoted) > 15
    missing = [text for text in quoted if not _pattern(text).search(source)]
    assert not missing


def _pattern(quoted: str) -> re.Pattern[str]:
    return re.compile(".*".join(re.escape(part.strip()) for part in quoted.split("...")))
