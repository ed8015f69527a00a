"""One dataset for each number of a seed: a file or a folder, with what is known of it."""

import json
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ftq_shared.sources import compression, data_suffix
from ftq_worker.data.compressed import open_unpacked
from tests.support import fuzz_files, fuzz_rows

_FOLDERS = (
    ["a", "b"],
    ["a", "b", "c"],
    ["train", "test"],
    ["train", "valid", "test"],
    ["x", "val"],
)
ALLOW = ["dropped_rows", "unread_files", "unused_columns"]


@dataclass
class Case:
    """A dataset on disk and the spec that names it."""

    number: int
    folder: Path
    words: list[str] = field(default_factory=list)  # what was done
    dataset: str = ""
    data: dict[str, Any] = field(default_factory=dict)
    task: str = "auto"
    company: list[str] = field(default_factory=list)  # names that must be told

    def __str__(self) -> str:
        return f"number {self.number}: {', '.join(self.words)}; {self.data or 'no settings'}"


def make_case(seed: int, number: int, folder: Path) -> Case:
    """Write the dataset of a number under `folder`; the same for the same seed and number."""
    chance = random.Random(f"{seed}/{number}")
    case = Case(number, folder)
    rows_of = folder / "rows"
    rows_of.mkdir(parents=True)
    kind = chance.choice(["file"] * 13 + ["folder"] * 5 + ["saved"] * 2)
    if kind == "file":
        case.dataset = str(_write(case, chance, rows_of / "rows"))
    elif kind == "folder":
        _folder(case, chance, rows_of)
    else:
        _saved(case, chance, rows_of / "saved")
    case.dataset = f"worker:{case.dataset or rows_of}"
    _settings(case, chance)
    return case


def _rows(case: Case, chance: random.Random, layout: str = "") -> list[fuzz_rows.Row]:
    layout = layout or chance.choice(list(fuzz_rows.LAYOUTS))
    rows = fuzz_rows.make_rows(chance, layout, chance.choice([12, 40, 40]))
    case.words += [layout, *fuzz_rows.mutated(chance, rows)]
    return rows


def _write(case: Case, chance: random.Random, stem: Path, layout: str = "") -> Path:
    """Write one file; returns its path."""
    kind = chance.choice([*fuzz_files.TEXTS, *fuzz_files.TABLES])
    suffix, data = fuzz_files.encoded(chance, kind, _rows(case, chance, layout), odd=True)
    data, done = fuzz_files.mutated(chance, data)
    if chance.random() < 0.06:  # another name than its own
        suffix = chance.choice([".json", ".csv", ".parquet", ".txt", ".arrow", ".tsv", ".jsonl.gz"])
        done.append("swapped")
    case.words += [kind, suffix, *done]
    path = stem.with_name(stem.name + suffix)
    path.write_bytes(data)
    return path


def _folder(case: Case, chance: random.Random, folder: Path) -> None:
    names = chance.choice(_FOLDERS)
    layout = chance.choice(["", *fuzz_rows.LAYOUTS])
    for name in names:
        _write(case, chance, folder / name, layout)
    if chance.random() < 0.6:
        case.company = fuzz_files.strange_company(chance, folder)
        case.words += case.company


def _saved(case: Case, chance: random.Random, folder: Path) -> None:
    rows = _rows(case, chance)
    if not all(isinstance(row, dict) for row in rows) or len(rows) < 2:
        rows = fuzz_rows.make_rows(chance, "question", 40)
    fuzz_files.saved(chance, rows, folder)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    for path in chance.choices(files, k=chance.choice([0, 1, 2])):
        data, done = fuzz_files.mutated(chance, path.read_bytes())
        path.write_bytes(data)
        case.words += [f"{path.name}: {what}" for what in done]


def _settings(case: Case, chance: random.Random) -> None:
    if chance.random() < 0.75:
        case.data["allow"] = ALLOW
    odd: dict[str, list[Any]] = {
        "format": ["plain"],
        "on_bad_row": ["fail"],
        "dedupe": ["near", "none"],
        "max_rows": [5],
        "group_by": ["id", "label"],
        "validation": ["none"],
        "row_template": ["Q: {question} {text}"],
    }
    for name in chance.sample(sorted(odd), chance.choice([0, 0, 1, 2])):
        case.data[name] = chance.choice(odd[name])
    if chance.random() < 0.1:
        case.task = chance.choice(["sft", "classification", "text"])


# -- how many rows a file holds, by other means than ftq's; None where that is no plain question


def rows_in(path: Path) -> int | None:
    try:
        return _COUNTS[data_suffix(path.name)](path)
    except Exception:  # damaged, in whatever way
        return None


def _text(path: Path) -> str | None:
    """Return the text of a file without anything odd in it."""
    opened = open_unpacked(path) if compression(path.name) else path.open("rb")
    with opened as file:
        text = file.read().decode()
    odd = text.startswith("\ufeff") or "\0" in text or "\r" in text
    return None if odd else text


def _filled(path: Path) -> list[str]:
    text = _text(path)
    if text is None:
        raise ValueError("odd")
    return [line for line in text.split("\n") if line.strip()]


def _lines(path: Path) -> int | None:
    lines = _filled(path)
    plain = len(lines) > 1 and all(isinstance(json.loads(line), dict) for line in lines[:2])
    return len(lines) if plain else None


def _document(path: Path) -> int | None:
    text = _text(path)
    value = json.loads(text or "")
    if isinstance(value, dict) and set(value) == {"version", "data"}:
        value = value["data"]
    return len(value) if isinstance(value, list) and len(value) > 1 else None


def _cells(path: Path) -> int | None:
    lines = _filled(path)
    odd = any('"' in line for line in lines) or not all("," in line for line in lines)
    return None if odd else len(lines) - 1


def _arrow(path: Path) -> int:
    data = path.read_bytes()
    open_ = pa.ipc.open_file if data.startswith(b"ARROW1") else pa.ipc.open_stream
    with open_(data) as reader:
        table = reader.read_all()
    table.validate(full=True)
    return int(table.num_rows)


_COUNTS: dict[str, Callable[[Path], int | None]] = {
    ".jsonl": _lines,
    ".ndjson": _lines,
    ".json": _document,
    ".csv": _cells,
    ".txt": lambda path: len(_filled(path)),
    ".parquet": lambda path: int(pq.read_table(path).num_rows),
    ".arrow": _arrow,
    ".feather": _arrow,
}
