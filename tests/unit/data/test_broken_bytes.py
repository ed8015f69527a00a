"""Readers on damaged files: rows or a refusal come out, nothing else, and no row is lost unsaid."""

import bz2
import gzip
import io
import json
import lzma
import random
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest

from ftq_shared.errors import Refused
from ftq_worker.data.file_formats import read_file, schema_of_file
from ftq_worker.data.rows import Row

ROWS = [
    {"text": f"Zeile {i}, größer als „{i}“\n", "n": i, "turns": [{"r": "x"}]} for i in range(40)
]
LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS).encode()
CSV = ("text,n\n" + "".join(f'"größer, ""{i}""",{i}\n' for i in range(40))).encode()
TABLE = pa.Table.from_pylist(ROWS).append_column(
    "coded", pa.array(["a", "b"] * 20).dictionary_encode()
)


def _zstd(data: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as out:
        out.write(data)
    return bytes(sink.getvalue())


def _written(write: Callable[[io.BytesIO], object]) -> bytes:
    file = io.BytesIO()
    write(file)
    return file.getvalue()


def _stream(file: io.BytesIO) -> None:
    with pa.ipc.new_stream(file, TABLE.schema) as writer:
        writer.write_table(TABLE, max_chunksize=7)


CODES = ("bad_file", "bad_row", "bad_encoding")
FILES = {
    "a.jsonl": LINES,
    "a.json": json.dumps(ROWS, indent=1).encode(),
    "b.json": json.dumps({"version": 1, "data": ROWS}).encode(),
    "c.json": b"\n".join(json.dumps(row, indent=1).encode() for row in ROWS),
    "a.csv": CSV,
    "a.tsv": CSV.replace(b",", b"\t"),
    "a.txt": "".join(str(row["text"]) for row in ROWS).encode(),
    "b.txt": "".join(str(row["text"]) for row in ROWS).encode("utf-16"),
    "a.jsonl.gz": gzip.compress(LINES),
    "a.jsonl.bz2": bz2.compress(LINES),
    "a.jsonl.xz": lzma.compress(LINES),
    "a.csv.zst": _zstd(CSV),
    "a.parquet": _written(lambda file: pq.write_table(TABLE, file)),
    "a.arrow": _written(_stream),
    "a.feather": _written(lambda file: feather.write_feather(TABLE, file)),
    "b.feather": _written(lambda file: feather.write_feather(TABLE, file, "uncompressed")),
}


def damaged(content: bytes, chance: random.Random) -> bytes:
    """Return a content with a part of it cut, flipped, doubled or replaced."""
    at = chance.randrange(len(content))
    end = min(len(content), at + chance.choice((1, 1, 4, 64, 700)))
    match chance.randrange(5):
        case 0:
            return content[:at]
        case 1:
            return (
                content[:at] + bytes([content[at] ^ (1 << chance.randrange(8))]) + content[at + 1 :]
            )
        case 2:
            return content[:end] + content[at:]
        case 3:
            return content[:at] + chance.randbytes(end - at) + content[end:]
        case _:
            return content[:at] + content[end:]


def outcome(path: Path) -> list[Row]:
    """Return the rows of a file, none when it is refused."""
    try:
        schema_of_file(path)
        return list(read_file(path))
    except Refused as refused:
        return [] if refused.message and refused.code in CODES else [Row("", -1, None)]


@pytest.mark.parametrize("name", FILES)
def test_whole_files_are_read_whole(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(FILES[name])
    rows = outcome(tmp_path / name)
    assert [row.problem for row in rows] == [""] * 40
    assert [row.number for row in rows] == list(range(40))


@pytest.mark.parametrize("name", FILES)
def test_damaged_bytes_give_rows_or_a_refusal(tmp_path: Path, name: str) -> None:
    chance = random.Random(name)
    path = tmp_path / name
    tracemalloc.start()
    for _ in range(150):
        path.write_bytes(damaged(FILES[name], chance))
        rows = outcome(path)
        assert [row.number for row in rows] == list(range(len(rows)))
        assert not any(row.values and row.problem for row in rows)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 64 << 20  # bytes; the files hold some ten thousand


@pytest.mark.parametrize("name", ["a.jsonl", "a.txt"])
def test_of_damaged_lines_none_is_lost(tmp_path: Path, name: str) -> None:
    chance = random.Random(name)
    path = tmp_path / name
    for _ in range(200):
        content = bytearray(FILES[name])
        content[chance.randrange(len(content))] = chance.choice(b'"\\{}[],:x\xff\x00\x80')
        path.write_bytes(bytes(content))
        filled = [line for line in bytes(content).split(b"\n") if line.strip()]
        assert len(outcome(path)) == len(filled)


def test_a_damaged_footer_of_parquet_ends_no_process(tmp_path: Path) -> None:
    content = FILES["a.parquet"]
    footer = int.from_bytes(content[-8:-4], "little")
    for at in range(len(content) - 8 - footer, len(content) - 8):
        changed = bytearray(content)
        changed[at] ^= 1
        (tmp_path / "a.parquet").write_bytes(changed)
        rows = outcome(tmp_path / "a.parquet")
        assert [row.number for row in rows] == list(range(len(rows)))
