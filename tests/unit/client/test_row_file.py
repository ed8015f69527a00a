"""The file of rows that one command writes and another reads, and what is told of a wrong one."""

import json
from pathlib import Path

import pytest

from ftq_client.row_file import KEYS, check_new, read_rows, write_rows
from ftq_shared.errors import UsageError
from ftq_shared.events import EVENTS, EventType
from ftq_shared.row_refs import ROWS_MAX, RowRef

JOB = "ft-7k3q2xhd"
ROW = {"step": 3, "file": "a b.jsonl", "row": 12, "line": 13, "tokens": 5, "trained": 2,
       "loss": None, "nonfinite": ["loss"], "text": "Say \x1b[31m§"}  # fmt: skip


def refusal(path: Path) -> UsageError:
    with pytest.raises(UsageError) as caught:
        read_rows(path, JOB)
    assert caught.value.hint
    return caught.value


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    write_rows(path, JOB, [ROW, {**ROW, "row": 2}])
    assert read_rows(path, JOB) == [RowRef("a b.jsonl", 12), RowRef("a b.jsonl", 2)]
    assert "\x1b" not in path.read_text()
    first, _ = path.read_text().splitlines()
    assert json.loads(first) == {"job": JOB, **ROW}


def test_a_line_may_have_all_that_a_row_event_has() -> None:
    spec = EVENTS[EventType.REPLAY_ROW]
    assert set(KEYS) == {"job", *spec.fields}


def test_nothing_is_written_over(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text("mine")
    dangling = tmp_path / "dangling"
    dangling.symlink_to(tmp_path / "nowhere")
    for name, words in {
        "data.jsonl": "File exists",
        "dangling": "File exists",
        "no/rows.jsonl": "No such file",
        "data.jsonl/rows.jsonl": "Not a directory",
        "x" * 300: "File name too long",
    }.items():
        for refuse in (check_new, lambda path: write_rows(path, JOB, [ROW])):
            with pytest.raises(UsageError, match=words):
                refuse(tmp_path / name)
    assert path.read_text() == "mine"
    check_new(tmp_path / "new.jsonl")
    assert not (tmp_path / "new.jsonl").exists()


def test_a_hand_written_line_and_doubles_and_blank_lines_are_taken(tmp_path: Path) -> None:
    path = tmp_path / "rows"
    path.write_text('{"file":"a","row":1}\n\n{"row":1,"file":"a"}\n')
    assert read_rows(path, JOB) == [RowRef("a", 1)]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("rows.jsonl 12", "no JSON object: 'rows.jsonl 12'"),
        ("[1]", "no JSON object"),
        ('{"file":"a"}', "row is None, and not a whole number from 0"),
        ('{"file":"a","row":-1}', "row is -1"),
        ('{"file":"a","row":true}', "row is True"),
        ('{"file":"a","row":"3"}', "row is '3'"),
        ('{"row":3}', "no file is named"),
        ('{"file":"a","rows":3}', "an unknown key 'rows'; did you mean row?"),
        ('{"file":"a","row":1,"job":"ft-other234"}', "a row of another job, 'ft-other234'"),
    ],
)
def test_a_line_that_names_no_row_is_named(tmp_path: Path, line: str, words: str) -> None:
    path = tmp_path / "rows"
    path.write_text(f'{{"file":"a","row":1}}\n{line}\n')
    error = refusal(path)
    assert f"line 2: {words}" in error.message
    assert (error.where["file"], error.where["line"]) == (str(path), 2)


def test_all_wrong_lines_are_told_together(tmp_path: Path) -> None:
    path = tmp_path / "rows"
    path.write_text("x\n" * 9)
    assert "line 5: no JSON object: 'x'; and 4 more lines" in refusal(path).message


def test_files_that_say_nothing(tmp_path: Path) -> None:
    path = tmp_path / "rows"
    assert "No such file" in refusal(path).message
    path.write_text("\n")
    assert "names no row" in refusal(path).message
    path.write_bytes(b"\xff\xfe")
    assert "no UTF-8 text" in refusal(path).message
    path.write_text("".join(f'{{"file":"a","row":{n}}}\n' for n in range(ROWS_MAX + 1)))
    assert "at most 10,000" in refusal(path).message
