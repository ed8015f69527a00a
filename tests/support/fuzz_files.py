"""Data files of every format that ftq reads, and what may be wrong with their bytes; seeded."""

import bz2
import csv
import gzip
import io
import json
import lzma
import os
import random
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
from datasets import Dataset, DatasetDict

from tests.support.fuzz_rows import Row

# -- rows to bytes


def _dump(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _lines(rows: list[Row]) -> str:
    return "".join(f"{_dump(row)}\n" for row in rows)


def _cells(rows: list[Row], delimiter: str) -> str:
    rows = [row for row in rows if isinstance(row, dict)]
    columns = list(dict.fromkeys(key for row in rows for key in row))
    out = io.StringIO()
    writer = csv.writer(out, delimiter=delimiter, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        values = [row.get(column, "") for column in columns]
        writer.writerow([v if isinstance(v, str) else _dump(v) for v in values])
    return out.getvalue()


def _plain(rows: list[Row]) -> str:
    return "".join(f"{' '.join(str(row).split())}\n" for row in rows if row)


TEXTS: dict[str, Callable[[list[Row]], str]] = {
    ".jsonl": _lines,
    ".ndjson": _lines,
    ".json": _dump,
    ".json/lines": _lines,
    ".json/data": lambda rows: _dump({"version": "1", "data": rows}),
    ".json/pretty": lambda rows: json.dumps(rows, indent=2),
    ".json/objects": lambda rows: "\n".join(json.dumps(row, indent=1) for row in rows),
    ".csv": lambda rows: _cells(rows, ","),
    ".csv/semicolons": lambda rows: _cells(rows, ";"),
    ".tsv": lambda rows: _cells(rows, "\t"),
    ".txt": _plain,
}
_PACK: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": lambda data: bytes(pa.compress(data, "zstd", asbytes=True)),
}
_ENCODINGS = ("utf-8-sig", "utf-16", "utf-16-le", "utf-32", "windows-1252", "shift_jis", "gb18030")


def _table(rows: list[Row]) -> pa.Table:
    """Return rows as a table; what has no Arrow type becomes text."""
    rows = [row for row in rows if isinstance(row, dict)]
    columns = list(dict.fromkeys(str(key) for row in rows for key in row))
    arrays = [_array([row.get(column) for row in rows]) for column in columns]
    return pa.table(arrays, names=columns)


def _array(values: list[Any]) -> pa.Array:
    try:
        return pa.array(values)
    except (pa.ArrowException, OverflowError, RecursionError, UnicodeError):
        texts = [v if isinstance(v, str) else json.dumps(v) for v in values]
        return pa.array([text.encode(errors="replace").decode() for text in texts])


def _parquet(rows: list[Row], **options: Any) -> bytes:
    out = io.BytesIO()
    pq.write_table(_table(rows), out, **options)
    return out.getvalue()


def _arrow(rows: list[Row], make: Callable[..., Any]) -> bytes:
    out, table = io.BytesIO(), _table(rows)
    with make(out, table.schema) as writer:
        writer.write_table(table, max_chunksize=10)
    return out.getvalue()


def _feather(rows: list[Row]) -> bytes:
    out = io.BytesIO()
    pyarrow.feather.write_feather(_table(rows), out, compression="zstd")
    return out.getvalue()


TABLES: dict[str, Callable[[list[Row]], bytes]] = {
    ".parquet": _parquet,
    ".parquet/groups": lambda rows: _parquet(rows, row_group_size=7, compression="zstd"),
    ".parquet/plain": lambda rows: _parquet(rows, use_dictionary=False, compression="none"),
    ".arrow": lambda rows: _arrow(rows, pa.ipc.new_file),
    ".arrow/stream": lambda rows: _arrow(rows, pa.ipc.new_stream),
    ".feather": _feather,
}


def encoded(chance: random.Random, kind: str, rows: list[Row], odd: bool) -> tuple[str, bytes]:
    """Return a suffix and the bytes of a file of a kind of TEXTS or TABLES."""
    suffix = kind.partition("/")[0]
    if kind in TABLES:
        try:
            return suffix, TABLES[kind](rows)
        except pa.ArrowException:  # nested too deeply for the format
            kind, suffix = ".jsonl", ".jsonl"
    text = TEXTS[kind](rows)
    encoding = chance.choice(_ENCODINGS) if odd and chance.random() < 0.25 else "utf-8"
    try:
        data = text.encode(encoding)
    except UnicodeEncodeError:
        half = "surrogatepass" if encoding == "utf-8" else "replace"
        data = text.encode(encoding, half)
    packed = chance.choice(list(_PACK)) if chance.random() < 0.25 else ""
    return suffix + packed, _PACK[packed](data) if packed else data


# -- what may be wrong with bytes


def _at(chance: random.Random, data: bytes) -> int:
    return chance.randrange(len(data) + 1)


def cut(chance: random.Random, data: bytes) -> bytes:
    return data[: _at(chance, data)]


def head_gone(chance: random.Random, data: bytes) -> bytes:
    return data[_at(chance, data) :]


def flipped(chance: random.Random, data: bytes) -> bytes:
    raw = bytearray(data)
    for _ in range(chance.choice([1, 4, 40])):
        if raw:
            raw[chance.randrange(len(raw))] = chance.randrange(256)
    return bytes(raw)


def _inserted(pieces: tuple[bytes, ...]) -> Callable[[random.Random, bytes], bytes]:
    def insert(chance: random.Random, data: bytes) -> bytes:
        for _ in range(chance.choice([1, 1, 5])):
            at = _at(chance, data)
            data = data[:at] + chance.choice(pieces) + data[at:]
        return data

    insert.__name__ = f"inserted {pieces[0][:4]!r}"
    return insert


def _at_lines(piece: bytes) -> Callable[[random.Random, bytes], bytes]:
    def insert(chance: random.Random, data: bytes) -> bytes:
        lines = data.split(b"\n")
        for _ in range(chance.choice([1, 3])):
            lines.insert(chance.randrange(len(lines) + 1), piece)
        return b"\n".join(lines)

    insert.__name__ = f"line {piece[:4]!r}"
    return insert


def line_ends(chance: random.Random, data: bytes) -> bytes:
    ends = chance.choice([[b"\r\n"], [b"\r"], [b"\n", b"\r\n", b"\r"], [b"\n\r"]])
    return b"".join(line + chance.choice(ends) for line in data.split(b"\n"))


def second_header(chance: random.Random, data: bytes) -> bytes:
    first, *lines = data.split(b"\n")
    lines.insert(chance.randrange(len(lines) + 1), first)
    return b"\n".join([first, *lines])


def repeated(chance: random.Random, data: bytes) -> bytes:
    return data * chance.choice([2, 3])


def slice_moved(chance: random.Random, data: bytes) -> bytes:
    a, b, c = sorted(_at(chance, data) for _ in range(3))
    return data[:a] + data[b:c] + data[a:b] + data[c:]


def zeroed(chance: random.Random, data: bytes) -> bytes:
    at = _at(chance, data)
    size = chance.choice([1, 8, 512])
    return data[:at] + b"\0" * min(size, len(data) - at) + data[at + size :]


def lying_length(chance: random.Random, data: bytes) -> bytes:
    """Write a large number over four or eight bytes, as a length or an offset may stand there."""
    size = chance.choice([4, 8])
    number = chance.choice([2**31 - 1, 2**30, 2**16, 2**32 - 1])
    at = _at(chance, data) // 4 * 4
    return data[:at] + number.to_bytes(size, "little") + data[at + size :]


def emptied(_: random.Random, data: bytes) -> bytes:
    return b""


def tiny(chance: random.Random, data: bytes) -> bytes:
    return chance.choice(
        [b"\n", b"{", b"[", b'"', b"\0", b"PAR1", b"ARROW1\0\0", b"\xef\xbb\xbf", data[:4]]
    )


MUTATORS: tuple[Callable[[random.Random, bytes], bytes], ...] = (
    cut,
    cut,
    head_gone,
    flipped,
    flipped,
    flipped,
    _inserted((b"\xef\xbb\xbf", b"\xff\xfe")),
    _inserted((b'"', b"'", b'""', b"\\")),
    _inserted((b"\0", b"\x1a", b"\x85", b"\xff", b"\xed\xa0\x80")),
    _inserted((b"9" * 5000, b"1e999", b"-", b"NaN", b"[" * 2000, b'{"a":' * 2000)),
    _inserted((b",", b";", b"\t", b"\n", b"\r", b"}{", b"]", b"}")),
    _at_lines(b""),
    _at_lines(b"null"),
    _at_lines(b"{}"),
    _at_lines(b"[1, 2"),
    _at_lines(b"# a comment"),
    line_ends,
    second_header,
    repeated,
    slice_moved,
    zeroed,
    lying_length,
    lying_length,
    emptied,
    tiny,
)


def mutated(chance: random.Random, data: bytes) -> tuple[bytes, list[str]]:
    """Return changed bytes, and what was done."""
    chosen = chance.choices(MUTATORS, k=chance.choice([0, 0, 0, 1, 1, 2]))
    for mutator in chosen:
        data = mutator(chance, data)
    return data, [mutator.__name__ for mutator in chosen]


# -- folders


def _is_deep(row: Row) -> bool:
    """Return whether a row is nested too deeply for `datasets`."""
    inner: list[Any] = [row]
    for _ in range(20):
        members = (v.values() if isinstance(v, dict) else v for v in inner)
        inner = [v for values in members for v in values if isinstance(v, dict | list)]
    return bool(inner)


def saved(chance: random.Random, rows: list[Row], folder: Path) -> None:
    """Write rows as `save_to_disk` does, one dataset or several splits; not those it cannot."""
    data = Dataset(_table([row for row in rows if not _is_deep(row)]))
    if chance.random() < 0.5:
        data.save_to_disk(folder)
    else:
        half = len(data) // 2
        parts = {"train": data.select(range(half)), "test": data.select(range(half, len(data)))}
        DatasetDict(parts).save_to_disk(folder)


def strange_company(chance: random.Random, folder: Path) -> list[str]:
    """Put what is no file with rows beside the others; returns the names that must be told."""
    made = chance.sample(sorted(_COMPANY), chance.randrange(1, 4))
    for name in made:
        _COMPANY[name](folder / name)
    return made


def _socket(path: Path) -> None:
    here = os.getcwd()
    os.chdir(path.parent)  # a socket's path may have 107 bytes
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(path.name)
    os.chdir(here)


_COMPANY: dict[str, Callable[[Path], object]] = {
    ".hidden.jsonl": lambda path: path.write_text('{"prompt": "a"}\n'),
    "nowhere.jsonl": lambda path: path.symlink_to("gone.jsonl"),
    "circle.csv": lambda path: path.symlink_to("circle.csv"),
    "outside.txt": lambda path: path.symlink_to("/etc/hostname"),
    "pipe.jsonl": os.mkfifo,
    "socket.json": _socket,
    "nothing.jsonl": lambda path: path.touch(),
    "picture.png": lambda path: path.write_bytes(b"\x89PNG"),
    "table.xlsx": lambda path: path.write_bytes(b"PK\x03\x04"),
    "no_suffix": lambda path: path.write_text("x"),
    "linked": lambda path: path.symlink_to("/usr", target_is_directory=True),
    ".old": lambda path: (path.mkdir(), (path / "x.jsonl").write_text("{}\n")),
}
