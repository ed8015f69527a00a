"""Every file of a folder is read or named."""

import gzip
import json
from pathlib import Path

import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value

from ftq_shared.dataset_files import sort_files
from ftq_shared.errors import Refused
from ftq_worker.data.chosen_files import choose_files
from ftq_worker.data.split_sources import (
    columns_by_file,
    file_sources,
    no_split,
    open_files,
    split_files,
)

ROW = '{"q": "a", "a": "b"}\n'


def fill(folder: Path, names: list[str]) -> list[Path]:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(ROW)
    return [folder / name for name in names]


def test_files_beside_the_rows_are_named_unless_they_are_known_company(tmp_path: Path) -> None:
    company = ["README.md", "LICENSE", "license.txt", "._a.jsonl", "requirements.txt", "SHA256SUMS"]
    rows = ["a.jsonl", "b/C.NDJSON", "d.csv.zst"]
    others = ["notes.docx", "rows.xlsx", "more.zip", "clean.py", "rows", "e.parquet.gz"]
    found = choose_files(fill(tmp_path, company + rows + others))
    assert [path.relative_to(tmp_path).as_posix() for path in found.files] == rows
    assert {file.name: file.is_data for file in found.unread} == {
        "notes.docx": True,
        "rows.xlsx": True,
        "more.zip": True,
        "clean.py": False,
        "rows": True,
        "e.parquet.gz": True,
    }
    reasons = {file.name: file.reason for file in found.unread}
    assert reasons["more.zip"] == "files of kind .zip are not read"
    assert "unpack it" in reasons["e.parquet.gz"]


def test_a_file_that_is_given_alone_is_read_whatever_it_is_called(tmp_path: Path) -> None:
    assert len(choose_files(fill(tmp_path, ["readme.txt"])).files) == 1
    assert len(choose_files(fill(tmp_path, ["config.json"])).files) == 1


def test_what_is_hidden_is_named_where_it_may_hold_rows() -> None:
    """On the Hub, where only names are known; of a folder `walk` tells it."""
    names = [".x.jsonl", ".old/train.csv", "a/.b/c.txt", ".git/x.json", ".gitattributes", "._r.csv"]
    found = sort_files([*names, "train.jsonl"])
    assert found.read == ["train.jsonl"]
    assert [file.name for file in found.unread] == [".old/train.csv", ".x.jsonl", "a/.b/c.txt"]
    assert not any(file.is_data for file in found.unread)


def test_an_empty_file_among_others_is_named(tmp_path: Path) -> None:
    paths = fill(tmp_path, ["a.jsonl", "b.jsonl"])
    paths[1].write_text("")
    found = choose_files(paths)
    assert [path.name for path in found.files] == ["a.jsonl"]
    assert [(file.name, file.reason) for file in found.unread] == [("b.jsonl", "is empty")]


def test_packed_and_plain_parts_of_a_split_are_read_together(tmp_path: Path) -> None:
    (tmp_path / "part-0.jsonl").write_text(ROW * 10)
    (tmp_path / "part-1.jsonl.gz").write_bytes(gzip.compress(ROW.encode() * 20))
    (source,) = file_sources(list(tmp_path.iterdir())).values()
    assert [row.number for row in source().read()] == list(range(30))
    assert split_files(["d/train.csv.gz", "d/extra.jsonl.zst"]).keys() == {"train", "extra"}


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    features = Features({"text": Value("string"), "label": ClassLabel(names=["no", "yes"])})
    rows = Dataset.from_dict({"text": list("abcdef"), "label": [0, 1] * 3}, features)
    rows.save_to_disk(tmp_path / "one", num_shards=2)
    DatasetDict({"train": rows, "fold": rows.select([0])}).save_to_disk(tmp_path / "dict")
    return tmp_path


def files_below(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_a_saved_dataset_is_read_with_its_labels(saved: Path) -> None:
    for name in ("cache-1.arrow", "old.arrow"):
        (saved / "one" / name).write_bytes(b"what is left there")
    found = choose_files(files_below(saved / "one"))
    assert [(file.name, file.is_data) for file in found.unread] == [
        ("cache-1.arrow", False),
        ("old.arrow", False),
    ]
    assert split_files(found.files).keys() == {"train"}
    source = open_files("train", found.files)
    assert (source.columns, source.label_names) == (["text", "label"], {"label": ["no", "yes"]})
    assert [row.values["text"] for row in source.read()] == list("abcdef")


def test_a_saved_dict_has_the_splits_of_its_folders(saved: Path) -> None:
    found = choose_files(files_below(saved / "dict"))
    assert found.unread == []
    sources = file_sources(found.files)
    assert {name: len(list(open_().read())) for name, open_ in sources.items()} == {
        "fold": 1,
        "train": 6,
    }


def test_a_saved_dataset_that_is_not_whole_is_refused(saved: Path) -> None:
    next((saved / "one").glob("*.arrow")).unlink()
    with pytest.raises(Refused, match=r"data-00000-of-00002\.arrow, which is not there"):
        choose_files(files_below(saved / "one"))
    (saved / "dict/train/state.json").write_text("{")
    with pytest.raises(Refused, match=r"state\.json cannot be read"):
        choose_files(files_below(saved / "dict"))


def test_label_names_that_differ_between_files_are_refused(tmp_path: Path) -> None:
    for name, labels in (("a", ["no", "yes"]), ("b", ["yes", "no"])):
        features = Features({"label": ClassLabel(names=labels)})
        Dataset.from_dict({"label": [0]}, features).to_parquet(tmp_path / f"{name}.parquet")
    with pytest.raises(Refused, match="name the labels of 'label' differently"):
        open_files("train", sorted(tmp_path.glob("*.parquet")))


def test_the_columns_of_each_file_are_known(tmp_path: Path) -> None:
    a, b = tmp_path / "a.jsonl", tmp_path / "b.csv"
    a.write_text(json.dumps({"q": 1}) + "\n" + json.dumps({"a": 1}))
    b.write_text("text,label\nx,y\n")
    assert columns_by_file([a, b]) == {"a.jsonl": ["q", "a"], "b.csv": ["text", "label"]}


@pytest.mark.parametrize(
    ("split", "hint"),
    [
        ("train[:10]", "--set data.split=train --set data.max_rows=10"),
        ("train[:10%]", "--set data.split=train; data.max_rows=NUMBER"),
        ("train[5:]", "--set data.split=train; data.max_rows=NUMBER"),
        ("trian", "--set data.split=train"),
    ],
)
def test_a_slice_is_told_how_to_read_the_first_rows(split: str, hint: str) -> None:
    refused = no_split(split, ["test", "train"])
    assert refused.code == "no_split"
    assert refused.hint.startswith(hint)
