"""Recognising layouts: names, mappings, tasks, and what is said when nothing fits."""

import re
import subprocess
import sys
from typing import Any

import pytest
from tests.support.data_jobs import make_spec

from ftq_shared.errors import Refused
from ftq_shared.spec import Task
from ftq_shared.spec_input.layers import apply_sets
from ftq_shared.spec_input.parse import parse_spec
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
        (["conversations", "chosen", "rejected"], "messages/chosen/rejected", "preference"),
        (["instruction", "chosen", "rejected"], "prompt/chosen/rejected", "preference"),
        (["premise", "hypothesis", "label"], "premise/hypothesis/label", "classification"),
        (["idx", "question", "sentence", "label"], "question/sentence/label", "classification"),
        (["review", "rating"], "text/label", "classification"),
        (["document", "summary", "id"], "document/summary", "sft"),
        (["article", "highlights"], "document/summary", "sft"),
        (["source", "target"], "source/target", "sft"),
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


def sample(count: int = 12, **columns: Any) -> list[dict[str, Any]]:
    """Return rows; a function of a column gets the row's number."""
    return [
        {name: value(i) if callable(value) else value for name, value in columns.items()}
        for i in range(count)
    ]


def shape(rows: list[dict[str, Any]], **fields: Any) -> str:
    return detect_layout(list(rows[0]), rows, make_spec(**fields)).name


def test_what_stands_beside_a_prompt_or_a_conversation_is_found() -> None:
    columns = ["instruction", "context", "response", "system_prompt", "history", "tools"]
    found = detect_layout(columns, [], make_spec()).columns
    assert (found.context, found.system) == ("context", "system_prompt")
    assert (found.history, found.tools) == ("history", "tools")
    beside = detect_layout(["system", "conversations", "tools"], [], make_spec()).columns
    assert (beside.system, beside.tools) == ("system", "tools")
    templated = make_spec(data={"row_template": "{question}"})
    assert detect_layout(["question", "context", "answer"], [], templated).columns.context is None


def test_a_mapping_names_what_stands_beside() -> None:
    spec = make_spec(data={"columns": {"context": "page", "text_pair": None}})
    assert detect_layout(["question", "page", "answer"], [], spec).columns.context == "page"
    pair = make_spec(data={"columns": {"text_pair": "b"}})
    assert detect_layout(["text", "b", "label"], [], pair).columns.text_pair == "b"


def test_rows_that_judge_their_answers_keep_the_verdict() -> None:
    rows = sample(prompt="a", completion="b", label=lambda i: i % 2 == 0)
    layout = detect_layout(list(rows[0]), rows, make_spec())
    assert (layout.task, layout.columns.label) == (Task.SFT, "label")


@pytest.mark.parametrize(
    ("rows", "code", "words"),
    [
        (sample(text="a b", label=["x", "y"]), "multi_label", "several labels"),
        (sample(text="a b", label={"x": 1}), "multi_label", "several labels"),
        (sample(text="a", toxic=lambda i: i % 2, rude=0), "multi_label", "toxic, rude"),
        (sample(text="a", label=lambda i: i / 7), "regression", "fractions"),
        (sample(text="a", label=lambda i: f"{i}.5"), "regression", "fractions"),
        (sample(sentence1="a", sentence2="b", score=0.5), "regression", "fractions"),
        (sample(text="a", target=lambda i: f"name {i}"), "which_task", "all values"),
        (sample(text="a", spam=lambda i: i % 2), "which_task", "spam looks like its label"),
        (sample(text="a", spam=lambda i: i % 2 == 0), "which_task", "spam looks like its label"),
        (sample(prompt="a", response="b", label=lambda i: i % 2), "which_task", "0 and 1"),
        (sample(question="a", answer="b", image="x.png"), "not_text", "column image"),
        (
            sample(messages=[{"role": "user", "content": [{"type": "image_url"}]}]),
            "not_text",
            "image_url",
        ),
    ],
)
def test_values_of_another_task_are_refused_with_a_way_out(
    rows: list[dict[str, Any]], code: str, words: str
) -> None:
    with pytest.raises(Refused, match=words) as caught:
        shape(rows)
    assert caught.value.code == code
    assert caught.value.hint


@pytest.mark.parametrize(
    "rows",
    [
        sample(text="a", target=lambda i: f"name {i}"),
        sample(text="a", spam=lambda i: i % 2),
        sample(prompt="a", response="b", label=lambda i: i % 2),
        sample(text="a", toxic=lambda i: i % 2, rude=0),
    ],
)
def test_both_answers_to_a_doubt_work_when_pasted(rows: list[dict[str, Any]]) -> None:
    with pytest.raises(Refused) as caught:
        shape(rows)
    for answer in re.split(r", or |: ", caught.value.hint):
        sets = re.findall(r"--set (\S+?)(?=,? |,?$)", answer)
        if sets:
            spec = parse_spec(apply_sets({"model": "a/b", "dataset": "c/d"}, sets))
            assert detect_layout(list(rows[0]), rows, spec)


def test_sentences_are_answers_and_names_are_labels() -> None:
    written = sample(text="a", target=lambda i: f"this is the whole answer {i}")
    assert shape(written) == "text/target"
    assert shape(sample(text="a", target=lambda i: f"class {i % 3}")) == "text/label"
    assert shape(sample(text="a", label=lambda i: i % 3)) == "text/label"
    assert shape(sample(text="a", url=lambda i: f"https://x/{i}", id=lambda i: i)) == "text"
    assert shape(sample(messages=[], images=[])) == "messages"


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


def test_a_whole_number_beyond_all_fractions_is_a_label_like_any_other() -> None:
    rows = [{"text": f"t {n}", "label": 10**400 + n % 2} for n in range(20)]
    assert detect_layout(list(rows[0]), rows, make_spec(task="classification")).columns.label
