"""Validate reads files as people have them, on every road, and names those that it does not."""

import bz2
import gzip
import json
import lzma
import os

import pyarrow as pa
import pyarrow.parquet
import pytest
from datasets import Dataset, DatasetDict
from tests.e2e.validate.conftest import ROWS, jsonl, refused, write_files

from ftq_shared.dataset_files import UNREAD_LIST, UnreadFile, unread_to_json
from ftq_shared.errors import FtqError
from ftq_shared.events import EventType

CSV = "question,answer\n" + "".join(f"{row['question']},{row['answer']}\n" for row in ROWS)
MANY = [{"question": f"q{n} größer?", "answer": f"a{n}"} for n in range(20_000)]


def zstd(data: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as out:
        out.write(data)
    return bytes(sink.getvalue())


def arrow(rows) -> bytes:
    table, sink = pa.Table.from_pylist(rows), pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=1000)
    return bytes(sink.getvalue())


def feather(rows) -> bytes:
    table, sink = pa.Table.from_pylist(rows), pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


FILES = {
    "ROWS.JSONL": jsonl(ROWS),
    "rows.ndjson": jsonl(ROWS),
    "rows.tsv": CSV.replace(",", "\t"),
    "rows.csv.gz": gzip.compress(CSV.encode()),
    "rows.csv.zst": zstd(CSV.encode()),
    "rows.jsonl.xz": lzma.compress(jsonl(ROWS).encode()),
    "rows.json.bz2": bz2.compress(json.dumps(ROWS).encode()),
    "rows.json": json.dumps({"version": 1, "data": ROWS}, indent=1),
    "long.json": json.dumps({"version": 1, "data": MANY}),
    "pretty.jsonl": json.dumps(MANY, indent=1),
    "utf16.csv": CSV.encode("utf-16"),
    "long.csv": ("question,answer\n" + "größe,b\n" * 90_000).encode("utf-16"),
    "long.jsonl.zst": zstd(jsonl(MANY).encode()),
    "long.jsonl.bz2": bz2.compress(jsonl(MANY).encode()),
    "rows.arrow": arrow(MANY),
    "rows.feather": feather(MANY),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_read_on_every_road(start, hub, tmp_path, name):
    hub.add("dataset", "org/kinds", {name: FILES[name]})
    try:
        assert start({"dataset": "org/kinds"}).go().dataset.columns == ["question", "answer"]
    finally:
        hub.store.delete_repo("dataset", "org/kinds")
    folder = write_files(tmp_path / "rows", {name: FILES[name]})
    assert start({"dataset": f"worker:{folder}/{name}"}).go().dataset.columns == [
        "question",
        "answer",
    ]
    run = start({"dataset": f"./{name}"})
    write_files(run.ctx.paths.inputs / "dataset", {name: FILES[name]})
    assert run.go().dataset.columns == ["question", "answer"]


def warnings(run) -> list[str]:
    return [data["message"] for data in run.of(EventType.WARNING)]


def test_files_of_a_folder_that_are_not_read_are_named(start, hub):
    files = {"train.jsonl": jsonl(ROWS), "notes.docx": "x", "README.md": "x", "LICENSE": "x"}
    run = start({"dataset": "./rows", "data": {"allow": ["unread_files"]}})
    write_files(run.ctx.paths.inputs / "dataset", files)
    assert len(run.go().dataset.files) == 1
    (told,) = warnings(run)
    assert "1 file of rows not used: notes.docx (files of kind .docx are not read)" in told
    hub.add("dataset", "org/beside", files | {"extra.jsonl": jsonl(ROWS)})
    run = start({"dataset": "org/beside"})
    run.go()
    (told,) = warnings(run)
    assert "2 files of org/beside not used: extra.jsonl (is in no split), notes.docx" in told


def test_what_of_a_folder_cannot_be_read_stops_the_job_or_is_told(start, tmp_path):
    folder = tmp_path / "rows"
    write_files(folder, {"a.jsonl": jsonl(ROWS), ".old.jsonl": "x"})
    run = start({"dataset": f"worker:{folder}"})
    run.go()
    assert ".old.jsonl (is hidden: a dot begins its name)" in warnings(run)[0]
    (folder / "b.jsonl").symlink_to("gone.jsonl")
    os.mkfifo(folder / "c.jsonl")
    error = refused(start({"dataset": f"worker:{folder}"}))
    assert error.code == "unread_files"
    assert "b.jsonl (is a link that leads nowhere), c.jsonl (is a pipe, not a file)" in str(error)
    error = refused(start({"dataset": f"worker:{folder}/c.jsonl"}))
    assert (error.code, "is a pipe" in error.message) == ("data_format", True)


def test_what_did_not_travel_is_told(start):
    run = start({"dataset": "./rows"})
    told = [UnreadFile(f"{n:03}.mp3", "files of kind .mp3 are not read", True) for n in range(140)]
    files = {"a.jsonl": jsonl(ROWS), UNREAD_LIST: unread_to_json(told)}
    write_files(run.ctx.paths.inputs / "dataset", files)
    error = refused(run)
    assert error.code == "unread_files"
    assert "140 of the files of rows would not be used: 000.mp3" in error.message
    assert "and 135 more" in warnings(run)[0]
    write_files(run.ctx.paths.inputs / "dataset", {UNREAD_LIST: "[1"})
    with pytest.raises(FtqError, match="is damaged") as caught:
        run.go()
    assert caught.value.code == "input_lost"


def test_files_whose_columns_differ_are_told(start):
    run = start({"dataset": "./rows"})
    files = {"a.jsonl": jsonl(ROWS), "b.jsonl": jsonl(ROWS), "c.csv": "text,label\na,b\n"}
    write_files(run.ctx.paths.inputs / "dataset", files)
    run.go()
    (told,) = warnings(run)
    assert "a.jsonl has question, answer; c.csv has text, label" in told


@pytest.mark.parametrize("road", ["hub", "own"])
def test_a_header_that_looks_like_data_is_told(start, hub, road):
    files = {"rows.csv": "text,1\n" + "a,1\n" * 9}
    if road == "hub":
        hub.add("dataset", "org/headless", files)
    run = start({"dataset": "org/headless" if road == "hub" else "./rows.csv", "task": "text"})
    write_files(run.ctx.paths.inputs / "dataset", files)
    run.go()
    assert any("rows.csv: its first row is taken for the names" in text for text in warnings(run))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (jsonl(ROWS), "each is a JSON object; rename it to .jsonl"),
        (CSV.replace(",", "\t").encode("utf-16"), "each has 2 fields apart by tabs"),
        ("plain text\nand\tmore\n", ""),
    ],
)
def test_a_table_by_the_name_of_text_is_told(start, content, words):
    run = start({"dataset": "./rows.txt"})
    write_files(run.ctx.paths.inputs / "dataset", {"rows.txt": content})
    run.go()
    assert [words in text for text in warnings(run)] == [True] * bool(words)


