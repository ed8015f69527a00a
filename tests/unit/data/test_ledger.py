"""Nothing is left out unsaid: columns, keys of messages, and shares of the rows."""

from pathlib import Path
from typing import Any

import pytest
from tests.support.data_jobs import (
    CHAT_TEMPLATE,
    MakeJob,
    make_spec,
    make_tokenizer,
    qa,
    write_jsonl,
)

from ftq_shared.errors import Refused
from ftq_shared.events import EventType
from ftq_shared.spec import Columns, Task
from ftq_worker.data.cleaning import Rule, Tally
from ftq_worker.data.columns import ColumnLayout, detect_layout
from ftq_worker.data.examples import example_maker
from ftq_worker.data.ledger import (
    Ledger,
    assert_balance,
    refuse_dropped,
    refuse_unused,
    unused_words,
)
from ftq_worker.data.render import ChatRenderer, Renderer, plain_renderer
from ftq_worker.job.reports import Unused
from ftq_worker.validation.examples import look_at_examples
from ftq_worker.validation.rows import Head

LONG = "The town lies on a river that is named after its founder, a man of the north."


def counted(rows: list[dict[str, Any]], **fields: Any) -> tuple[ColumnLayout, Ledger]:
    spec = make_spec(**fields)
    columns = list(dict.fromkeys(column for row in rows for column in row))
    layout = detect_layout(columns, rows, spec)
    make = example_maker(layout, spec.data.row_template, columns, {})
    ledger = Ledger()
    for row in rows:
        ledger.add(row, make(row))
    return layout, ledger


def unused_of(
    rows: list[dict[str, Any]], template: str | None = None, **fields: Any
) -> list[Unused]:
    layout, ledger = counted(rows, **fields)
    render: Renderer | None = None
    if template is not None:
        chat = ChatRenderer(make_tokenizer(chat=template), None) if template else None
        render = chat or plain_renderer(layout.task, "</s>")
    return ledger.unused(layout.columns, layout.task, render)


def with_column(count: int = 20, **columns: Any) -> list[dict[str, Any]]:
    return [row | columns for row in qa(count)]


def test_every_column_that_nothing_was_made_of_is_named_with_its_share() -> None:
    rows = with_column(id=7, source="web", empty="", null=None, none=[])
    for row in rows[:10]:
        row["category"] = "closed"
    found = unused_of(rows)
    assert [(one["name"], one["rows"], one["share"]) for one in found] == [
        ("id", 20, 1.0),
        ("source", 20, 1.0),
        ("category", 10, 0.5),
    ]
    assert not any(one["weighs"] for one in found)


@pytest.mark.parametrize(
    ("value", "weighs"),
    [
        (LONG, True),
        ({"text": [LONG]}, True),
        (["a red one and more", "a blue one and more"], True),
        ("https://example.org/a/very/long/address/that/is/no/sentence.html", False),
        ("web crawl", False),
        (3.5, False),
    ],
)
def test_text_of_length_beside_a_short_prompt_weighs(value: Any, weighs: bool) -> None:
    (found,) = unused_of(with_column(page=value))
    assert found["weighs"] is weighs
    # Of lists and objects no setting makes a text.
    plain = "--set data.columns.context=page" if isinstance(value, str) else "write its texts"
    assert found["use"].startswith(plain if weighs else "")
    assert bool(found["use"]) is weighs


def test_a_long_text_in_few_rows_or_beside_a_longer_prompt_does_not_weigh() -> None:
    rows = qa(20)
    rows[0]["note"] = LONG
    assert not unused_of(rows)[0]["weighs"]
    rows = [row | {"question": LONG[::-1] * 4, "note": LONG} for row in qa(20)]
    assert not unused_of(rows)[0]["weighs"]


def test_a_copy_of_what_is_used_is_not_left_out() -> None:
    rows = [
        row | {"prompt_copy": row["question"], "text": f"Q: {row['question']} A: {row['answer']}"}
        for row in qa(20)
    ]
    assert unused_of(rows) == []


