"""Rows of every layout become examples, and every fault of a row is named."""

import json
import math
from datetime import date
from decimal import Decimal
from typing import Any

import pytest
from tests.support.data_jobs import make_spec

from ftq_shared.errors import Refused
from ftq_worker.data.cleaning import RowProblem, Rule, scrub
from ftq_worker.data.columns import detect_layout
from ftq_worker.data.examples import Example, Made, example_maker

ASKED, FIRST = "conversations[0]", "conversations[1]"
ALPACA = {"instruction": "Go on.", "output": "b"}
USER, GPT = {"from": "human", "value": "hi"}, {"from": "gpt", "value": "ho"}


def made(values: dict[str, Any], names: dict[str, list[str]] | None = None, **fields: Any) -> Made:
    spec = make_spec(**fields)
    layout = detect_layout(list(values), [values], spec)
    return example_maker(layout, spec.data.row_template, list(values), names or {})(values)


def turns(example: Example) -> list[tuple[str, str]]:
    return [(m["role"], m["content"]) for m in example.messages]


def test_alpaca_joins_the_input_where_there_is_one() -> None:
    row = {"instruction": "Add.", "input": "1 2", "output": "3"}
    assert turns(made(row).example) == [("user", "Add.\n1 2"), ("assistant", "3")]
    assert turns(made(row | {"input": ""}).example)[0] == ("user", "Add.")
    assert turns(made(row | {"input": None}).example)[0] == ("user", "Add.")


def test_sharegpt_roles_are_translated_and_what_follows_the_answer_goes() -> None:
    example = made({"conversations": [USER, GPT, USER]}).example
    assert turns(example) == [("user", "hi"), ("assistant", "ho")]


def test_messages_may_be_json_parts_or_hold_tools() -> None:
    call = {"role": "assistant", "content": None, "tool_calls": [{"name": "add"}]}
    done = {"role": "tool", "content": "3", "name": None}
    row = {
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "a"}, {"text": "b"}]},
            call,
            done,
            {"role": "assistant", "content": "3"},
        ]
    }
    example = made(row).example
    assert turns(example)[0] == ("user", "ab")
    assert example.messages[1]["tool_calls"] == [{"name": "add"}]
    assert "name" not in example.messages[2]
    text = '[{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]'
    row = {"messages": text}
    maker = example_maker(detect_layout(["messages"], [], make_spec()), None, ["messages"], {})
    assert turns(maker(row).example) == [("user", "a"), ("assistant", "b")]


def test_prompt_and_completion_may_be_messages() -> None:
    row = {
        "prompt": [{"role": "user", "content": "a"}],
        "completion": [{"role": "assistant", "content": "b"}],
    }
    assert turns(made(row).example) == [("user", "a"), ("assistant", "b")]


def test_a_system_column_comes_first() -> None:
    row = {"prompt": "a", "completion": "b", "sys": "Be brief."}
    example = made(row, data={"columns": {"system": "sys"}}).example
    assert turns(example)[0] == ("system", "Be brief.")


def test_numbers_are_text_and_labels_have_names() -> None:
    assert turns(made({"question": 12, "answer": 3.5}).example) == [
        ("user", "12"),
        ("assistant", "3.5"),
    ]
    row = {"text": "a", "label": 1}
    assert made(row).example.label == "1"
    assert made(row, {"label": ["no", "yes"]}).example.label == "yes"
    assert made(row | {"label": 2.0}).example.label == "2"


def test_preference_takes_strings_or_conversations() -> None:
    example = made({"prompt": "p", "chosen": "c", "rejected": "r"}).example
    assert (turns(example), example.chosen, example.rejected) == ([("user", "p")], "c", "r")
    row = {"chosen": [USER, GPT], "rejected": [USER, GPT | {"value": "no"}]}
    example = made(row).example
    assert (turns(example), example.chosen, example.rejected) == ([("user", "hi")], "ho", "no")


