"""CSV as people write it: every row read, or told with its line and field."""

from pathlib import Path

import pytest

from ftq_shared.errors import Refused
from ftq_worker.data.csv_rows import doubts_of
from ftq_worker.data.file_formats import read_file
from ftq_worker.data.rows import Row


def put(path: Path, content: str) -> Path:
    path.write_text(content, newline="")
    return path


def read(path: Path, content: str) -> list[Row]:
    return list(read_file(put(path, content)))


def values(rows: list[Row]) -> list[dict[str, str]]:
    return [dict(row.values) for row in rows]


@pytest.mark.parametrize(
    "rows",
    [
        '7,"open\n' + "".join(f"{i},text\n" for i in range(50)),  # to the end of the file
        '7,"open\n' + "".join(f'{i},"text, {i}"\n' for i in range(50)),  # to the next quote
        '7,"open\n' + "".join(f"{i},text\n" for i in range(50)) + '9,closed"\n1,x\n',
        '7,"one "odd" quote" more"\n8,x\n',
    ],
)
@pytest.mark.parametrize("before", [1, 300])
def test_a_quote_that_is_not_closed_ends_the_reading(
    tmp_path: Path, rows: str, before: int
) -> None:
    with pytest.raises(Refused) as caught:
        read(tmp_path / "a.csv", "n,text\n" + "1,first\n" * before + rows)
    assert caught.value.code == "bad_row"
    assert caught.value.where == {"file": "a.csv", "line": before + 2}
    assert f"line {before + 2}" in caught.value.hint


def test_a_quote_within_a_quoted_field_costs_its_row_where_the_line_is_whole(
    tmp_path: Path,
) -> None:
    rows = read(tmp_path / "a.csv", 'text,label\n"say "hi" to me",x\n"fine",y\n')
    assert [(row.line, bool(row.problem)) for row in rows] == [(2, True), (3, False)]
    assert "quote" in rows[0].problem


def test_a_quoted_field_may_span_many_lines_that_look_like_no_rows(tmp_path: Path) -> None:
    text = "".join(f"line {i}{',' * (i % 3)}\n" for i in range(500))
    rows = read(tmp_path / "a.csv", f'text,label\n"{text}",x\nshort,y\n')
    assert [(row.line, row.problem) for row in rows] == [(2, ""), (503, "")]
    assert rows[0].values["text"] == text


@pytest.mark.parametrize(
    ("content", "first"),
    [
        ("text, label\na b, x\n", {"text": "a b", "label": "x"}),
        (" text ,label \na,x\n", {"text": "a", "label": "x"}),
        ('text, label\n"a, b", "x, y"\n', {"text": "a, b", "label": "x, y"}),
        ('text,label\n"a, b", "x, y"\n"c", "z"\n', {"text": "a, b", "label": "x, y"}),
        ("text,label\n a, x\n", {"text": " a", "label": " x"}),  # blanks that may be meant
    ],
)
def test_blanks_around_names_are_no_part_of_them(
    tmp_path: Path, content: str, first: dict[str, str]
) -> None:
    assert values(read(tmp_path / "a.csv", content))[0] == first


@pytest.mark.parametrize("mark", [",", ";", "\t", "|"])
@pytest.mark.parametrize("name", ["a.csv", "A.CSV", "a.tsv"])
def test_the_delimiter_is_the_one_that_most_rows_fit(tmp_path: Path, name: str, mark: str) -> None:
    rows = [f"why, {i}; and | so?{mark}it is {i}" for i in range(9)]
    quoted = [f'"{left}"{mark}{right}' for left, right in (row.rsplit(mark, 1) for row in rows)]
    found = read(tmp_path / name, "\n".join([f"question{mark}answer", *quoted]))
    assert [row.values["answer"] for row in found] == [f"it is {i}" for i in range(9)]
    assert not any(row.problem for row in found)


def test_commas_in_plain_text_are_no_delimiter_beside_a_semicolon(tmp_path: Path) -> None:
    found = read(tmp_path / "a.csv", "question;answer\nWhat, why, how?;Yes, no, so\n")
    assert values(found) == [{"question": "What, why, how?", "answer": "Yes, no, so"}]


def test_the_line_with_which_excel_names_the_delimiter_is_no_header(tmp_path: Path) -> None:
    (row,) = read(tmp_path / "a.csv", "sep=;\r\nq;a\r\none;two\r\n")
    assert (row.line, dict(row.values)) == (3, {"q": "one", "a": "two"})


def test_a_column_named_twice_is_refused_and_one_without_name_gets_one(tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"line 1: .*'text' more than once \(fields 1 and 3\)"):
        read(tmp_path / "a.csv", "text,label,text\na,b,c\n")
    (row,) = read(tmp_path / "b.csv", ",text,label\n0,a,b\n")  # as pandas writes its index
    assert dict(row.values) == {"Unnamed: 0": "0", "text": "a", "label": "b"}


def test_a_header_is_read_as_strictly_as_rows(tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"a\.csv, line 1: a quote stands within a quoted field"):
        read(tmp_path / "a.csv", '"say "hi"",label\na,b\n')
    (row,) = read(tmp_path / "b.csv", "\n\ntext,label\na,b\n")
    assert (row.line, dict(row.values)) == (4, {"text": "a", "label": "b"})


def test_rows_with_other_fields_than_the_header_are_named(tmp_path: Path) -> None:
    rows = read(tmp_path / "a.csv", "a,b\n1\n1,2\n1,2,3\n   \n\n5,6\n")
    assert [(row.line, row.problem) for row in rows] == [
        (2, "has 1 fields, the header has 2"),
        (3, ""),
        (4, "has 3 fields, the header has 2"),
        (7, ""),
    ]


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("0,good film\n1,bad film\n", "the number 0"),
        ("good,positive\nbad,negative\nfine,positive\nwell,positive\n", "'positive'"),
        ("What is " + "very " * 30 + "long?,yes\nq,a\n", "characters"),
        ("text,label\ngood,positive\n", ""),
        ("text,label\n", ""),
    ],
)
def test_a_first_row_that_looks_like_data_is_doubted(
    tmp_path: Path, content: str, why: str
) -> None:
    found = doubts_of(put(tmp_path / "a.csv", content))
    assert why in found
    assert bool(found) == bool(why)


def test_json_lines_by_the_name_of_csv_are_told(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="holds JSON") as caught:
        read(tmp_path / "my rows.tsv", '{"q": "a", "b": "c"}\n' * 3)
    assert caught.value.hint == "rename it: `mv 'my rows.tsv' 'my rows.jsonl'`"
