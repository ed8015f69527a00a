"""Which files of a host `worker:` may name, and how the others are refused."""

import os
import socket
from pathlib import Path
from typing import Any

import pytest
from tests.support import hostile

from ftq_client.local.stack import own_roots
from ftq_shared.errors import Refused
from ftq_shared.settings import Settings, load_settings
from ftq_worker.host import data_roots
from ftq_worker.host.data_roots import DataRoots, inner_files


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """An open folder with three files, a folder beside it that is not open, and links."""
    folder = tmp_path / "open"
    for name in ("a.jsonl", "b.csv", "sub/c.jsonl", ".hidden.jsonl", "x[1].csv"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("x")
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "users.json").write_text("[]")
    (folder / "link.json").symlink_to(tmp_path / "secret" / "users.json")
    (folder / "linked").symlink_to(tmp_path / "secret")
    (folder / "nowhere.json").symlink_to("/nonexistent")
    (folder / "circle").symlink_to(folder)
    (folder / "round").symlink_to(folder)
    os.mkfifo(folder / "pipe.jsonl")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(os.path.relpath(folder / "socket.jsonl"))
    return folder


def found(roots: DataRoots, name: str) -> list[str]:
    return sorted(path.name for path in roots.files(name).files)


@pytest.mark.parametrize(
    ("name", "files"),
    [
        ("", ["a.jsonl", "b.csv", "c.jsonl", "x[1].csv"]),
        ("/a.jsonl", ["a.jsonl"]),
        ("/x[1].csv", ["x[1].csv"]),
        ("/*.jsonl", ["a.jsonl"]),
        ("/**/*.jsonl", ["a.jsonl", "c.jsonl"]),
        ("/**", ["a.jsonl", "b.csv", "c.jsonl", "x[1].csv"]),
        ("/**/sub/**/c*", ["c.jsonl"]),
        ("/s?b/c.jsonl", ["c.jsonl"]),
        ("/*/*/*/*/*/*/*/*/*/*/*/*/*/*/*/*/*/*/*/*/*/*/*/*/*.jsonl", []),
        ("/*", ["a.jsonl", "b.csv", "x[1].csv"]),
        ("/sub/../a.jsonl", ["a.jsonl"]),
        ("/[ab].*", ["a.jsonl", "b.csv"]),
        ("/pipe.jsonl", []),
        ("/socket.jsonl", []),
        ("/missing.jsonl", []),
        ("/*.json", []),
    ],
)
def test_what_is_open_is_found_and_only_regular_files(
    data: Path, name: str, files: list[str]
) -> None:
    assert found(DataRoots(open=(str(data),)), f"{data}{name}") == files


OUTSIDE = [
    "/etc/*",
    "/etc/passwd",
    "/proc/self/environ",
    "/proc/self/task/**/*.txt",
    "/dev/zero",
    "/**/*.json",
    "*.json",
    "relative.json",
    ".",
    "{data}/../secret",
    "{data}/../secret/*.json",
    "{data}/link.json",
    "{data}/linked",
    "{data}/linked/users.json",
    "{data}/linked/*",
    "{data}/nowhere.json",
    "~/x.json",
]


@pytest.mark.parametrize("name", OUTSIDE)
def test_what_is_outside_is_refused_and_says_nothing_of_what_is_there(
    data: Path, name: str
) -> None:
    roots = DataRoots(open=(str(data),))
    name = name.format(data=data)
    with pytest.raises(Refused) as caught:
        roots.files(name)
    assert caught.value.code == "outside_roots"
    words = f"dataset: worker:{name} is in none of the folders that this worker opens"
    assert caught.value.message == words


@pytest.mark.parametrize(
    "name",
    [
        "/" + "x" * 5000,
        "{data}/" + "x" * 5000,
        "/a\x00b",
        "{data}/a\x00b",
        "~nosuchuser/x",
        "{data}/**x",
        "{data}/" + "*/" * 300,
        "\ud800",
        *hostile.TRAVERSALS,
    ],
)
def test_a_path_that_cannot_be_is_refused(data: Path, name: str) -> None:
    roots, codes = DataRoots(open=(str(data),)), []
    try:
        assert roots.files(name.format(data=data)).files == []
    except Refused as refused:
        codes.append(refused.code)
    assert set(codes) <= {"bad_path", "outside_roots"}