def test_the_setting_that_is_named_uses_the_column() -> None:
    chat = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]
    cases: list[tuple[list[dict[str, Any]], dict[str, str]]] = [
        (with_column(page=LONG), {"context": "page"}),
        ([{"messages": chat, "page": LONG}] * 20, {"system": "page"}),
        ([{"text": "a", "label": i % 2, "page": LONG} for i in range(20)], {"text_pair": "page"}),
    ]
    for rows, columns in cases:
        (found,) = unused_of(rows)
        ((part, column),) = columns.items()
        assert found["use"] == f"--set data.columns.{part}={column}"
        assert unused_of(rows, data={"columns": columns}) == []


def test_keys_of_messages_are_used_where_the_text_differs_without_them() -> None:
    call = {"function": {"name": "add", "arguments": {}}}
    turns = [
        {"role": "user", "content": "hi", "name": "Ann"},
        {"role": "assistant", "content": "I add", "tool_calls": [call]},
    ]
    rows = [{"messages": turns, "tools": [call]}] * 20
    assert unused_of(rows) == []  # no template is known yet
    for template in ("", "{# name, tools, tool_calls #}" + CHAT_TEMPLATE):
        found = {one["name"]: one for one in unused_of(rows, template)}
        assert found.keys() == {"name", "tool_calls", "tools"}
        assert found["tool_calls"]["weighs"]
        assert found["tools"]["weighs"]
        assert not found["name"]["weighs"]
    reads = "{{ tools | tojson }}{% for m in messages %}{{ m.name }}{{ m['tool_calls'] | tojson }}"
    template = reads + "{% endfor %}" + CHAT_TEMPLATE
    assert unused_of(rows, template) == []


def test_a_key_that_is_read_of_one_role_alone_is_named_with_the_other() -> None:
    turns = [{"role": role, "content": "hi", "name": "Ann"} for role in ("user", "assistant")]
    template = "{{ messages[0].name }}" + CHAT_TEMPLATE
    (found,) = unused_of([{"messages": turns}] * 20, template)
    assert found["name"] == "name of the assistant"


@pytest.mark.parametrize(
    ("columns", "use"),
    [
        ({"score": lambda n: n % 5}, ""),
        ({"overall_rating": lambda n: f"{n / 10}"}, ""),
        ({"verified": lambda n: n % 9 > 0}, "--set data.columns.label=verified"),
    ],
)
def test_a_verdict_that_varies_is_asked_for(columns: dict[str, Any], use: str) -> None:
    rows = [row | {name: of(n) for name, of in columns.items()} for n, row in enumerate(qa(20))]
    found = unused_of(rows)
    assert [one["use"] for one in found] == [use]
    with pytest.raises(Refused, match="which answers are wrong") as caught:
        refuse_unused(found)
    assert use in caught.value.hint
    for row in rows:
        row.update(dict.fromkeys(columns, 1))
    assert not unused_of(rows)[0]["weighs"]


def test_messages_behind_the_last_answer_are_named() -> None:
    chat = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]
    rows = [{"messages": chat}] * 3 + [{"messages": [*chat, chat[0]]}]
    (found,) = unused_of(rows)
    assert (found["name"], found["rows"]) == ("messages behind the last answer", 1)


def test_what_weighs_is_refused_with_both_ways_out() -> None:
    with pytest.raises(Refused) as caught:
        refuse_unused(unused_of(with_column(page=LONG, id=1)))
    assert caught.value.code == "unused_columns"
    assert "page (in 100% of the rows)" in caught.value.message
    assert "--set data.columns.context=page" in caught.value.hint
    assert "--set data.allow=unused_columns" in caught.value.hint
    refuse_unused(unused_of(with_column(id=1)))


def test_validate_looks_at_the_first_rows() -> None:
    rows = with_column(page=LONG)

    def look(**data: Any) -> str:
        spec = make_spec(data=data)
        layout = detect_layout(list(rows[0]), rows, spec)
        return look_at_examples(spec, Head(list(rows[0]), rows, None), layout, "train")[1]

    with pytest.raises(Refused, match="page"):
        look()
    assert "not used: page" in look(allow=["unused_columns"])
    assert look(columns={"context": "page"}) == "all of 20 rows that were looked at can be used"
    assert "not used: page" in look(row_template="{question}")  # left out on purpose
    rows = [{"question": "", "answer": "b"}] * 3
    with pytest.raises(Refused, match="none of 3 rows") as caught:
        look()
    assert "fill the column; for example train row 0 question: is empty" in caught.value.hint


