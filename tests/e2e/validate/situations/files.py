"""Files: their names, their parts and what they are written in."""

import json

from tests.e2e.validate.situations.base import (
    CSV,
    JSONL,
    ROWS,
    Situation,
    lines,
)

FILES = [
    Situation(
        "a part of a split that is not there",
        files={"train-00000-of-00003.jsonl": JSONL, "train-00002-of-00003.jsonl": JSONL},
        code="missing_files",
        words="2 of 3 parts of train",
    ),
    Situation(
        "all parts of a split",
        files={
            "train-00000-of-00002.jsonl": JSONL,
            "train-00001-of-00002.jsonl": JSONL.replace("q ", "p "),
        },
        trained=("a 3",),
    ),
    Situation(
        "blank rows of plain text",
        [{"text": f"word {n}" if n % 2 else ""} for n in range(ROWS * 2)],
        used=("word 3",),
        told="blank",
    ),
    Situation("no file", files={"notes.docx": "x"}, code="data_format", words=".docx"),
    Situation(
        "a file beside that is not read",
        files={"a.jsonl": JSONL, "b.xlsx": "x"},
        code="unread_files",
        words="b.xlsx",
    ),
    Situation(
        "packed beside",
        files={"a.jsonl": JSONL, "b.csv.bz2": "no bz2"},
        code="bad_file",
        words="b.csv.bz2",
    ),
    Situation(
        "an unclosed quote",
        files={"rows.csv": lines("question,answer", 'q,"a', *(f"q {n},a {n}" for n in range(200)))},
        code="bad_row",
        words="line 2",
    ),
    Situation(
        "blanks behind the commas", files={"rows.csv": CSV.replace(",", ", ")}, trained=("a 3",)
    ),
    Situation("another delimiter", files={"rows.csv": CSV.replace(",", ";")}, trained=("a 3",)),
    Situation(
        "two columns of one name",
        files={"rows.csv": "q,q\n1,2\n"},
        code="bad_file",
        words="rename one",
    ),
    Situation(
        "cp1252",
        files={"rows.csv": CSV.replace("q", "größe").encode("cp1252")},
        code="bad_encoding",
        words="iconv -f WINDOWS-1252",
    ),
    Situation("utf-16 csv", files={"rows.csv": CSV.encode("utf-16")}, trained=("a 3",)),
    Situation("utf-16 jsonl", files={"rows.jsonl": JSONL.encode("utf-16")}, trained=("a 3",)),
    Situation(
        "utf-16 txt", files={"rows.txt": CSV.encode("utf-16")}, used=("q 3,a 3",), unseen=("\x00",)
    ),
    Situation(
        "data inside an object",
        files={
            "rows.json": json.dumps(
                {"data": [{"question": f"q {n}", "answer": f"a {n}"} for n in range(ROWS)]}
            )
        },
        trained=("a 3",),
    ),
    Situation(
        "columns inside an object",
        files={"rows.json": json.dumps({"question": {"0": "q"}})},
        code="bad_file",
        words="columns, not rows",
    ),
    Situation("lines by the name of json", files={"rows.json": JSONL}, trained=("a 3",)),
    Situation("upper case", files={"ROWS.JSONL": JSONL}, trained=("a 3",)),
    Situation(
        "one key twice",
        files={"rows.jsonl": JSONL.replace('{"question"', '{"question": "lost", "question"')},
        code="bad_row",
        words="line 1: names the key 'question' more than once",
    ),
    Situation(
        "one key twice in one row",
        files={"rows.jsonl": JSONL.replace('"q 7"', '"lost", "question": "q 7"')},
        told="'question' more than once",
        unseen=("q 7",),
    ),
    Situation("an empty file", files={"rows.jsonl": ""}, code="empty_dataset"),
    Situation("no JSON", files={"rows.jsonl": "not json\n" * 5}, code="bad_row", words="line 1"),
    Situation("a list that breaks off", files={"rows.json": '[{"question": "q"'}, code="bad_row"),
    Situation("no parquet", files={"rows.parquet": "x"}, code="bad_file"),
    Situation(
        "train equals test",
        files={"train.jsonl": JSONL, "test.jsonl": JSONL},
        code="too_few_rows",
        words="--set data.test=none",
    ),
]