def settings(tmp_path: Path, **env: str) -> Settings:
    return load_settings({"FTQ_HOME": str(tmp_path / "home"), **env})


def test_the_default_is_one_folder_of_the_storage(tmp_path: Path) -> None:
    mine = settings(tmp_path)
    storage = Path(mine.storage)
    roots = DataRoots.of(mine, storage)
    assert roots.admits(storage / "data" / "rows.jsonl")
    for closed in ("jobs/ft-aaaaaaaa/inputs/x.jsonl", "storage_id", "data/../jobs/x"):
        assert not roots.admits(storage / closed)
    assert not roots.admits(Path.home() / "rows.jsonl")


def test_with_ftq_up_the_home_is_open_and_ftqs_own_files_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    mine = load_settings({})
    roots = DataRoots.of(load_settings({"FTQ_DATA_ROOTS": own_roots(mine)}), Path(mine.storage))
    assert roots.admits(tmp_path / "rows.jsonl")
    assert roots.admits(Path(mine.storage) / "data" / "rows.jsonl")
    for closed in (
        "broker/password",
        "fleet.key",
        "storage/jobs/x",
        "storage/storage_id",
        "up.log",
    ):
        assert not roots.admits(tmp_path / ".ftq" / closed)


@pytest.mark.parametrize("root", ["/", "{home}", "{home}/storage/jobs", "/etc", "/proc"])
def test_what_is_closed_stays_closed_whatever_is_opened(tmp_path: Path, root: str) -> None:
    mine = settings(tmp_path, FTQ_DATA_ROOTS=root.format(home=tmp_path / "home"))
    roots = DataRoots.of(mine, Path(mine.storage))
    for closed in ("home/storage/jobs/x/inputs/a.csv", "home/broker/url", "home/fleet.key"):
        assert not roots.admits(tmp_path / closed)
    for place in ("/etc/passwd", "/proc/self/environ", "/dev/zero", "/sys/x"):
        assert not roots.admits(Path(place))


def test_nothing_is_open_when_the_setting_is_empty(tmp_path: Path) -> None:
    mine = settings(tmp_path, FTQ_DATA_ROOTS="")
    assert not DataRoots.of(mine, Path(mine.storage)).admits(Path(mine.storage) / "data" / "x")


def test_too_many_files_are_refused(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_roots, "FILES_MAX", 2)
    with pytest.raises(Refused, match="more than 2 files"):
        DataRoots(open=(str(data),)).files(str(data))


def test_a_jobs_own_folder_gives_nothing_from_outside_it(data: Path) -> None:
    assert sorted(path.name for path in inner_files(data).files) == [
        "a.jsonl",
        "b.csv",
        "c.jsonl",
        "x[1].csv",
    ]


def test_what_is_not_read_is_named_with_its_reason(data: Path) -> None:
    (data / "again.jsonl").symlink_to("a.jsonl")
    (data / "gone.csv").symlink_to("nothing.csv")
    (data / ".git").mkdir()
    outside = "is a link out of the folders that are open"
    folder = "is a link to a folder, which is not followed"
    roots = DataRoots(open=(str(data),))
    assert {path.name: why for path, why in roots.files(str(data)).unread} == {
        ".hidden.jsonl": "is hidden: a dot begins its name",
        "again.jsonl": "is another name of a.jsonl",
        "circle": folder,
        "round": folder,
        "gone.csv": "is a link that leads nowhere",
        # In the same words, whether there is something outside or not.
        "link.json": outside,
        "linked": outside,
        "nowhere.json": outside,
        "pipe.jsonl": "is a pipe, not a file",
        "socket.jsonl": "is a socket, not a file",
    }
    assert [path.name for path, _ in roots.files(f"{data}/*.csv").unread] == ["gone.csv"]


def test_a_folder_that_cannot_be_opened_is_named(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scandir = os.scandir

    def locked(path: Any) -> Any:
        if Path(path).name == "sub":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", locked)
    found = inner_files(data).unread
    assert (data / "sub", "is a folder that cannot be read: Permission denied") in found
