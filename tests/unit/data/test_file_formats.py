"""Readers: every format, and what they say about what is broken."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Dataset, Features, Value

from ftq_shared.errors import Refused
from ftq_worker.data import file_formats as readers
from ftq_worker.data.file_formats import read_file
from ftq_worker.data.rows import Row
from ftq_worker.data.split_sources import file_sources, open_files, pick_split, split_files


def read(path: Path) -> list[Row]:
    return list(read_file(path))


def put(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_jsonl_rows_carry_their_line_and_blank_lines_are_none(tmp_path: Path) -> None:
    rows = read(put(tmp_path / "a.jsonl", '\ufeff{"a": 1}\n\n   \n{"a": "ü"}'))
    assert [(r.number, r.line, dict(r.values)) for r in rows] == [
        (0, 1, {"a": 1}),
        (1, 4, {"a": "ü"}),
    ]


@pytest.mark.parametrize(
    ("line", "what"),
    [
        (b'{"a": 1,}', "not JSON"),
        (b'{"a": "x', "not JSON"),
        (b'{"a": "\xff"}', "not UTF-8 at byte 8"),
        (b"[1, 2]", "is a list"),
        (b'"text"', "is a string"),
        (b"null", "is a null"),
        (b"[" * 100_000, "nested too deeply"),
    ],
)
def test_a_broken_jsonl_line_is_told_and_the_others_stay(
    tmp_path: Path, line: bytes, what: str
) -> None:
    rows = read(put(tmp_path / "a.jsonl", b'{"a": 1}\n' + line + b'\n{"a": 3}\n'))
    assert [r.line for r in rows] == [1, 2, 3]
    assert what in rows[1].problem
    assert not rows[0].problem
    assert not rows[2].problem


def test_a_json_list_is_read_element_by_element(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = [{"n": n, "text": f"tüxt {n}", "deep": [[n], {"a": "]}"}]} for n in range(50)]
    path = put(tmp_path / "a.json", json.dumps(values, indent=1, ensure_ascii=False))
    for size in (1, 7, 64, 1 << 20):  # a buffer that ends anywhere
        monkeypatch.setattr(readers, "_BUFFER", size)
        rows = read(path) if size > 1 else list(readers._read_array(path, 0))
        assert [dict(r.values) for r in rows] == values
        assert rows[1].line == 14


@pytest.mark.parametrize("size", [3, 13, 14, 15, 1 << 20])
def test_a_json_list_of_numbers_and_a_broken_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr(readers, "_BUFFER", size)
    rows = read(put(tmp_path / "a.json", '[{"a": 1},\n 12345, null]'))
    assert [r.problem[:8] for r in rows] == ["", "is a num", "is a nul"]
    with pytest.raises(Refused) as caught:
        read(put(tmp_path / "b.json", '[{"a": 1},\n{"a": 2},\n{"a" 3}]'))
    assert caught.value.code == "bad_row"
    assert caught.value.where == {"file": "b.json", "line": 3}
    with pytest.raises(Refused, match="missing"):
        read(put(tmp_path / "c.json", '[{"a": 1}'))


def test_jsonl_by_the_name_of_json_is_read_and_one_object_is_not(tmp_path: Path) -> None:
    assert len(read(put(tmp_path / "a.json", '{"a": 1}\n{"a": 2}\n'))) == 2
    with pytest.raises(Refused, match="not a list of rows"):
        read(put(tmp_path / "b.json", '{\n "train": []\n}'))
    assert read(put(tmp_path / "c.json", "")) == []
    assert read(put(tmp_path / "d.json", "[]")) == []


def test_csv_rows_carry_the_line_they_begin_on(tmp_path: Path) -> None:
    content = b'q;a\r\n"two\r\nlines";x\r\n\r\nshort\r\nlast;\xff\r\nok;"say ""hi"""\r\n'
    rows = read(put(tmp_path / "a.csv", content))
    assert [(r.line, r.problem) for r in rows] == [
        (2, ""),
        (5, "has 1 fields, the header has 2"),
        (6, "not UTF-8"),
        (7, ""),
    ]
    assert dict(rows[0].values) == {"q": "two\r\nlines", "a": "x"}
    assert rows[3].values["a"] == 'say "hi"'


