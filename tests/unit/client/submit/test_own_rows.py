"""What `ftq submit` says of a person's own files before they leave."""

import json
from pathlib import Path
from typing import Any

import pytest

from ftq_client.submit.own_rows import OwnData, look_at
from ftq_client.transfer.files import files_of

ROWS = [{"question": f"q {n}", "answer": "a", "notes": "x" if n < 40 else None} for n in range(300)]


def looked(folder: Path, **files: Any) -> OwnData:
    """Write files (names have __ for a dot) and look at them as `ftq submit` does."""
    for name, content in files.items():
        data = content.encode() if isinstance(content, str) else content
        (folder / name.replace("__", ".")).write_bytes(data)
    found = look_at(files_of("dataset", str(folder)))
    assert found
    assert json.loads(json.dumps(found.as_json()))["files"] == list(found.files)
    return found


def lines(rows: list[Any]) -> str:
    return "".join(f"{json.dumps(row)}\n" for row in rows)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("rows__jsonl", lines(ROWS)),
        ("rows__NDJSON", "\ufeff" + lines(ROWS)),
        ("rows__json", json.dumps(ROWS)),
        ("rows__csv", "question,answer,notes\n" + "".join(
            f"q,a,{row['notes'] or ''}\n" for row in ROWS)),
        ("rows__tsv", "question\tanswer\tnotes\n" + "".join(
            f"q\ta\t{row['notes'] or ''}\n" for row in ROWS)),
    ],
)  # fmt: skip
def test_rows_and_how_many_fill_each_column(tmp_path: Path, name: str, content: str) -> None:
    (line,) = looked(tmp_path, **{name: content}).lines()
    assert line == (
        f"data: {name.replace('__', '.')}, 300 rows, columns question, answer, notes (in 40 of the"
        " first 100)"
    )


def test_files_that_are_not_read_are_named_with_the_reason(tmp_path: Path) -> None:
    found = looked(tmp_path, a__jsonl=lines(ROWS), b__jsonl=lines(ROWS), c__xlsx="x", README__md="")
    first, second = found.lines()
    assert first.startswith("data: 2 files, 600 rows, columns question, answer, notes (in 80 of")
    assert second == "not read: c.xlsx (files of kind .xlsx are not read)"
    assert found.as_json()["unread"] == [
        {"name": "c.xlsx", "reason": "files of kind .xlsx are not read"}
    ]


def test_a_broken_line_is_a_row_and_hides_no_other(tmp_path: Path) -> None:
    found = looked(tmp_path, rows__jsonl='{"a": 1}\n{"a": \n[1]\n{"b": 2}\n')
    assert (found.rows, found.looked_at, found.columns) == (4, 2, {"a": 1, "b": 1})


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"", b"PAR1", "[" * 10_000])
@pytest.mark.parametrize("name", ["rows__json", "rows__parquet", "rows__csv"])
def test_what_a_glance_cannot_read_is_named_alone(
    tmp_path: Path, name: str, content: bytes
) -> None:
    found = looked(tmp_path, **{name: content})
    assert next(found.lines()).startswith(f"data: {name.replace('__', '.')}")


def test_no_data_of_the_client_is_no_word() -> None:
    assert look_at([]) is None
