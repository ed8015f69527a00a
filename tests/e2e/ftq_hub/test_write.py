"""Repos and commits, made by the real client."""

import json
import struct
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationCopy, CommitOperationDelete
from huggingface_hub import constants as hub_constants
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from ftq_hub import HubStore

CARD = "---\nlicense: mit\n---\n# Mine\n"
BIG = bytes(range(256)) * 12_000  # 3 MB: longer than a chunk, so it goes through the long path

# The client's own call of its HTTP library, on uploads by LFS.
LFS_WARNS = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


def read(hub: Any, repo: str, path: str, token: str = "hf_me", revision: str = "main") -> bytes:
    """Return a file as the server serves it."""
    url = f"{hub.url}/{repo}/resolve/{revision}/{path}"
    auth = {"Authorization": f"Bearer {token}"}  # httpx2 keeps it from the content's port
    return httpx2.get(url, headers=auth, follow_redirects=True).raise_for_status().content


@pytest.fixture
def repo(hub: Any, request: pytest.FixtureRequest) -> str:
    """An empty repo of the user, named for the test."""
    repo_id = f"me/{request.node.name.split('[')[0]}"
    hub.api().create_repo(repo_id, private=True)
    return repo_id


def test_repos_are_created_and_deleted(hub: Any) -> None:
    api = hub.api()
    assert api.create_repo("own", private=True) == f"{hub.url}/me/own"
    assert api.create_repo("own", exist_ok=True).repo_id == "me/own"
    with pytest.raises(HfHubHTTPError, match="409"):
        api.create_repo("me/own")
    assert api.model_info("me/own").private
    url = api.create_repo("team/rows", repo_type="dataset")
    assert (url, url.repo_type, url.repo_id) == (
        f"{hub.url}/datasets/team/rows",
        "dataset",
        "team/rows",
    )
    api.update_repo_settings("me/own", private=False, gated="auto")
    with pytest.raises(GatedRepoError):
        hub.api("hf_other").auth_check("me/own")
    api.grant_access("me/own", "other")
    hub.api("hf_other").auth_check("me/own")
    api.delete_repo("me/own")
    with pytest.raises(RepositoryNotFoundError):
        api.delete_repo("me/own")
    api.delete_repo("me/own", missing_ok=True)


@pytest.mark.parametrize("token", ["hf_reader", "hf_other", False])
def test_only_writers_write(hub: Any, token: str | bool) -> None:
    hub.api().create_repo("me/guarded", exist_ok=True)
    with pytest.raises(HfHubHTTPError, match=r"40[13]"):
        hub.api(token).create_repo("me/theirs")
    with pytest.raises(HfHubHTTPError, match=r"40[13]"):
        hub.api(token).upload_file(path_or_fileobj=b"x", path_in_repo="x.txt", repo_id="me/guarded")
    with pytest.raises(HfHubHTTPError, match=r"40[13]"):
        hub.api(token).delete_repo("me/guarded")


