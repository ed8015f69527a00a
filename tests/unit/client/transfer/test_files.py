"""Which of the client's own files go with a job, and under which names."""

from pathlib import Path

import pytest

from ftq_client.transfer.files import OwnFile, files_of, own_files, size_of
from ftq_shared.errors import UsageError
from ftq_shared.spec import JobSpec


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: rows in two folders, one hidden file, one without rows."""
    monkeypatch.chdir(tmp_path)
    for name in ("rows/a.jsonl", "rows/b/a.jsonl", "rows/.cache.jsonl", "rows/readme.md"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("12345")
    return tmp_path


def names(what: str, name: str) -> list[str]:
    return [file.path for file in files_of(what, name)]


def test_a_file_goes_by_its_own_name(folder: Path) -> None:
    source = Path("rows/a.jsonl")
    assert files_of("dataset", "rows/a.jsonl") == [OwnFile(source, "dataset/a.jsonl", 5)]
    assert names("dataset", str(folder / source)) == ["dataset/a.jsonl"]


def test_a_folder_goes_without_hidden_files_a_dataset_without_other_kinds(folder: Path) -> None:
    assert names("dataset", "./rows") == ["dataset/a.jsonl", "dataset/b/a.jsonl"]
    assert names("model", "./rows") == ["model/a.jsonl", "model/b/a.jsonl", "model/readme.md"]


@pytest.mark.parametrize("name", ["rows/**/*.jsonl", "rows/**"])
def test_files_of_one_name_in_two_folders_stay_two(folder: Path, name: str) -> None:
    assert names("dataset", name) == ["dataset/a.jsonl", "dataset/b/a.jsonl"]


def test_a_name_with_the_marks_of_a_glob_is_first_a_name(folder: Path) -> None:
    (folder / "[ab].jsonl").write_text("x")
    (folder / "a.jsonl").write_text("x")
    assert names("dataset", "./[ab].jsonl") == ["dataset/[ab].jsonl"]
    assert names("dataset", "./[a].jsonl") == ["dataset/a.jsonl"]


@pytest.mark.parametrize(
    ("name", "words"),
    [("./nowhere", "looked from"), ("./*.csv", "looked from"), ("rows/notes.docx", ".jsonl")],
)
def test_a_path_without_files_is_refused(folder: Path, name: str, words: str) -> None:
    (folder / "rows/notes.docx").write_text("x")
    with pytest.raises(UsageError, match="dataset: there is no file at") as caught:
        files_of("dataset", name)
    assert (caught.value.code, caught.value.where["field"]) == ("no_such_file", "dataset")
    assert words in caught.value.hint


@pytest.mark.parametrize(
    "name", ["ROWS.JSONL", "r.ndjson", "r.tsv", "r.csv.gz", "r.Txt.ZST", "r.arrow"]
)
def test_every_kind_that_is_read_travels_whatever_the_case_of_its_name(
    folder: Path, name: str
) -> None:
    (folder / name).write_text("12345")
    assert files_of("dataset", f"./{name}") == [OwnFile(Path(name), f"dataset/{name}", 5)]


def test_of_files_that_are_not_read_the_name_travels(folder: Path) -> None:
    for name in ("notes.docx", "LICENSE", "README.txt", "._a.jsonl", "state.json"):
        (folder / "rows" / name).write_text("12345")
    found = files_of("dataset", "./rows")
    assert [(file.path, file.size, file.name_only) for file in found] == [
        ("dataset/a.jsonl", 5, False),
        ("dataset/b/a.jsonl", 5, False),
        ("dataset/state.json", 5, False),
        ("dataset/notes.docx", 0, True),
    ]


def test_only_paths_of_this_machine_go(folder: Path) -> None:
    assert own_files(JobSpec(model="org/base", dataset="worker:/data/a.jsonl")) == []
    found = own_files(JobSpec(model="./rows/b", dataset="./rows/a.jsonl"))
    assert [file.path for file in found] == ["model/a.jsonl", "dataset/a.jsonl"]
    assert size_of(found) == 10
