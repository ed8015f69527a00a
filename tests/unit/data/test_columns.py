"""Recognising layouts: names, mappings, tasks, and what is said when nothing fits."""

import subprocess
import sys
from typing import Any

import pytest
from tests.support.data_jobs import make_spec

from ftq_shared.errors import Refused
from ftq_shared.spec import Task
from ftq_worker.data.columns import detect_layout

MESSAGES = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]


@pytest.mark.parametrize(
    ("columns", "name", "task"),
    [
        (["text"], "text", "text"),
        (["prompt", "completion"], "prompt/completion", "sft"),
        (["id", "question", "answer"], "question/answer", "sft"),
        (["instruction", "input", "output"], "instruction/input/output", "sft"),
        (["instruction", "output"], "instruction/input/output", "sft"),
        (["messages", "source"], "messages", "sft"),
        (["conversations"], "conversations", "sft"),
        (["text", "label"], "text/label", "classification"),
        (["text", "intent"], "text/label", "classification"),
        (["idx", "sentence", "label"], "text/label", "classification"),
        (["Text", "Label"], "text/label", "classification"),
        (["prompt", "chosen", "rejected"], "prompt/chosen/rejected", "preference"),
        (["chosen", "rejected"], "chosen/rejected", "preference"),
    ],
)
def test_known_names_are_recognised(columns: list[str], name: str, task: str) -> None:
    layout = detect_layout(columns, [], make_spec())
    assert (layout.name, layout.task) == (name, task)
    assert all(c is None or c in columns for _, c in layout.columns)


def test_a_mapping_wins_over_names() -> None:
    spec = make_spec(data={"columns": {"prompt": "q", "completion": "answer"}})
    layout = detect_layout(["question", "answer", "q"], [], spec)
    assert (layout.columns.prompt, layout.columns.completion) == ("q", "answer")
    assert "mapped" in layout.reason


def test_half_a_mapping_is_completed_by_name() -> None:
    spec = make_spec(data={"columns": {"prompt": "q"}})
    assert detect_layout(["q", "completion"], [], spec).columns.completion == "completion"


def test_the_task_steers() -> None:
    columns = ["text", "label"]
    assert detect_layout(columns, [], make_spec(task="text")).task is Task.TEXT
    assert detect_layout(columns, [], make_spec()).task is Task.CLASSIFICATION


def test_values_decide_whether_messages_are_messages() -> None:
    rows: list[dict[str, Any]] = [{"messages": "3 new", "prompt": "a", "completion": "b"}]
    columns = ["messages", "prompt", "completion"]
    assert detect_layout(columns, rows, make_spec()).name == "prompt/completion"
    assert detect_layout(columns, [{"messages": MESSAGES}], make_spec()).name == "messages"


def test_a_template_stands_for_the_prompt_column() -> None:
    spec = make_spec(data={"row_template": "{title}: {body}"})
    layout = detect_layout(["title", "body", "answer", "completion"], [], spec)
    assert (layout.columns.prompt, layout.columns.completion) == (None, "completion")


def test_a_wrong_column_names_the_nearest_and_the_mapping() -> None:
    spec = make_spec(data={"columns": {"prompt": "questoin"}})
    with pytest.raises(Refused) as caught:
        detect_layout(["question", "answer"], [], spec)
    error = caught.value
    assert error.code == "wrong_column"
    assert "question, answer" in error.message
    assert error.where["nearest"] == ["question"]
    assert "--set data.columns.prompt=question" in error.hint
    assert "data: {columns: {prompt: question}}" in error.hint


def test_unknown_columns_are_told_how_to_map() -> None:
    with pytest.raises(Refused) as caught:
        detect_layout(["quest", "answr"], [], make_spec())
    assert caught.value.code == "unknown_shape"
    assert "quest, answr" in caught.value.message
    assert (
        "--set data.columns.prompt=quest --set data.columns.completion=answr" in caught.value.hint
    )


def test_unknown_columns_of_a_task_are_told_its_parts() -> None:
    with pytest.raises(Refused) as caught:
        detect_layout(["body", "y"], [], make_spec(task="classification"))
    assert "data.columns.text=" in caught.value.hint
    assert "data.columns.label=" in caught.value.hint


def test_nothing_heavy_is_imported() -> None:
    code = (
        "import sys, ftq_worker.data.columns;"
        "print([m for m in ('torch', 'transformers', 'datasets', 'pyarrow') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
