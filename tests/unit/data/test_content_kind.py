"""Files that are something else than their name says, and packed files."""

import bz2
import gzip
import io
import lzma
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ftq_shared.errors import Refused
from ftq_worker.data import compressed
from ftq_worker.data.file_formats import read_file, schema_of_file

LINES = b'{"q": "a"}\n' * 50
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n"


def zstd(data: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as out:
        out.write(data)
    return bytes(sink.getvalue())


PACK = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress, ".zst": zstd}


def workbook() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("xl/workbook.xml", "<x/>" * 500)
    return file.getvalue()


def table() -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.table({"q": ["a"]}), file)
    return file.getvalue()


def refused(path: Path, content: bytes) -> Refused:
    path.write_bytes(content)
    with pytest.raises(Refused) as caught:
        list(read_file(path))
    assert caught.value.code == "bad_file"
    assert caught.value.where["file"] == path.name
    return caught.value


@pytest.mark.parametrize(
    ("name", "content", "what", "hint"),
    [
        ("a.csv", workbook(), "ZIP archive or an Office document", ".csv or .jsonl"),
        ("a.jsonl", gzip.compress(LINES), "a gzip file", "`mv a.jsonl a.jsonl.gz`"),
        ("a b.csv", zstd(LINES), "a Zstandard file", "`mv 'a b.csv' 'a b.csv.zst'`"),
        ("a.jsonl.gz", gzip.compress(gzip.compress(LINES)), "a gzip file", "packed twice"),
        ("a.csv", table(), "a parquet file", "`mv a.csv a.parquet`"),
        ("a.csv", b"<!DOCTYPE html>\n<html>", "a web page", "download"),
        ("a.txt", POINTER, "a Git LFS pointer", "git lfs pull"),
        ("a.parquet", POINTER, "a Git LFS pointer", "git lfs pull"),
    ],
)
def test_a_file_of_another_kind_is_told(
    tmp_path: Path, name: str, content: bytes, what: str, hint: str
) -> None:
    error = refused(tmp_path / name, content)
    assert what in error.message
    assert hint in error.hint


def test_a_pointer_in_the_place_of_a_table_is_told_before_its_schema(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(POINTER)
    with pytest.raises(Refused, match="Git LFS pointer"):
        schema_of_file(tmp_path / "a.parquet")


@pytest.mark.parametrize("suffix", PACK)
def test_what_unpacks_to_more_than_text_ends_while_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    monkeypatch.setattr(compressed, "_ALWAYS", 1 << 20)
    content = PACK[suffix](b"word " * (2 << 20))
    assert "unpacks to more than" in refused(tmp_path / f"a.txt{suffix}", content).message


@pytest.mark.parametrize("suffix", PACK)
def test_several_packed_parts_in_one_file_are_read(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.jsonl{suffix.upper()}"
    path.write_bytes(PACK[suffix](LINES) + PACK[suffix](LINES))
    assert [row.line for row in read_file(path)] == list(range(1, 101))
    assert "cannot be unpacked" in refused(path, PACK[suffix](LINES)[:-5]).message
    assert "cannot be unpacked" in refused(path, LINES).message