@pytest.mark.parametrize(
    ("row", "rule", "field"),
    [
        ({"question": None, "answer": "a"}, Rule.MISSING, "question"),
        ({"question": "q", "answer": float("nan")}, Rule.MISSING, "answer"),
        ({"question": " \n", "answer": "a"}, Rule.EMPTY, "question"),
        ({"question": "\x00", "answer": "a"}, Rule.EMPTY, "question"),
        ({"question": {"a": 1}, "answer": "a"}, Rule.WRONG_TYPE, "question"),
        ({"text": "a", "label": None}, Rule.MISSING, "label"),
        ({"text": "a", "label": " "}, Rule.MISSING, "label"),
        ({"text": "a", "label": math.inf}, Rule.WRONG_TYPE, "label"),
        ({"text": "a", "label": [math.nan]}, Rule.WRONG_TYPE, "label"),
        ({"text": "a", "label": Decimal("-Infinity")}, Rule.WRONG_TYPE, "label"),
        ({"conversations": []}, Rule.CONVERSATION, "conversations"),
        ({"conversations": [USER]}, Rule.CONVERSATION, "conversations"),
        ({"conversations": [USER, 3]}, Rule.CONVERSATION, "conversations[1]"),
        ({"conversations": [USER, GPT, GPT]}, Rule.CONVERSATION, "conversations[2].role"),
        ({"conversations": [USER, GPT | {"weight": 0}]}, Rule.UNTRAINABLE, "conversations"),
        ({"conversations": [USER, GPT | {"weight": 0.5}]}, Rule.WRONG_TYPE, f"{FIRST}.weight"),
        ({"conversations": [USER | {"train": True}, GPT]}, Rule.CONVERSATION, f"{ASKED}.train"),
        ({"messages": "[{'role': 'user'}]"}, Rule.WRONG_TYPE, "messages"),
        ({"prompt": "a", "completion": "b", "label": False}, Rule.BAD_ANSWER, "label"),
        (ALPACA | {"history": ["a"]}, Rule.CONVERSATION, "history[0]"),
        (ALPACA | {"tools": "[none"}, Rule.WRONG_TYPE, "tools"),
        ({"conversations": [USER, {"from": "gpt"}]}, Rule.CONVERSATION, "conversations[1].content"),
        ({"conversations": [USER, {"value": "x"}]}, Rule.CONVERSATION, "conversations[1].role"),
        ({"conversations": [USER, GPT | {"value": ""}]}, Rule.EMPTY, "conversations[1].content"),
    ],
)
def test_faults_are_named(row: dict[str, Any], rule: Rule, field: str) -> None:
    with pytest.raises(RowProblem) as caught:
        made(row)
    assert (caught.value.rule, caught.value.field) == (rule, field)


def test_a_label_number_outside_the_names_is_wrong() -> None:
    for value, rule in ((-1, Rule.MISSING), (2, Rule.WRONG_TYPE)):
        with pytest.raises(RowProblem) as caught:
            made({"text": "a", "label": value}, {"label": ["no", "yes"]})
        assert caught.value.rule is rule


def test_a_row_template_builds_the_prompt() -> None:
    row = {"title": "T", "n": 3, "answer": "a", "completion": "b"}
    example = made(row, data={"row_template": "{{x}} {title}: {n}?"}).example
    assert turns(example) == [("user", "{x} T: 3?"), ("assistant", "b")]


@pytest.mark.parametrize(
    ("template", "code"),
    [
        ("{tittle}", "wrong_column"),
        ("{title.__class__}", "wrong_column"),
        ("{title[0]}", "wrong_column"),
        ("{title!r}", "row_template"),
        ("{title:>10}", "row_template"),
        ("{}", "row_template"),
        ("{title", "row_template"),
    ],
)
def test_a_template_takes_nothing_but_columns(template: str, code: str) -> None:
    with pytest.raises(Refused) as caught:
        made({"title": "T", "completion": "b"}, data={"row_template": template})
    assert caught.value.code == code


def test_control_characters_go_and_are_told() -> None:
    result = made({"question": "a\x00b\x85\tc\n", "answer": "half \ud83d pair"})
    assert turns(result.example) == [("user", "ab\tc\n"), ("assistant", "half \ufffd pair")]
    assert result.damaged == "question"
    assert scrub("ok\r\n\t ü 🙂") == "ok\r\n\t ü 🙂"


def test_keys_are_equal_for_equal_texts() -> None:
    def key(text: str, second: str = "") -> int:
        return Example(text=text, text_pair=second).keys()[0]

    assert key("caf\u00e9  au\nlait") == key("cafe\u0301 au lait ")
    assert key("ab", "c") != key("a", "bc")
    assert key("A") != key("a")


def test_examples_survive_json() -> None:
    example = made({"question": "q ü", "answer": "a"}).example
    assert Example.from_json(example.to_json()) == example


TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}


def test_what_stands_beside_a_prompt_is_used() -> None:
    row = ALPACA | {"system": "Be brief.", "context": "A page.", "history": [["hi", "ho"]]}
    assert turns(made(row | {"tools": json.dumps([TOOL])}).example) == [
        ("system", "Be brief."),
        ("user", "hi"),
        ("assistant", "ho"),
        ("user", "Go on.\nA page."),
        ("assistant", "b"),
    ]
    assert made(row | {"tools": json.dumps([TOOL])}).example.tools == [TOOL]