def test_a_csv_quote_that_is_never_closed_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readers, "_FIELD_LIMIT", 100)
    with pytest.raises(Refused) as caught:
        read(put(tmp_path / "a.csv", 'q,a\n1,2\n3,"4\n' + "5,6\n" * 100))
    assert caught.value.where == {"file": "a.csv", "line": 3}
    assert "quote" in caught.value.hint


def test_txt_is_one_row_a_line(tmp_path: Path) -> None:
    rows = read(put(tmp_path / "a.txt", b"one\n\n two \nb\xe4d\n"))
    assert [(r.line, dict(r.values), r.problem) for r in rows] == [
        (1, {"text": "one"}, ""),
        (3, {"text": " two "}, ""),
        (4, {}, "not UTF-8"),
    ]


def test_parquet_tells_rows_columns_and_label_names(tmp_path: Path) -> None:
    features = Features({"text": Value("string"), "label": ClassLabel(names=["no", "yes"])})
    Dataset.from_dict({"text": ["a", "b"], "label": [1, 0]}, features).to_parquet(
        tmp_path / "a.parquet"
    )
    source = open_files("train", [tmp_path / "a.parquet"])
    assert (source.rows, source.columns) == (2, ["text", "label"])
    assert source.label_names == {"label": ["no", "yes"]}
    assert next(dict(r.values) for r in source.read()) == {"text": "a", "label": 1}


def test_a_parquet_file_that_is_none_and_an_unknown_kind(tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"a\.parquet is no parquet file"):
        open_files("train", [put(tmp_path / "a.parquet", "PAR1 no")])
    with pytest.raises(Refused, match="no kind of file"):
        read(put(tmp_path / "a.xlsx", ""))
    with pytest.raises(Refused, match=r"gone\.jsonl cannot be read"):
        read(tmp_path / "gone.jsonl")


def test_rows_are_numbered_through_all_files(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": [1, 2]}), tmp_path / "0.parquet")
    put(tmp_path / "1.jsonl", '{"a": 3}\n')
    rows = list(open_files("train", [tmp_path / "0.parquet", tmp_path / "1.jsonl"]).read())
    assert [(r.number, r.file, r.line) for r in rows] == [
        (0, "0.parquet", None),
        (1, "0.parquet", None),
        (2, "1.jsonl", 1),
    ]


@pytest.mark.parametrize(
    ("files", "splits"),
    [
        (["x/test.jsonl"], {"train": ["test.jsonl"]}),
        (["d/a.csv", "d/b.csv"], {"train": ["a.csv", "b.csv"]}),
        (
            ["d/train-0.csv", "d/train-1.csv", "d/dev.csv", "d/my_test.csv"],
            {
                "validation": ["dev.csv"],
                "test": ["my_test.csv"],
                "train": ["train-0.csv", "train-1.csv"],
            },
        ),
        (
            ["d/test/0.parquet", "d/train/0.parquet"],
            {"test": ["0.parquet"], "train": ["0.parquet"]},
        ),
        (["test_dir/a.csv", "test_dir/b.csv"], {"train": ["a.csv", "b.csv"]}),
        (["d/train.txt", "d/extra.txt"], {"extra": ["extra.txt"], "train": ["train.txt"]}),
        ([], {}),
    ],
)
def test_names_say_which_split_a_file_is(files: list[str], splits: dict[str, list[str]]) -> None:
    found = split_files(files)
    assert {name: [p.name for p in paths] for name, paths in found.items()} == splits


def test_a_split_that_is_not_there(tmp_path: Path) -> None:
    sources = file_sources([put(tmp_path / "train.txt", "a\n"), put(tmp_path / "test.txt", "b\n")])
    with pytest.raises(Refused, match="has no split 'dev'; it has test, train"):
        pick_split(sources, "dev")