def test_one_reason_may_not_take_many_rows() -> None:
    tally = Tally()
    tally.read = 20
    for rule in (Rule.DUPLICATE, Rule.HELD_OUT, Rule.CONTROL_CHARACTERS):
        tally.count(rule, 5)
    tally.count(Rule.MISSING, 2)
    tally.count(Rule.EMPTY, 2)
    refuse_dropped(tally, "train")
    tally.count(Rule.EMPTY, 1)
    with pytest.raises(Refused) as caught:
        refuse_dropped(tally, "train")
    assert caught.value.code == "dropped_rows"
    assert "3 of the 20 rows of split train (15%)" in caught.value.message
    assert "--set data.allow=dropped_rows" in caught.value.hint


def test_rows_that_are_lost_count_are_an_assertion() -> None:
    tally = Tally()
    tally.read = 3
    tally.count(Rule.EMPTY, 1)
    assert_balance(tally, 2)
    with pytest.raises(AssertionError, match="3 rows read"):
        assert_balance(tally, 1)


def test_a_whole_job_tells_what_it_left_out(tmp_path: Path, make_job: MakeJob) -> None:
    rows = [row | {"category": "sums"} for row in qa(100)]
    job = make_job(write_jsonl(tmp_path / "rows.jsonl", rows), make_tokenizer())
    report = job.run()
    assert [one["name"] for one in report.unused] == ["category"]
    (warning,) = [w for w in job.sent(EventType.WARNING) if "not used" in w["message"]]
    assert "category (in 100% of the rows)" in warning["message"]


def test_a_whole_job_stops_where_too_much_would_be_left_out(
    tmp_path: Path, make_job: MakeJob
) -> None:
    rows = [*qa(80), *({"question": "?", "answer": None} for _ in range(20))]
    path = write_jsonl(tmp_path / "rows.jsonl", rows)
    with pytest.raises(Refused, match="20 of the 100 rows") as caught:
        make_job(path, make_tokenizer()).run()
    assert caught.value.code == "dropped_rows"
    job = make_job(path, make_tokenizer(), storage="other", data={"allow": ["dropped_rows"]})
    assert job.dropped() == {}
    assert sum(job.run().rows.values()) == 80

    call = [{"type": "function", "function": {"name": "add", "arguments": "{}"}}]
    talk = [
        {
            "messages": [
                {"role": "user", "content": f"{i}?"},
                {"role": "assistant", "content": "I add", "tool_calls": call},
            ]
        }
        for i in range(50)
    ]
    chat = make_tokenizer(chat=CHAT_TEMPLATE)
    path = write_jsonl(tmp_path / "calls.jsonl", talk)
    with pytest.raises(Refused, match="tool_calls"):
        make_job(path, chat, storage="third").run()


def test_a_ledger_without_rows_has_nothing_to_tell() -> None:
    assert Ledger().unused(Columns(), Task.TEXT, "") == []


def test_of_rows_that_each_have_a_column_of_their_own_not_all_are_named() -> None:
    rows = [row | {f"id{n}": "x"} for n, row in enumerate(qa(1200))]
    found = unused_of(rows)
    assert len(found) == 1001
    assert (found[0]["name"], found[0]["rows"]) == ("all other columns", 200)
    assert unused_words(found).endswith("and 981 more")


def test_nor_are_they_held_where_several_processes_have_counted() -> None:
    whole = Ledger()
    for part in range(4):
        rows = [row | {f"id{part}-{n}": "x"} for n, row in enumerate(qa(700))]
        whole.take_in(counted(rows)[1])
    found = {one["name"]: one["rows"] for one in whole.unused(Columns(), Task.SFT)}
    assert len(found) == 1001
    assert found["all other columns"] == 4 * 700 - 1000