def test_a_saved_dataset_is_read_on_disk_and_on_the_hub(start, hub, tmp_path):
    rows = Dataset.from_list(ROWS)
    folder = tmp_path / "saved"
    DatasetDict({"train": rows, "test": rows, "fold": rows}).save_to_disk(folder)
    files = {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }
    run = start({"dataset": "./saved"})
    write_files(run.ctx.paths.inputs / "dataset", files)
    found = run.go()
    assert set(found.dataset.splits) == {"train", "test", "fold"}
    assert len(found.dataset.files) == 3
    hub.add("dataset", "org/saved", files)
    run = start({"dataset": "org/saved"})
    assert set(run.go().dataset.splits) == {"train", "test", "fold"}
    assert warnings(run) == ["splits that are not used: fold"]


@pytest.mark.parametrize(
    ("files", "code", "words"),
    [
        ({"rows.csv": "größe;a\n1;2\n".encode("cp1252")}, "bad_encoding", "iconv -f WINDOWS-1252"),
        ({"rows.csv": 'q,a\n1,"x\n' + "2,y\n" * 50}, "bad_row", "rows.csv, line 2"),
        ({"rows.csv": "q,a\n1\n2\n"}, "bad_row", "as many fields as the header"),
        ({"rows.json": json.dumps({"q": {"0": "a"}})}, "bad_file", "columns, not rows"),
        ({"rows.jsonl.gz": "no gzip"}, "bad_file", "cannot be unpacked"),
        ({"rows.arrow": "no arrow"}, "bad_file", "no Arrow file"),
        ({"rows.docx": "x", "x.zip": "x"}, "data_format", "x.zip (files of kind .zip"),
    ],
)
def test_what_cannot_be_read_is_told_in_the_words_of_its_kind(start, files, code, words):
    run = start({"dataset": "./rows"})
    write_files(run.ctx.paths.inputs / "dataset", files)
    error = refused(run)
    assert error.code == code
    assert words in error.message + error.hint


def test_a_script_with_an_archive_beside_is_a_script(start, hub):
    hub.add("dataset", "org/script", {"script.py": "import os", "data.zip": "x"})
    assert refused(start({"dataset": "org/script"})).code == "dataset_script"


def test_a_missing_config_is_named_as_it_is_to_be_written(start, hub):
    card = "---\nconfigs:\n- config_name: easy\n  data_files: a.jsonl\n"
    card += "- config_name: hard one\n  data_files: b.jsonl\n---\n"
    files = {"README.md": card, "a.jsonl": jsonl(ROWS), "b.jsonl": jsonl(ROWS)}
    sha = hub.add("dataset", "org/two", files)
    error = refused(start({"dataset": "org/two"}))
    assert error.where["nearest"] == ["org/two:easy", "org/two:hard one"]
    assert error.hint.endswith("--set dataset=org/two:easy")
    error = refused(start({"dataset": f"org/two:esy@{sha}"}))
    assert error.where["nearest"][0] == f"org/two:easy@{sha}"
    assert start({"dataset": error.where["nearest"][0]}).go().dataset.config == "easy"


def test_a_slice_of_a_split_is_told_in_settings(start):
    error = refused(start({"data": {"split": "train[:5]"}}))
    assert error.hint == "--set data.split=train --set data.max_rows=5"


@pytest.mark.parametrize("road", ["hub", "own"])
@pytest.mark.parametrize("kind", ["parquet", "arrow", "jsonl"])
def test_a_column_that_begins_late_is_told_on_every_road(start, hub, road, kind):
    rows = [{**MANY[n], "note": f"n{n}" if n > 500 else None} for n in range(1000)]
    sink = pa.BufferOutputStream()
    pa.parquet.write_table(pa.Table.from_pylist(rows), sink)
    content = {"parquet": bytes(sink.getvalue()), "arrow": arrow(rows), "jsonl": jsonl(rows)}[kind]
    if road == "hub":
        hub.add("dataset", f"org/late-{kind}", {f"rows.{kind}": content})
    run = start({"dataset": f"org/late-{kind}" if road == "hub" else f"./rows.{kind}"})
    write_files(run.ctx.paths.inputs / "dataset", {f"rows.{kind}": content})
    run.go()
    assert (
        "21 rows that were looked at can be used; not used: note"
        in (run.checks["examples"]["message"])
    )