def test_answers_that_are_not_to_be_learned_are_marked_and_stay() -> None:
    turn = [USER, GPT | {"weight": 0}, USER, GPT | {"train": True}]
    messages = made({"conversations": turn}).example.messages
    assert [m.get("learned", True) for m in messages] == [True, False, True, True]
    assert not any({"weight", "train"} & m.keys() for m in messages)
    # What follows the last answer that is learned is gone.
    messages = made({"conversations": [USER, GPT, USER, GPT | {"weight": 0}]}).example.messages
    assert len(messages) == 2


def test_only_the_completion_of_message_lists_is_learned() -> None:
    asked = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    row = {"prompt": [*asked, {"role": "user", "content": "c"}], "completion": [asked[1]]}
    messages = made(row).example.messages
    assert [m.get("learned", True) for m in messages] == [True, False, True, True]


def test_calls_of_tools_are_what_templates_expect() -> None:
    function = {"name": "add", "arguments": json.dumps({"a": 1, "b": None}), "extra": None}
    call = {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": None, "function": function}],
    }
    done = {"role": "tool", "content": "3"}
    end = {"role": "assistant", "content": "3"}
    user = {"role": "user", "content": "1 + 2?"}
    row = {"messages": [user, call, done, end], "tools": [TOOL | {"strict": None}]}
    example = made(row).example
    assert example.messages[1]["tool_calls"] == [
        {"function": {"name": "add", "arguments": {"a": 1, "b": None}}}
    ]
    assert example.tools == [TOOL]
    other = made(row | {"tools": [TOOL | {"type": "other"}]}).example
    assert other.keys()[0] != example.keys()[0]
    sharegpt = [
        USER,
        {"from": "function_call", "value": '{"name": "add", "arguments": {"a": 1}}'},
        {"from": "observation", "value": "3"},
        GPT,
    ]
    messages = made({"conversations": sharegpt}).example.messages
    assert [m["role"] for m in messages] == ["user", "assistant", "tool", "assistant"]
    assert messages[1]["tool_calls"][0]["function"] == {"name": "add", "arguments": {"a": 1}}
    plain = made({"conversations": [USER, {"from": "function_call", "value": "add 1"}]}).example
    assert plain.messages[1] == {"role": "assistant", "content": "add 1"}


def test_content_in_parts_is_taken_apart() -> None:
    call = json.dumps({"name": "add", "arguments": {"a": 1}})
    parts = [
        {"type": "reasoning", "value": "Add them."},
        {"type": "text", "value": "I call "},
        {"type": "output_text", "text": "add."},
        {"type": "tool_call", "value": call},
    ]
    asked = {"role": "user", "content": [{"type": "text", "value": "1 + 2?"}], "loss_weight": 0.0}
    answer = {"role": "assistant", "content": parts, "loss_weight": 1.0}
    user, message = made({"messages": [asked, answer]}).example.messages
    assert user == {"role": "user", "content": "1 + 2?"}
    assert (message["content"], message["reasoning_content"]) == ("I call add.", "Add them.")
    assert message["tool_calls"][0]["function"] == {"name": "add", "arguments": {"a": 1}}
    odd = {"messages": [USER, {"role": "assistant", "content": [{"type": "text", "text": 3}]}]}
    with pytest.raises(RowProblem, match="not text"):
        made(odd)


def test_broken_code_points_inside_a_call_are_taken_out() -> None:
    call = {"function": {"name": "f", "arguments": {"x": "a\ud800\x00"}}}
    row = {"messages": [USER, {"role": "assistant", "tool_calls": [call]}]}
    result = made(row)
    arguments = result.example.messages[1]["tool_calls"][0]["function"]["arguments"]
    assert arguments == {"x": "a\ufffd"}
    assert result.damaged


def test_two_texts_are_classified_together() -> None:
    example = made({"premise": "a", "hypothesis": "b", "label": 1}).example
    assert (example.text, example.text_pair, example.label) == ("a", "b", "1")
    other = made({"premise": "a", "hypothesis": "c", "label": 1}).example
    assert example.keys() != other.keys()


def test_a_made_row_says_what_it_was_made_of() -> None:
    result = made(ALPACA | {"input": "x", "id": 7})
    assert result.taken == {"instruction", "input", "output"}


@pytest.mark.parametrize(
    ("turns_", "expected"),
    [
        ([{"speaker": "human", "text": "a"}, {"speaker": "bot", "text": "b"}], "ab"),
        ([{"input": "a", "output": "b"}], "ab"),
        ([{"system": "s", "question": "a", "answer": "b"}], "sab"),
        ([["a", "b"], ["c", "d"]], "abcd"),
        ({"role": ["user", "assistant"], "content": ["a", "b"]}, "ab"),
        ({"from": ["human", "gpt"], "value": ["a", "b"]}, "ab"),
    ],
)
def test_turns_are_read_as_people_write_them(turns_: Any, expected: str) -> None:
    example = made({"conversations": turns_}).example
    assert "".join(text for _, text in turns(example)) == expected
    assert example.messages[-1]["role"] == "assistant"
    assert made({"instruction": "x", "output": "y", "history": turns_}).example.messages[:-2] == (
        example.messages
    )


