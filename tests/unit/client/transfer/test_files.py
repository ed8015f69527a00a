"""Which of the client's own files go with a job, and under which names."""

import os
from pathlib import Path

import pytest

from ftq_client.transfer.files import OwnFile, files_of, own_files, size_of
from ftq_shared.dataset_files import NAMED, UNREAD_LIST, unread_from_json
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
    return [file.path for file in files_of(what, name) if file.content is None]


def told(name: str) -> dict[str, str]:
    """Return what the worker is told of a dataset's files that do not travel."""
    (listed,) = [file for file in files_of("dataset", name) if file.path.endswith(UNREAD_LIST)]
    assert listed.content is not None
    assert listed.size == len(listed.content)
    return {file.name: file.reason for file in unread_from_json(listed.content)}


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


def test_what_is_not_read_is_told_with_its_reason(folder: Path) -> None:
    rows = folder / "rows"
    for name in ("notes.docx", "LICENSE", "README.txt", "._a.jsonl", "state.json", ".git/x.json"):
        (rows / name).parent.mkdir(exist_ok=True)
        (rows / name).write_text("12345")
    (rows / "gone.jsonl").symlink_to("nowhere")
    (rows / "other").symlink_to(folder)
    (rows / ".old").mkdir()
    os.mkfifo(rows / "pipe.csv")
    found = files_of("dataset", "./rows")
    assert [file.path for file in found] == [
        "dataset/a.jsonl",
        "dataset/b/a.jsonl",
        "dataset/state.json",
        f"dataset/{UNREAD_LIST}",
    ]
    assert told("./rows") == {
        "notes.docx": "files of kind .docx are not read",
        ".cache.jsonl": "is hidden: a dot begins its name",
        ".old": "is hidden: a dot begins its name",
        "gone.jsonl": "is a link that leads nowhere",
        "other": "is a link to a folder, which is not followed",
        "pipe.csv": "is a pipe, not a file",
    }


def test_what_cannot_be_opened_is_told_or_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).name != "readme.md")
    assert told("./rows")["readme.md"] == "cannot be read: permission denied"
    with pytest.raises(UsageError, match=r"readme.md \(cannot be read: permission denied\)"):
        files_of("model", "./rows")


def test_of_a_folder_of_pictures_the_others_are_counted(folder: Path) -> None:
    for number in range(NAMED + 30):
        (folder / "rows" / f"{number:03}.png").touch()
    found = told("./rows")
    assert len(found) == NAMED + 2
    assert found["30 more"] == "files of kind .png are not read"


def test_only_paths_of_this_machine_go(folder: Path) -> None:
    assert own_files(JobSpec(model="org/base", dataset="worker:/data/a.jsonl")) == []
    found = own_files(JobSpec(model="./rows/b", dataset="./rows/a.jsonl"))
    assert [file.path for file in found] == ["model/a.jsonl", "dataset/a.jsonl"]
    assert size_of(found) == 10
