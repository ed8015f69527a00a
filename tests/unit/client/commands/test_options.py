"""What commands share in reading their arguments."""

import click
import pytest
from click.testing import CliRunner

from ftq_client.cli import cli
from ftq_client.commands.options import timeout_option


@click.command()
@timeout_option("Give up.")
def patient(timeout_s: float | None) -> None:
    click.echo(repr(timeout_s))


@pytest.mark.parametrize(
    ("words", "shown"),
    [((), "None"), (("--timeout", "90s"), "90.0"), (("--timeout", "2h"), "7200")],
)
def test_a_duration_comes_as_seconds(words: list[str], shown: str) -> None:
    assert CliRunner().invoke(patient, words).output.startswith(shown)


@pytest.mark.parametrize(
    "words",
    [("wait", "ft-a", "--timeout"), ("drain", "gpu-03", "--timeout"), ("tail", "ft-a", "--since")],
)
def test_what_is_no_duration_is_a_usage_error(words: tuple[str, ...]) -> None:
    done = CliRunner().invoke(cli, [*words, "soon"])
    assert done.exit_code == 2
    assert f"'{words[-1]}': 'soon' is no duration; write 90s, 10m, 2h or 1d" in done.output
