"""Readers: every format, and what they say about what is broken."""

import gzip
import json
import resource
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Dataset, Features, Value

from ftq_shared.errors import Refused
from ftq_worker.data import compressed, csv_rows, json_document
from ftq_worker.data.file_formats import read_file
from ftq_worker.data.json_rows import read_array
from ftq_worker.data.rows import ROW_MAX, Row
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
        monkeypatch.setattr(json_document, "BUFFER", size)
        rows = read(path) if size > 1 else list(read_array(path, 0))
        assert [dict(r.values) for r in rows] == values
        assert rows[1].line == 14


@pytest.mark.parametrize("size", [3, 13, 14, 15, 1 << 20])
def test_a_json_list_of_numbers_and_a_broken_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr(json_document, "BUFFER", size)
    rows = read(put(tmp_path / "a.json", '[{"a": 1},\n 12345, null]'))
    assert [r.problem[:8] for r in rows] == ["", "is a num", "is a nul"]
    with pytest.raises(Refused) as caught:
        read(put(tmp_path / "b.json", '[{"a": 1},\n{"a": 2},\n{"a" 3}]'))
    assert caught.value.code == "bad_row"
    assert caught.value.where == {"file": "b.json", "line": 3}
    with pytest.raises(Refused, match="missing"):
        read(put(tmp_path / "c.json", '[{"a": 1}'))


def test_jsonl_by_the_name_of_json_is_read_and_an_empty_file_holds_nothing(tmp_path: Path) -> None:
    assert len(read(put(tmp_path / "a.json", '{"a": 1}\n{"a": 2}\n'))) == 2
    assert read(put(tmp_path / "c.json", "")) == []
    assert read(put(tmp_path / "d.json", "[]")) == []


def test_csv_rows_carry_the_line_they_begin_on(tmp_path: Path) -> None:
    content = b'q;a\r\n"two\r\nlines";x\r\n\r\nshort\r\nlast;\xff\r\nok;"say ""hi"""\r\n'
    rows = read(put(tmp_path / "a.csv", content))
    assert [(r.line, r.problem) for r in rows] == [
        (2, ""),
        (5, "has 1 fields, the header has 2"),
        (6, "not UTF-8 in a"),
        (7, ""),
    ]
    assert dict(rows[0].values) == {"q": "two\r\nlines", "a": "x"}
    assert rows[3].values["a"] == 'say "hi"'


def test_a_csv_quote_that_is_never_closed_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(csv_rows, "_FIELD_LIMIT", 100)
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


@pytest.mark.parametrize(
    ("row", "what"),
    [
        ('{"a": ' + "9" * 5000 + "}", "4,300 digits"),
        ("[" * 100_000 + "]" * 100_000, "nested too deeply"),
        ('{"a": ' + "[" * 100_000 + '"]"' + "]" * 100_000 + "}", "nested too deeply"),
        ('{"a": "\\ud800"}', "half a character"),
        ('{"\\ud800": 1}', "half a character"),
        ('{"a": "\\ud83d\\ude00"}', ""),
        ('{"a": "' + "x" * (ROW_MAX + 1) + '"}', "longer than 16 MiB"),
    ],
)
@pytest.mark.parametrize("form", [".jsonl", ".json"])
def test_a_strange_row_costs_that_row_alone(tmp_path: Path, row: str, what: str, form: str) -> None:
    lines = ['{"a": 1}', row, '{"a": 3}']
    text = "\n".join(lines) if form == ".jsonl" else f"[{','.join(lines)}]"
    found = read(put(tmp_path / f"a{form}", text))
    assert [bool(one.problem) for one in found] == [False, bool(what), False]
    assert what in found[1].problem
    assert dict(found[2].values) == {"a": 3}


@pytest.mark.parametrize("size", [5, 64, 1 << 20])
def test_a_deep_element_is_skipped_wherever_a_buffer_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr(json_document, "BUFFER", size)
    deep = "[" * 3000 + r'"a\"]\\"' + ', {"b": "]}"}' + "]" * 3000
    found = list(read_array(put(tmp_path / "a.json", f'[{deep}, {{"a": 3}}]'), 0))
    assert [dict(one.values) for one in found] == [{}, {"a": 3}]
    with pytest.raises(Refused, match="never closed"):
        list(read_array(put(tmp_path / "b.json", f"[{deep[:-1]}"), 0))


@pytest.mark.parametrize("mark", ["\u2028", "\u0085", "\x0c", "\x1c"])
def test_jsonl_by_the_name_of_json_may_hold_any_line_mark(tmp_path: Path, mark: str) -> None:
    first = json.dumps({"a": f"x{mark}y"}, ensure_ascii=False)
    if mark < " ":
        first = json.dumps({"a": "x"}) + mark  # it is no JSON inside a text
    found = read(put(tmp_path / "a.json", f'{first}\n{{"a": 2}}\n'))
    assert len(found) == 2


def test_jsonl_by_the_name_of_json_may_begin_with_a_long_or_strange_row(tmp_path: Path) -> None:
    for first in ('{"a": "' + "x" * (2 << 20) + '"}', '{"a": ' + "9" * 5000 + "}"):
        assert len(read(put(tmp_path / "a.json", f'{first}\n{{"a": 2}}\n'))) == 2


