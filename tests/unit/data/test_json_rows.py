"""The shapes that JSON files have: read for what they are, whatever they are called."""

import json
from pathlib import Path

import pytest

from ftq_shared.errors import Refused
from ftq_worker.data.file_formats import read_file

ROWS = [{"q": f"q {i}", "a": {"n": [i]}} for i in range(30)]
LINES = "\n".join(map(json.dumps, ROWS))
NAMES = ["a.json", "a.jsonl", "a.ndjson", "A.JSON"]


def read(path: Path, content: str | bytes) -> list[dict[str, object]]:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    rows = list(read_file(path))
    assert not any(row.problem for row in rows), rows
    return [dict(row.values) for row in rows]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "content",
    [
        LINES,
        f"\n\n{LINES}\n\n",
        json.dumps(ROWS),
        json.dumps(ROWS, indent=2),
        json.dumps({"data": ROWS}),
        json.dumps({"data": ROWS}, indent=2),
        "\n".join(json.dumps(row, indent=2) for row in ROWS),
        "".join(map(json.dumps, ROWS)),
        LINES.replace("\n", "\r"),
        LINES.replace("\n", "\r\n"),
    ],
)
def test_every_shape_is_read_under_every_name(tmp_path: Path, name: str, content: str) -> None:
    assert read(tmp_path / name, content) == ROWS


def test_an_object_with_one_list_of_rows_may_hold_more(tmp_path: Path) -> None:
    whole = {"version": "1", "tags": ["a"], "rows": ROWS, "info": {"by": "me"}}
    assert read(tmp_path / "a.json", json.dumps(whole)) == ROWS
    assert read(tmp_path / "b.json", json.dumps(whole, indent=1)) == ROWS


@pytest.mark.parametrize(
    "row",
    [
        {"q": "a", "a": "b"},
        {"messages": [{"role": "user", "content": "hi"}], "tools": [{"name": "x"}]},
        {"conversations": [{"from": "human", "value": "hi"}]},
    ],
)
def test_one_object_over_several_lines_is_one_row(tmp_path: Path, row: dict[str, object]) -> None:
    assert read(tmp_path / "a.json", json.dumps(row, indent=2)) == [row]
    assert read(tmp_path / "a.jsonl", json.dumps(row)) == [row]


def test_a_line_is_a_row_though_it_holds_a_list_of_objects(tmp_path: Path) -> None:
    row = {"question": "q", "answers": [{"text": "a"}, {"text": "b"}]}
    assert read(tmp_path / "a.jsonl", json.dumps(row)) == [row]


@pytest.mark.parametrize(
    ("whole", "what", "hint"),
    [
        (
            {"q": {"0": "a", "1": "b"}, "a": {"0": "c", "1": "d"}},
            "columns, not rows: q, a",
            "orient",
        ),
        ({"q": ["a", "b"], "a": ["c", "d"]}, "columns, not rows", "orient"),
        ({"columns": ["q"], "index": [0], "data": [["a"]]}, "columns, not rows", "orient"),
        ({"train": ROWS, "test": ROWS[:3]}, "2 lists of rows: train (30), test (3)", ".train[]"),
    ],
)
def test_what_holds_no_rows_is_refused_in_words(
    tmp_path: Path, whole: object, what: str, hint: str
) -> None:
    for indent in (None, 1):
        with pytest.raises(Refused) as caught:
            read(tmp_path / "a.json", json.dumps(whole, indent=indent))
        assert caught.value.code == "bad_file"
        assert what in caught.value.message
        assert hint in caught.value.hint


def test_what_stands_behind_the_end_of_a_list_is_no_secret(tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"a\.json, line 5: not JSON: there is more behind its end"):
        read(tmp_path / "a.json", '[\n{"a": 1},\n{"a": 2}\n]\n{"a": 3}\n')
    with pytest.raises(Refused, match="more behind its end"):
        read(tmp_path / "b.json", '{"data": [\n{"a": 1}\n]\n} x')


def test_lists_one_a_line_are_rows_that_cannot_be_used(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('[{"role": "user"}]\n[{"role": "user"}]\n')
    assert [row.problem[:9] for row in read_file(path)] == ["is a list"] * 2


def test_a_broken_first_line_costs_itself_alone(tmp_path: Path) -> None:
    for name in NAMES:
        path = tmp_path / name
        path.write_text('{"q": "a\n' + LINES)
        rows = list(read_file(path))
        assert [bool(row.problem) for row in rows] == [True] + [False] * 30


def test_a_long_object_is_read_from_its_beginning_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    for whole in (json.dumps({"v": 1, "data": ROWS}), json.dumps({"data": ROWS}, indent=1)):
        path.write_text(whole[: len(whole) // 2])
        rows = read_file(path, cut=True)
        assert [dict(next(rows).values) for _ in range(5)] == ROWS[:5]
