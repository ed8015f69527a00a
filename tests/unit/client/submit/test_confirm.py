"""The last question of the guided submit: what it offers to copy does what it says."""

import shlex

from tests.support.pages import why_wrong

from ftq_client.submit.confirm import preview_command
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