def test_a_line_without_end_is_named(tmp_path: Path) -> None:
    endless = "x" * (ROW_MAX + 5)
    rows = read(put(tmp_path / "a.txt", f"one\n{endless}\nthree\n"))
    assert [(one.line, one.problem[:11]) for one in rows] == [(1, ""), (2, "is longer t"), (3, "")]
    with pytest.raises(Refused, match=r"a\.csv, line 2"):
        read(put(tmp_path / "a.csv", f"a,b\n{endless}\n1,2\n"))
    wide = ",".join(['"' + ("y" * 100 + "\n") * 70_000 + '"'] * 3)
    found = read(put(tmp_path / "b.csv", f"a,b,c\n{wide}\n1,2,3\n"))
    assert [bool(one.problem) for one in found] == [True, False]


def test_a_small_parquet_file_that_stands_for_gigabytes(tmp_path: Path) -> None:
    """Equal texts are written once: the file is small, and so is what reading it takes."""
    equal = pa.array(["x" * 2_000_000] * 200)
    pq.write_table(pa.table({"text": equal}), tmp_path / "a.parquet", compression="zstd")
    indices = pa.array([0] * 200_000, pa.int32())
    texts = pa.DictionaryArray.from_arrays(indices, pa.array(["y" * 1_000_000]))
    lists = pa.ListArray.from_arrays(pa.array([0, 200_000], pa.int32()), texts)
    pq.write_table(pa.table({"m": lists}), tmp_path / "b.parquet", compression="zstd")
    del equal
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert (tmp_path / "a.parquet").stat().st_size < 2000
    rows = [len(row.values["text"]) for row in read_file(tmp_path / "a.parquet")]
    assert rows == [2_000_000] * 200
    (row,) = read(tmp_path / "b.parquet")
    assert "longer than 16 MiB" in row.problem
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # KiB


def test_all_types_of_parquet_come_as_pyarrow_gives_them(tmp_path: Path) -> None:
    table = pa.table(
        {
            "map": pa.array([[("a", "b")], None], pa.map_(pa.string(), pa.string())),
            "large": pa.array([["x"], None], pa.large_list(pa.large_string())),
            "fixed": pa.array([["x", "y"], ["a", "b"]], pa.list_(pa.string(), 2)),
            "binary": [b"\xff\xd8", None],
            "null": pa.nulls(2),
            "coded": pa.array(["q", None]).dictionary_encode(),
            "nested": pa.array([{"a": None}, {"a": [{"z": "x"}]}]),
        }
    )
    pq.write_table(table, tmp_path / "a.parquet")
    assert [dict(row.values) for row in read(tmp_path / "a.parquet")] == table.to_pylist()


def test_a_value_that_python_has_no_word_for_costs_no_row(tmp_path: Path) -> None:
    far = pa.array([10**7, 1], pa.int32()).cast(pa.date32())
    bad = pa.Array.from_buffers(
        pa.string(), 2, [None, pa.array([0, 1, 2], pa.int32()).buffers()[1], pa.py_buffer(b"a\xff")]
    )
    pq.write_table(pa.table({"text": ["x", "y"], "when": far}), tmp_path / "a.parquet")
    assert [row.values["text"] for row in read(tmp_path / "a.parquet")] == ["x", "y"]
    pq.write_table(pa.table({"text": bad}), tmp_path / "b.parquet")
    assert [bool(row.problem) for row in read(tmp_path / "b.parquet")] == [False, True]


def test_bytes_that_are_text_are_text(tmp_path: Path) -> None:
    columns = {"text": [b"gr\xc3\xb6\xc3\x9fer", None], "picture": [b"\xff\xd8", b"\x89PNG"]}
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    first, second = (dict(row.values) for row in read(tmp_path / "a.parquet"))
    assert first == {"text": "größer", "picture": b"\xff\xd8"}
    assert second == {"text": None, "picture": b"\x89PNG"}


def test_what_the_metadata_of_a_newer_library_says_is_no_obstacle(tmp_path: Path) -> None:
    features = {"label": {"names": ["no", "yes"], "_type": "ClassLabel"}, "m": {"_type": "Future"}}
    meta = {"huggingface": json.dumps({"info": {"features": features}})}
    columns = {"label": [1], "m": pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int64()))}
    pq.write_table(pa.table(columns).replace_schema_metadata(meta), tmp_path / "a.parquet")
    source = open_files("train", [tmp_path / "a.parquet"])
    assert (source.columns, source.label_names) == (["label", "m"], {"label": ["no", "yes"]})
    assert [dict(row.values) for row in source.read()] == [{"label": 1, "m": [("a", 1)]}]


@pytest.mark.parametrize("at", range(0, 400, 7))
def test_a_damaged_parquet_file_is_a_refusal(tmp_path: Path, at: int) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"t": ["a", "b"], "m": [[{"r": "x"}], []]}), path)
    content = bytearray(path.read_bytes())
    content[at % len(content)] ^= 0xFF
    path.write_bytes(bytes(content))
    try:
        rows = [row for source in [open_files("train", [path])] for row in source.read()]
    except Refused as refused:
        rows = []
        assert refused.code == "bad_file"  # noqa: PT017  many of the changes do no harm
    assert len(rows) <= 2


def test_a_gz_that_unpacks_to_far_more_than_text_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compressed, "_ALWAYS", 1 << 20)
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(b"x" * 1000))
    compressed.refuse_bomb(path)
    path.write_bytes(gzip.compress(bytes(10 << 20)))
    with pytest.raises(Refused, match="unpacks to more"):
        compressed.refuse_bomb(path)
    for damaged in (b"no gzip", gzip.compress(b"x" * 1000)[:-9]):
        path.write_bytes(damaged)
        with pytest.raises(Refused, match="cannot be unpacked"):
            compressed.refuse_bomb(path)
