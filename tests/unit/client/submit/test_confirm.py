"""The last question of the guided submit: what it offers to copy does what it says."""

import shlex

import click
import pytest
from click.testing import CliRunner
from rich.console import Console
from tests.support.pages import why_wrong

from ftq_client.submit.confirm import confirm, preview_command
from ftq_client.submit.questions import Essentials
from ftq_shared.errors import Refused
from ftq_shared.spec_input import parse_spec

SPEC = parse_spec({"model": "./my model", "dataset": "org/rows:main"})


def test_the_look_at_the_rows_is_a_command_that_works() -> None:
    typed = ["job.yaml", "--publish-to", "me/x", "--task", "sft", "--set", "data.max_rows=9"]
    words = shlex.split(preview_command(SPEC, [*typed, "--detach"]))
    assert words[:3] == ["ftq", "preview", "job.yaml"]
    assert words[3:] == [
        "--model", "./my model", "--dataset", "org/rows:main", "--task", "sft",
        "--set", "data.max_rows=9",
    ]  # fmt: skip
    assert not why_wrong(words[1:])


def test_nothing_is_offered_where_the_spec_is_another_jobs() -> None:
    assert preview_command(SPEC, ["--from", "ft-aaaaaaaa"]) == ""


@pytest.mark.parametrize(
    ("typed", "looks", "submitted"),
    [("\n", 0, True), ("p\np\ny\n", 2, True), ("P\nn\n", 1, False), ("x\nn\n", 0, False)],
)
def test_the_rows_can_be_looked_at_before_the_answer(typed, looks, submitted) -> None:
    seen: list[str] = []

    @click.command()
    def ask() -> None:
        console = Console(stderr=True)
        asked = Essentials("./my model", "org/rows:main", "")
        notes = ["not used: page (in 40% of the first rows)"]
        confirm(SPEC, {}, asked, [], console, notes, lambda: seen.append("rows"))

    done = CliRunner().invoke(ask, input=typed)
    assert len(seen) == looks
    assert "  not used: page (in 40% of the first rows)\n" in done.output
    assert (done.exit_code == 0) is submitted
    assert ("nothing was submitted" in done.output) is not submitted


def test_rows_that_would_be_refused_end_no_question() -> None:
    def refused() -> None:
        raise Refused("row 3 is no conversation", hint="mend it")

    @click.command()
    def ask() -> None:
        asked = Essentials("./my model", "org/rows:main", "")
        confirm(SPEC, {}, asked, [], Console(stderr=True), [], refused)

    done = CliRunner().invoke(ask, input="p\nn\n")
    assert "row 3 is no conversation\n  mend it" in done.output
    assert "nothing was submitted" in done.output
