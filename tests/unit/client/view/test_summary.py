"""The closing block: how it ended, and what to type next."""

import pytest
from tests.unit.client.view.story import JOB, Teller, refused, story

from ftq_client.view.lines import UNICODE, text_of
from ftq_client.view.model import JobView
from ftq_client.view.next_commands import next_commands, with_job
from ftq_client.view.summary import summary_lines


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


COLUMN = "--set data.columns.label=text   (YAML: data: {columns: {label: text}})"
TWO = "map them: --set data.columns.prompt=q --set data.columns.completion=a   (YAML ...)"


@pytest.mark.parametrize(
    ("error", "commands"),
    [
        ({"code": "no_such_dataset", "nearest": ["o/g"]}, ["retry ID --set dataset=o/g"]),
        ({"code": "no_such_model", "nearest": ["a; rm ~"]}, ["retry ID --set model='a; rm ~'"]),
        ({"code": "no_such_model"}, []),
        ({"code": "timeout", "exit_code": 1}, ["retry ID"]),
        ({"code": "hub_unreachable", "exit_code": 7}, ["retry ID"]),
        ({"code": ["odd"], "field": {"odd": 1}}, []),
        ({"code": "wrong_column", "field": "data.columns.label", "nearest": ["text"]},
         ["retry ID --set data.columns.label=text"]),
        ({"code": "wrong_column", "field": "data.columns.label", "nearest": [], "hint": COLUMN},
         ["retry ID --set data.columns.label=text"]),
        ({"code": "config_missing", "field": "dataset", "nearest": ["main", "socratic"],
          "hint": "choose one, for example --dataset openai/gsm8k:main"},
         ["retry ID --set dataset=openai/gsm8k:main"]),
        ({"code": "no_such_config", "field": "dataset", "nearest": ["o/r:a b@v1", "o/r:c@v1"],
          "hint": "choose one, for example --set dataset='o/r:a b@v1'"},
         ["retry ID --set dataset='o/r:a b@v1'"]),
        ({"code": "no_split", "field": "data.split",
          "hint": "--set data.split=train --set data.max_rows=10"},
         ["retry ID --set data.split=train --set data.max_rows=10"]),
        ({"code": "no_split", "field": "data.split", "nearest": ["test", "train"],
          "hint": "--set data.split=train"}, ["retry ID --set data.split=train"]),
        ({"code": "wrong_column", "field": "data.columns.label", "nearest": ["my", "my col"],
          "hint": "--set data.columns.label=my col   (YAML ...)"},
         ["retry ID --set data.columns.label='my col'"]),
        ({"code": "unknown_shape", "field": "data.columns", "hint": TWO},
         ["retry ID --set data.columns.prompt=q --set data.columns.completion=a"]),
        ({"code": "x", "hint": "--set data.columns.label=COLUMN"}, []),
        ({"code": "x", "hint": "--set train.max_length=... or less"}, []),
        ({"code": "x", "hint": "--set a=$(rm -rf ~)"}, []),
        ({"code": "bad_row", "hint": "mend the row, or --set data.on_bad_row=drop to leave it"},
         ["retry ID --set data.on_bad_row=drop"]),
        ({"code": "bad_row", "hint": "mend the file"}, ["submit --from ID"]),
        ({"code": "too_slow_on_cpu", "field": "resources.gpus", "hint": "start `ftq worker`"},
         ["retry ID --set resources.gpus=0"]),
        ({"code": "target_taken", "hint": "--publish-to, or --set publish.overwrite=true"}, []),
        ({"code": "max_length", "hint": "--set train.max_length=512 or less, or auto"},
         ["retry ID --set train.max_length=512"]),
    ],
)  # fmt: skip
def test_the_next_command_mends_what_failed(error: dict[str, object], commands: list[str]) -> None:
    tell = Teller()
    view = JobView(JOB)
    view.apply(tell("error", **{"message": "", "exit_code": 5, **error}))
    view.apply(tell("state", state="failed"))
    wanted = [f"ftq {command.replace('ID', JOB)}" for command in commands]
    assert next_commands(view) == [*wanted, f"ftq show {JOB}"]


def test_what_another_token_mends_says_so() -> None:
    tell = Teller()
    view = JobView(JOB)
    view.apply(tell("error", message="", code="bad_token", exit_code=5))
    view.apply(tell("state", state="failed"))
    assert next_commands(view) == [f"ftq retry {JOB} --token-stdin", f"ftq show {JOB}"]


@pytest.mark.parametrize(
    ("hint", "told"),
    [
        ("`ftq retry JOB` goes on", "`ftq retry ID` goes on"),
        ("`ftq retry` when it is quiet", "`ftq retry ID` when it is quiet"),
        ("`ftq fetch` brings it", "`ftq fetch ID` brings it"),
        ("`ftq retry --from validate` starts over", "`ftq retry ID --from validate` starts over"),
        ("look at `ftq tail ft-abcdefgh`, then", "look at `ftq tail ft-abcdefgh`, then"),
        ("it may: ftq cancel ft-abcdefgh", "it may: ftq cancel ft-abcdefgh"),
        ("`ftq worker` on a host; ftq up", "`ftq worker` on a host; ftq up"),
        ("of `ftq submit` and `ftq retry`; tokens", "of `ftq submit` and `ftq retry ID`; tokens"),
    ],
)
def test_a_hint_names_the_job_where_a_command_needs_it(hint: str, told: str) -> None:
    assert with_job(hint, JOB) == told.replace("ID", JOB)