def test_a_key_of_a_turn_that_no_message_has_stays_for_the_template() -> None:
    turn = {"input": "a", "output": "b", "mood": "calm"}
    assert made({"conversation": [turn]}).example.messages[0]["mood"] == "calm"


@pytest.mark.parametrize(
    "call", ['{"name": "f", "arguments": "{}"}', {"name": "f", "arguments": {}}]
)
def test_the_first_form_of_calls_is_that_of_today(call: Any) -> None:
    turn = [USER, {"role": "assistant", "content": None, "function_call": call}]
    function = {"name": "add", "parameters": {"type": "object"}}
    example = made({"messages": turn, "functions": [function]}).example
    assert example.messages[1]["tool_calls"] == [
        {"type": "function", "function": {"name": "f", "arguments": {}}}
    ]
    assert "function_call" not in example.messages[1]
    assert example.tools == [TOOL]


def test_an_answer_of_calls_beside_tools_calls_them() -> None:
    calls = json.dumps([{"name": "add", "arguments": {"x": 1}}])
    example = made({"query": "q", "tools": json.dumps([TOOL]), "answers": calls}).example
    assert example.messages[1]["tool_calls"][0]["function"] == json.loads(calls)[0]
    none = made({"query": "q", "tools": json.dumps([TOOL]), "answers": "[]"}).example
    assert none.messages[1] == {"role": "assistant", "content": "[]"}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Decimal("1.50"), "1.50"),
        (date(2020, 1, 2), "2020-01-02"),
        (["only"], "only"),
    ],
)
def test_values_that_are_text_once_written_are_written(value: Any, text: str) -> None:
    assert turns(made({"question": "q", "answer": value}).example)[1] == ("assistant", text)


@pytest.mark.parametrize(
    ("row", "field", "words"),
    [
        ({"question": "q", "answer": ["a", "b"]}, "answer", "one row for each"),
        ({"question": "q", "answer": {"text": ["a"]}}, "answer", "write the text that is meant"),
        ({"messages": [USER, GPT, GPT]}, "messages[2].role", "join the two answers"),
        (
            {"messages": [USER, {"role": "system", "content": "s"}, GPT]},
            "messages[1].role",
            "first",
        ),
        ({"messages": [USER]}, "messages", "as its last message"),
        (
            {"messages": [{"who": "a", "content": "b"}]},
            "messages[0].role",
            "there are who, content",
        ),
        ({"messages": [USER, GPT], "tools": ["add"]}, "tools[0]", '"parameters"'),
        ({"messages": [USER, GPT], "tools": {"add": {}}}, "tools", '"parameters"'),
    ],
)
def test_what_cannot_be_used_blames_its_column_and_says_what_to_do(
    row: dict[str, Any], field: str, words: str
) -> None:
    with pytest.raises(RowProblem) as caught:
        made(row)
    assert caught.value.field == field
    assert words in caught.value.what


@pytest.mark.parametrize(
    ("value", "good"), [(1, True), ("True", True), ("0", False), (0.0, False), (None, True)]
)
def test_a_weight_of_a_row_says_whether_it_is_learned(value: Any, good: bool) -> None:
    rows = [{"question": "q", "answer": "a", "weight": flag} for flag in (1, 0)]
    layout = detect_layout(list(rows[0]), rows, make_spec())
    make = example_maker(layout, None, list(rows[0]), {})
    row = rows[0] | {"weight": value}
    if good:
        assert "weight" in make(row).taken
        return
    with pytest.raises(RowProblem) as caught:
        make(row)
    assert caught.value.rule is Rule.BAD_ANSWER


@pytest.mark.parametrize(
    ("row", "field"),
    [
        (ALPACA | {"history": {"a": "b"}}, "history"),
        ({"conversations": [USER, GPT | {"tool_calls": 5}]}, f"{FIRST}.tool_calls"),
        ({"conversations": [USER, GPT | {"tool_calls": {"name": "x"}}]}, f"{FIRST}.tool_calls"),
    ],
)
def test_what_should_be_a_list_and_is_none_costs_its_row(row: dict[str, Any], field: str) -> None:
    with pytest.raises(RowProblem) as caught:
        made(row)
    assert (caught.value.rule, caught.value.field) == (Rule.WRONG_TYPE, field)
    assert "a list of" in caught.value.what


def test_json_in_a_text_that_is_nested_too_deeply_stays_text() -> None:
    tools = "[" * 400 + "]" * 400
    with pytest.raises(RowProblem, match="a list of tools is needed"):
        made(ALPACA | {"tools": tools})
