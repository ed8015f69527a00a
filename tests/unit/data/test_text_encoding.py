"""Encodings: read where a mark tells them, refused with what to type where nothing does."""

import gzip
import shlex
import subprocess
from pathlib import Path

import pytest

from ftq_shared.errors import Refused
from ftq_worker.data.file_formats import read_file
from ftq_worker.data.text_encoding import open_text

GERMAN = "größe;antwort\n" + "".join(f"wie schön ist {i}?;sehr schön\n" for i in range(20))
JSON = "".join(f'{{"q": "schön {i} 😀", "a": "weiß"}}\n' for i in range(20))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "be", "be-32"])
@pytest.mark.parametrize(
    ("name", "content"),
    [("a.csv", GERMAN), ("a.jsonl", JSON), ("a.txt", GERMAN), ("a.json", f"[{JSON[:-1]}]")],
)
def test_a_mark_tells_the_encoding(tmp_path: Path, name: str, content: str, encoding: str) -> None:
    if name == "a.json":
        content = content.replace("\n", ",\n")
    marks = {"be": b"\xfe\xff", "be-32": b"\x00\x00\xfe\xff"}
    names = {"be": "utf-16-be", "be-32": "utf-32-be"}
    data = marks.get(encoding, b"") + content.encode(names.get(encoding, encoding))
    (tmp_path / name).write_bytes(data)
    rows = list(read_file(tmp_path / name))
    assert len(rows) == 21 if name == "a.txt" else 20
    assert not any(row.problem for row in rows)
    assert any("schön" in str(row.values) for row in rows)
    (tmp_path / f"{name}.gz").write_bytes(gzip.compress(data))
    packed = list(read_file(tmp_path / f"{name}.gz"))
    assert [row.values for row in packed] == [row.values for row in rows]


@pytest.mark.parametrize("encoding", ["cp1252", "latin-1", "cp1251", "cp1250", "shift_jis"])
@pytest.mark.parametrize("name", ["a.csv", "a.txt", "a.jsonl", "a.json"])
def test_another_encoding_is_refused_with_line_byte_and_command(
    tmp_path: Path, name: str, encoding: str
) -> None:
    word = {"cp1251": "привет", "cp1250": "źdźbło łąki", "shift_jis": "日本語"}.get(
        encoding, "Größe"
    )
    lines = [f'{{"q": "{word} {i}"}}' for i in range(9)]
    content = "\n".join(lines if "json" in name else ["text", *(f"{word} {i}" for i in range(9))])
    (tmp_path / name).write_bytes(content.encode(encoding))
    with pytest.raises(Refused) as caught:
        list(read_file(tmp_path / name))
    refused = caught.value
    assert refused.code == "bad_encoding"
    assert refused.where == {"file": name, "line": 1 if "json" in name else 2}
    assert "holds the byte 0x" in refused.message
    assert "iconv -f WINDOWS-1252 -t UTF-8" in refused.hint


def test_the_command_that_is_named_converts(tmp_path: Path) -> None:
    path = tmp_path / "my rows.csv"
    path.write_bytes(GERMAN.encode("cp1252"))
    with pytest.raises(Refused, match="'größe;antwort'") as caught:
        list(read_file(path))
    command = caught.value.hint.split("`")[1]
    assert shlex.split(command)[0] == "iconv"
    subprocess.run(command, shell=True, check=True, cwd=tmp_path)
    assert len(list(read_file(tmp_path / "my rows-utf8.csv"))) == 20


def test_a_header_in_another_encoding_is_refused_though_the_rows_are_plain(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes("größe;a\n".encode("cp1252") + b"1;2\n" * 9)
    with pytest.raises(Refused, match="line 1 holds the byte 0xF6") as caught:
        list(read_file(tmp_path / "a.csv"))
    assert caught.value.code == "bad_encoding"


@pytest.mark.parametrize("rest", ["plain text\n" * 50, "schön\n" * 50])
def test_one_broken_byte_costs_one_row(tmp_path: Path, rest: str) -> None:
    (tmp_path / "a.txt").write_bytes(b"caf\xe9\n" + rest.encode() + b"\xff\xfe\n" * (rest > "q"))
    rows = list(read_file(tmp_path / "a.txt"))
    assert [row.line for row in rows if row.problem] == [1, 52][: 1 + (rest > "q")]


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf16_without_a_mark_is_refused_and_never_read_as_nuls(
    tmp_path: Path, encoding: str
) -> None:
    (tmp_path / "a.txt").write_bytes("Plain text\n".encode(encoding) * 20)
    with pytest.raises(Refused, match="looks like UTF-16") as caught:
        list(read_file(tmp_path / "a.txt"))
    assert f"iconv -f {encoding.upper().replace('6-', '6')}" in caught.value.hint
    (tmp_path / "b.txt").write_bytes(bytes(range(4)) * 500)
    with pytest.raises(Refused, match="is no text"):
        list(read_file(tmp_path / "b.txt"))


def test_half_a_pair_and_half_a_character_cost_their_row(tmp_path: Path) -> None:
    text = "ok\n\ud83d half\nok\n".encode("utf-16", "surrogatepass") + b"\x41"
    (tmp_path / "a.txt").write_bytes(text)
    rows = list(read_file(tmp_path / "a.txt"))
    assert [(row.line, row.problem) for row in rows] == [
        (1, ""),
        (2, "not UTF-8"),
        (3, ""),
        (4, "not UTF-8"),
    ]


def test_a_character_on_the_edge_of_the_sample_is_whole(tmp_path: Path) -> None:
    for shift in range(4):
        (tmp_path / "a.txt").write_bytes(b"x" * shift + "😀".encode() * (300 << 10))
        with open_text(tmp_path / "a.txt") as file:
            assert len(file.read()) == shift + (1200 << 10)
