"""Small files that stand for gigabytes: told, or read in little memory, and in seconds."""

import gzip
import json
import re
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ftq_shared.errors import Refused
from ftq_worker.data import arrow_values, json_document
from ftq_worker.data.file_formats import read_file
from ftq_worker.validation.rows import read_disk

MIB = 1 << 20
TOO_MUCH = "stands for more than"


def parquet(path: Path, column: pa.Array, **options: object) -> None:
    pq.write_table(pa.table({"text": column}), path, compression="zstd", **options)


def arrow(path: Path, column: pa.Array, compression: str | None = None) -> None:
    table = pa.table({"text": column})
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with pa.ipc.new_file(str(path), table.schema, options=options) as file:
        file.write_table(table)


def equal(rows: int, text: str) -> pa.Array:
    return pa.DictionaryArray.from_arrays(
        pa.repeat(pa.scalar(0, pa.int32()), rows), pa.array([text])
    )


def views(rows: int, size: int) -> pa.Array:
    """Return texts that all lie in the same place."""
    each = struct.pack("<i4sii", size, b"xxxx", 0, 0)
    return pa.Array.from_buffers(
        pa.string_view(), rows, [None, pa.py_buffer(each * rows), pa.py_buffer(b"x" * size)]
    )


def runs(rows: int, text: str) -> pa.Array:
    return pa.RunEndEncodedArray.from_arrays(pa.array([rows], pa.int32()), pa.array([text]))


def list_views(rows: int, members: int) -> pa.Array:
    starts, sizes = pa.array([0] * rows, pa.int32()), pa.array([members] * rows, pa.int32())
    return pa.ListViewArray.from_arrays(starts, sizes, pa.repeat(pa.scalar(1, pa.int8()), members))


def one_list(members: int) -> pa.Array:
    ends = pa.array([0, members], pa.int32())
    return pa.ListArray.from_arrays(ends, pa.repeat(pa.scalar(0, pa.int8()), members))


def deep(levels: int) -> bytes:
    return b'{"a":' * levels + b"1" + b"}" * levels


# By file: what writes it, and what the refusal or the row says.
BOMBS: dict[str, tuple[Callable[[Path], object], str]] = {
    "equal.parquet": (lambda p: parquet(p, equal(10_000, "x" * MIB)), TOO_MUCH),
    "one-list.parquet": (
        lambda p: parquet(p, one_list(20_000_000)),
        "longer than 16 MiB",
    ),
    "fixed.parquet": (
        lambda p: parquet(p, pa.FixedSizeListArray.from_arrays(equal(40_000, "x" * MIB), 4)),
        TOO_MUCH,
    ),
    "equal.arrow": (lambda p: arrow(p, equal(10_000, "x" * MIB)), TOO_MUCH),
    "runs.arrow": (lambda p: arrow(p, runs(2_000_000_000, "x" * MIB)), TOO_MUCH),
    "views.arrow": (lambda p: arrow(p, views(1_100, 8 * MIB)), TOO_MUCH),
    "list-views.arrow": (lambda p: arrow(p, list_views(600, MIB), "zstd"), TOO_MUCH),
    "nothing.arrow": (lambda p: arrow(p, pa.nulls(2_000_000_000)), TOO_MUCH),
    "lists-of-lists.json": (
        lambda p: p.write_bytes(b'[{"text":"a"},{"text":[' + b"[]," * MIB + b"1]}]"),
        "longer than 16 MiB",
    ),
    "deep.json": (
        lambda p: p.write_bytes(
            b'[{"a":1},' + b'{"a":' * (3 * MIB) + b"1" + b"}" * (3 * MIB) + b"]"
        ),
        "nested too deeply",
    ),
    "deep.jsonl": (
        lambda p: p.write_bytes(b'{"a":1}\n' + deep(400)),
        "nested too deeply",
    ),
    "unclosed.json": (
        lambda p: p.write_bytes(b'[{"text":"a"},{"text":[' + b'["\\"]",1],' * (MIB // 2)),
        "opened here and never closed",
    ),
    "keys.csv": (
        lambda p: p.write_text(",".join(f"c{n}" for n in range(200_000)) + "\n1,2\n"),
        "up to 10,000 are read",
    ),
    "line.txt.gz": (
        lambda p: p.write_bytes(gzip.compress(b"a" * (60 * MIB), 1)),
        "longer than 16 MiB",
    ),
}


@pytest.fixture(autouse=True)
def _little(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a table stand for less than it may, and a value be shorter: so they are told sooner."""
    monkeypatch.setattr(arrow_values, "_ALWAYS", 1 << 29)
    monkeypatch.setattr(json_document, "ROW_MAX", 1 << 21)


def peak_mb(*, reset: bool = False) -> int:
    """Return the most memory that the process has had at a time, since the last reset."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    found = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())
    assert found
    return int(found[1]) >> 10


@pytest.mark.parametrize("name", BOMBS)
def test_it_is_told_in_little_memory(tmp_path: Path, name: str) -> None:
    write, words = BOMBS[name]
    write(tmp_path / name)
    before = peak_mb(reset=True)
    refused(lambda: read_disk("train", [tmp_path / name]))
    said: set[str] = set()
    error = refused(lambda: said.update(row.problem for row in read_file(tmp_path / name)))
    assert peak_mb() - before < 600
    if error is None:
        assert any(words in problem for problem in said)
    else:
        assert words in error.message
        assert error.hint
        assert error.where["file"] == name


def refused(look: Callable[[], object]) -> Refused | None:
    try:
        look()
    except Refused as error:
        return error
    return None


def test_what_is_skipped_ends_where_it_ends(tmp_path: Path) -> None:
    """Brackets and quotes within texts, and escapes at the end of a buffer, close nothing."""
    row = {"a": ["}]\\", '"]\\"', "\\\\", "ü]{["]}
    for pad in range(4):
        deep: object = row | {"pad": "\\" * pad + "x" * pad}
        for _ in range(300):
            deep = {"a": [deep, "]}"]}
        rows = [{"text": "first"}, deep, {"text": "last"}]
        (tmp_path / "rows.json").write_text(
            json.dumps(rows, ensure_ascii=False, indent=pad or None)
        )
        found = list(read_file(tmp_path / "rows.json"))
        assert [row.values.get("text") for row in found] == ["first", None, "last"]
        assert "nested too deeply" in found[1].problem


def test_a_piece_of_a_file_takes_so_much_memory_and_no_more() -> None:
    words = "x: a piece of it takes more than 2,048 MiB of memory"
    with pytest.raises(Refused, match=words) as caught, arrow_values.capped_memory("x"):
        np.empty(5 << 29, np.uint8)
    assert "smaller row groups" in caught.value.hint
    np.empty(5 << 29, np.uint8)  # the limit is gone


@pytest.mark.chaos
def test_rows_are_looked_at_as_far_as_little_memory_goes(tmp_path: Path) -> None:
    row = json.dumps({"text": "a", "more": [{}] * 200_000})
    (tmp_path / "rows.jsonl").write_text(f"{row}\n" * 12)
    assert len(read_disk("train", [tmp_path / "rows.jsonl"]).values) == 7
