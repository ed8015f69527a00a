"""Which columns are not used is told before the files leave, by the worker's own code."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ftq_client.submit import own_columns
from ftq_client.submit.own_columns import judge, lines
from ftq_client.submit.own_rows import OwnData, look_at
from ftq_client.transfer.files import files_of
from ftq_shared.errors import Unexpected
from ftq_shared.spec_input import parse_spec

LONG = "A text of many words that says much more about it than the question alone would say."


def data_of(folder: Path, rows: list[dict[str, Any]]) -> OwnData:
    path = folder / "rows.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    found = look_at(files_of("dataset", str(path)))
    assert found
    assert "first" not in found.as_json()
    return found


def told(folder: Path, row: dict[str, Any], **data: Any) -> list[str]:
    rows = [{name: f"{text} {n}" for name, text in row.items()} for n in range(30)]
    spec = parse_spec({"model": "org/model", "dataset": "./rows.jsonl", "data": data})
    return list(lines(judge(data_of(folder, rows), spec)))


def test_every_column_is_used(tmp_path: Path) -> None:
    assert told(tmp_path, {"question": "q", "answer": "a"}) == ["every column is used"]


def test_what_is_not_used_is_named(tmp_path: Path) -> None:
    (line,) = told(tmp_path, {"question": "q", "answer": "a", "row_id": "x"})
    assert line == "not used: row_id (in 100% of the first rows)"


def test_a_text_that_weighs_is_refused_in_a_moment(tmp_path: Path) -> None:
    row = {"question": "q", "answer": "a", "page": LONG}
    first, second = told(tmp_path, row)
    assert first.startswith("warning: validate will refuse these rows: not used, though it holds")
    assert "data.columns.context=page" in second
    assert "data.allow=unused_columns" in second
    (line,) = told(tmp_path, row, allow=["unused_columns"])
    assert line.startswith("not used: page (in 100% of the first rows); to use it: --set")
    assert told(tmp_path, row, columns={"context": "page"}) == ["every column is used"]


def test_rows_that_mean_nothing_are_told_with_the_way_out(tmp_path: Path) -> None:
    first, second = told(tmp_path, {"left": "x", "right": "y"})
    assert "validate will refuse these rows" in first
    assert "data.columns" in second


def test_code_that_dies_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own_columns, "own_module", lambda _: ["/bin/false"])
    with pytest.raises(Unexpected, match="could not be judged"):
        told(tmp_path, {"question": "q", "answer": "a"})


def test_it_needs_no_training_stack() -> None:
    heavy = "torch transformers datasets trl peft accelerate pyarrow numpy huggingface_hub redis"
    found = f"any(name in sys.modules for name in {heavy.split()})"
    code = f"import sys, ftq_worker.preview.columns; sys.exit({found})"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_module_of_the_persons_own_is_not_taken_for_pythons(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("json", "queue", "ftq_worker"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('not meant')")
    assert told(tmp_path, {"question": "q", "answer": "a"}) == ["every column is used"]