@LFS_WARNS
@pytest.mark.parametrize("xet", [True, False])
def test_a_folder_of_small_and_large_files(
    hub: Any, files: Callable[..., Path], xet: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With hf_xet or without it, what is uploaded is there."""
    monkeypatch.setattr(hub_constants, "HF_HUB_DISABLE_XET", not xet)
    content: dict[str, str | bytes] = {"README.md": CARD, "a/b.json": "{}", "w.safetensors": BIG}
    folder, repo_id = files(content), f"me/folder-{xet}".lower()
    api = hub.api()
    api.create_repo(repo_id)
    done = api.upload_folder(repo_id=repo_id, folder_path=folder, commit_message="first")
    assert done.commit_url == f"{hub.url}/{repo_id}/commit/{done.oid}"
    assert api.model_info(repo_id).sha == done.oid
    assert read(hub, repo_id, "w.safetensors") == BIG
    assert read(hub, repo_id, "a/b.json") == b"{}"
    again = api.upload_folder(repo_id=repo_id, folder_path=folder, commit_message="again")
    assert again.oid == done.oid  # nothing changed, so the client sends no commit


@LFS_WARNS
def test_large_files_by_lfs(
    hub: Any, files: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_constants, "HF_HUB_DISABLE_XET", True)
    api = hub.api()
    folder = files({"w.safetensors": BIG, "copy.safetensors": BIG, "x.bin": b"x" * 70_000})
    api.create_repo("me/by-lfs")
    done = api.upload_folder(repo_id="me/by-lfs", folder_path=folder)
    again = api.upload_folder(repo_id="me/by-lfs", folder_path=folder)
    assert again.oid == done.oid
    for name in ("w.safetensors", "copy.safetensors", "x.bin"):
        assert read(hub, "me/by-lfs", name) == (folder / name).read_bytes()
    copy = CommitOperationCopy("x.bin", "y.bin")
    api.create_commit("me/by-lfs", [copy], commit_message="copy")
    assert read(hub, "me/by-lfs", "y.bin") == b"x" * 70_000
    with pytest.raises(OSError, match="403"):
        hub.call("PUT", "/_lfs/models/me/by-lfs/" + "0" * 64, {"forged": True})


def test_xet_uploads_survive_a_recreated_repo(hub: Any, repo: str) -> None:
    """The client remembers what it sent to an address; the second repo must get it all again."""
    numbers = struct.pack("<200000f", *range(200_000))  # packed by another scheme than bytes
    for content in (numbers, numbers + b"more"):
        hub.api().delete_repo(repo)
        hub.api().create_repo(repo)
        for name in ("a.bin", "b.bin"):
            hub.api().upload_file(path_or_fileobj=content, path_in_repo=name, repo_id=repo)
        assert read(hub, repo, "b.bin") == content


def test_an_xet_session_is_closed_to_others(hub: Any, repo: str) -> None:
    auth = {"Authorization": "Bearer hf_me"}
    path = f"/api/models/{repo}/xet-write-token/main"
    with pytest.raises(OSError, match="403"):
        hub.call("GET", path, Authorization="Bearer hf_reader")
    opened = json.loads(hub.call("GET", path, **auth))
    cas = opened["casUrl"].removeprefix(hub.url)
    with pytest.raises(OSError, match="403"):
        hub.call("POST", f"{cas}/v1/shards", {}, **auth)
    good = {"Authorization": f"Bearer {opened['accessToken']}"}
    for path in (f"{cas}/v1/shards", f"{cas}/v1/xorbs/default/..%2F..%2Frepo.json"):
        with pytest.raises(OSError, match="400"):
            hub.call("POST", path, {}, **good)


def test_a_stale_parent_is_refused(hub: Any, repo: str) -> None:
    api = hub.api()
    start = api.model_info(repo).sha

    def commit(name: str, parent: str) -> str:
        add = CommitOperationAdd(name, b"x")
        oid: str = api.create_commit(repo, [add], commit_message=name, parent_commit=parent).oid
        return oid

    first = commit("one.txt", start)
    with pytest.raises(HfHubHTTPError, match="412"):
        commit("two.txt", start)
    assert commit("two.txt", first[:8]) != first
    titles = [row.title for row in api.list_repo_commits(repo)]
    assert titles == ["two.txt", "one.txt", "initial commit"]


def test_racing_commits_are_all_kept(hub: Any, repo: str) -> None:
    def upload(number: int) -> None:
        hub.api().upload_file(
            path_or_fileobj=b"%d" % number, path_in_repo=f"{number}.txt", repo_id=repo
        )

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(upload, range(8)))
    names = set(hub.api().list_repo_files(repo))
    assert names == {".gitattributes", *(f"{number}.txt" for number in range(8))}


def test_deletions(hub: Any, repo: str, files: Callable[..., Path]) -> None:
    api = hub.api()
    folder = files({"a.txt": "a", "old/1.bin": b"1", "old/2.bin": b"2", "b.txt": "b"})
    before = api.upload_folder(repo_id=repo, folder_path=folder).oid
    operations = [CommitOperationDelete("old/"), CommitOperationDelete("a.txt")]
    api.create_commit(repo, operations, commit_message="tidy")
    assert api.list_repo_files(repo) == [".gitattributes", "b.txt"]
    assert read(hub, repo, "a.txt", revision=before) == b"a"
    with pytest.raises(EntryNotFoundError):
        api.delete_file("a.txt", repo)
    with pytest.raises(EntryNotFoundError):
        api.delete_folder("old", repo)


def test_commits_to_branches(hub: Any, repo: str) -> None:
    api = hub.api()
    api.create_branch(repo, branch="try/1")
    api.upload_file(path_or_fileobj=b"t", path_in_repo="t.txt", repo_id=repo, revision="try/1")
    assert "t.txt" in api.list_repo_files(repo, revision="try/1")
    assert "t.txt" not in api.list_repo_files(repo)
    with pytest.raises(RevisionNotFoundError):
        api.upload_file(path_or_fileobj=b"t", path_in_repo="t", repo_id=repo, revision="none")
    with pytest.raises(HfHubHTTPError, match="409"):
        api.create_branch(repo, branch="try/1")


def test_cards_are_checked_before_a_push(hub: Any, repo: str) -> None:
    def push(text: str) -> None:
        hub.api().upload_file(path_or_fileobj=text.encode(), path_in_repo="README.md", repo_id=repo)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        push(CARD)
    with pytest.warns(UserWarning, match="empty or missing yaml"):
        push("# No card")
    for bad in ("---\na: [1\n---\n", "---\nconfigs: {}\n---\n", "---\nlicense: 3\n---\n"):
        with pytest.raises(ValueError, match="Invalid metadata"):
            push(bad)


@pytest.mark.parametrize(
    "line",
    [
        '{"key": "file", "value": {"path": "../x", "content": "", "encoding": "base64"}}',
        '{"key": "file", "value": {"path": "x", "content": "?", "encoding": "base64"}}',
        '{"key": "lfsFile", "value": {"path": "x", "algo": "sha256", "oid": "../../users.json"}}',
        '{"key": "lfsFile", "value": {"path": "x", "algo": "sha256", "oid": "%s"}}' % ("0" * 64),
        '{"key": "chmod", "value": {"path": "x"}}',
        "[1, 2",
        '{"key": "file", "value": {"path": "x", "content": "' + "A" * 1_500_000,
    ],
)
def test_malformed_commits_change_nothing(hub: Any, line: str) -> None:
    from huggingface_hub.utils import get_session

    hub.api().create_repo("me/strict", exist_ok=True)
    before = hub.api().model_info("me/strict").sha
    body = '{"key": "header", "value": {"summary": "s"}}\n' + line + "\n"
    answer = get_session().post(
        f"{hub.url}/api/models/me/strict/commit/main",
        content=body.encode(),
        headers={"Authorization": "Bearer hf_me"},
    )
    assert answer.status_code in (400, 422)
    assert hub.api().model_info("me/strict").sha == before


def test_another_process_may_write_to_the_store(hub: Any, files: Callable[..., Path]) -> None:
    folder = files({"a.txt": "a"})
    store = HubStore(hub.store.folder)
    store.create_repo("model", "demo/live")
    sha = store.commit_folder("model", "demo/live", folder, "from outside").sha
    assert hub.api().model_info("demo/live").sha == sha
    store.add_token("hf_new", "new", "write")
    assert hub.api("hf_new").whoami()["name"] == "new"


def test_the_store_is_plain_files(hub: Any, repo: str, files: Callable[..., Path]) -> None:
    sha = hub.store.commit_folder("model", repo, files({"a/b.txt": "text"}), "mine").sha
    folder = hub.store.folder / "models" / repo
    assert json.loads((folder / "repo.json").read_text())["private"] is True
    assert json.loads((folder / "refs.json").read_text())["branches"] == {"main": sha}
    manifest = json.loads((folder / "commits" / sha / "manifest.json").read_text())
    entry = manifest["files"]["a/b.txt"]
    assert (folder / "blobs" / entry["sha256"]).read_text() == "text"
    assert (manifest["title"], entry["size"], len(sha)) == ("mine", 4, 40)
    assert not list(hub.store.folder.rglob(".tmp-*"))
    assert (hub.store.folder / "users.json").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/repos/create", {"name": ["not", "text"]}),
        ("/api/repos/create", {"name": "me/space", "type": "space"}),
        ("/api/models/me/typed/preupload/main", {"files": [{"path": "x", "size": "large"}]}),
        ("/me/typed.git/info/lfs/objects/batch", {"operation": "upload", "objects": [{}]}),
        ("/api/models/me/typed/paths-info/main", [1]),
    ],
)
def test_a_body_that_does_not_fit_is_answered_400(hub: Any, path: str, body: object) -> None:
    hub.api().create_repo("me/typed", exist_ok=True)
    headers = {"Authorization": "Bearer hf_me", "Content-Type": "application/json"}
    with pytest.raises(OSError, match="400"):
        hub.call("POST", path, body, **headers)
