"""The closing block: how it ended, and what to type next."""

import pytest
from tests.unit.client.view.story import JOB, Teller, refused, story

from ftq_client.view.lines import UNICODE, text_of
from ftq_client.view.model import JobView
from ftq_client.view.summary import next_commands, summary_lines


def block(events) -> str:
    view = JobView(JOB, "qwen-gsm8k")
    for event in events:
        view.apply(event)
    return "\n".join(text_of(line) for line in summary_lines(view, UNICODE))


def test_a_job_that_went_well() -> None:
    text = block(story(steps=30))
    assert f"✓ {JOB} qwen-gsm8k succeeded after " in text
    assert "2.3104 [2.2231, 2.3977] → 0.6213 [0.5902, 0.6524]  -73%" in text
    assert "53.4% → 81.2%  +27.8 points" in text
    assert "https://huggingface.co/me/qwen-gsm8k" in text
    assert text.endswith(f"ftq fetch {JOB}")


def test_a_job_without_a_target_says_where_the_model_is() -> None:
    text = block(event for event in story(steps=30) if event.type != "published")
    assert "saved with the job's files" in text
    assert f"ftq fetch {JOB}" in text


def test_a_failure_says_what_where_and_what_next() -> None:
    text = block(refused())
    for part in (
        "failed in validate", "model_not_found: Qwen/Qwen3-0.6 is not on the Hub", "field model",
        "Qwen/Qwen3-0.6B, Qwen/Qwen3-8B", "ftq search models qwen3",
        f"ftq retry {JOB} --set model=Qwen/Qwen3-0.6B",
    ):  # fmt: skip
        assert part in text


def test_a_job_that_goes_on_has_no_closing_block() -> None:
    assert block([*story(steps=30)][:-1]) == ""


def test_a_cancelled_job() -> None:
    end = Teller()("state", state="cancelled", reason="asked by ann", exit_code=4)
    text = block([end])
    assert "cancelled" in text
    assert "asked by ann" in text
    assert f"ftq retry {JOB}" in text


@pytest.mark.parametrize(
    ("error", "command"),
    [
        ({"code": "no_such_dataset", "nearest": ["o/gsm8k"]}, "--set dataset=o/gsm8k"),
        ({"code": "no_such_model", "nearest": ["a; rm -rf ~"]}, "--set model='a; rm -rf ~'"),
        ({"code": "no_such_model"}, "--set model=..."),
        ({"code": "timeout"}, "--set resources.max_runtime=..."),
        ({"code": "hub_unreachable"}, ""),
        ({"code": ["odd"], "field": {"odd": 1}}, ""),
    ],
)
def test_the_next_command_mends_what_failed(error: dict[str, object], command: str) -> None:
    tell = Teller()
    view = JobView(JOB)
    view.apply(tell("error", message="", **error))
    view.apply(tell("state", state="failed"))
    assert next_commands(view)[0] == f"ftq retry {JOB} {command}".strip()
