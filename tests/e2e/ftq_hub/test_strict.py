"""Where the real Hub says no, or sends a client elsewhere, this one does too."""

import contextlib
import json
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from huggingface_hub import CommitOperationAdd
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError

from ftq_hub import HubApp, Tls, running

AUTH = {"Authorization": "Bearer hf_me"}


@pytest.fixture
def web(hub: Any) -> Iterator[httpx2.Client]:
    """A client that follows nothing by itself."""
    with httpx2.Client(base_url=hub.url, headers=AUTH, timeout=20) as client:
        yield client


@pytest.fixture
def repo(hub: Any) -> str:
    """An empty repo of the user."""
    name = f"me/strict-{secrets.token_hex(4)}"
    hub.api().create_repo(name)
    return name


def push(hub: Any, repo: str, path: str, content: bytes = b"x", token: str = "hf_me") -> str:
    add = CommitOperationAdd(path, content)
    oid: str = hub.api(token).create_commit(repo, [add], commit_message=f"add {path}"[:60]).oid
    return oid


def commit_lines(web: httpx2.Client, repo: str, *lines: object) -> httpx2.Response:
    """Send a commit as no client would write it."""
    body = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    return web.post(f"/api/models/{repo}/commit/main", content=body.encode())


HEADER = {"key": "header", "value": {"summary": "s", "description": ""}}


def file_line(path: str, content: str = "x") -> dict[str, object]:
    return {"key": "file", "value": {"path": path, "content": content, "encoding": "utf-8"}}


# Cards


@pytest.mark.parametrize(
    ("matter", "fault"),
    [
        ("license: qwen-research", '"license" must be one of'),
        ("license: [mit, mine]", '"license[1]" must be one of'),
        ("license: 3", '"license" must be one of'),
        ("base_model: /tmp/x y", '"base_model" with value'),
        ("datasets: [./rows]", '"datasets" with value'),
        ("tags: {a: b}", '"tags" must be'),
        ("pipeline_tag: [a]", '"pipeline_tag" must be a string'),
        ("model-index: {}", '"model-index" must be an array'),
        ("model-index: [{results: []}]", '"model-index[0].name" is required'),
        ("model-index: [{name: x, results: [{}]}]", ".task.type"),
        ("- a", "must be a mapping"),
        ("a: &x [1]\nb: *x", "anchors and aliases"),
        ("a: [", "Invalid YAML"),
        ("a: " + "[" * 5000, "nested too deeply"),
        ("a: " + "[" * 3000 + "]" * 3000, "nested too deeply"),
        ("a: " + "9" * 5000, "Invalid YAML"),
        ("? [a, b]\n: c", "Invalid YAML"),
        ("a: " + "x" * 70_000, "larger than 64 KiB"),
    ],
)
def test_a_bad_card_is_refused_when_asked_and_when_committed(
    hub: Any, web: httpx2.Client, repo: str, matter: str, fault: str
) -> None:
    text = f"---\n{matter}\n---\n"
    answer = web.post("/api/validate-yaml", json={"content": text, "repoType": "model"})
    assert answer.status_code == 400
    assert any(fault in error["message"] for error in answer.json()["errors"])
    before = hub.api().model_info(repo).sha
    answer = commit_lines(web, repo, HEADER, file_line("README.md", text))
    assert answer.status_code == 400
    assert fault in answer.json()["error"]
    assert hub.api().model_info(repo).sha == before


@pytest.mark.parametrize(
    "matter",
    [
        "license: other\nlicense_name: qwen-research\nlicense_link: LICENSE",
        "license: [mit, apache-2.0]",
        "date: 2024-01-01\nnumber: .nan\n1: x\nraw: !!binary aGVsbG8=",
    ],
)
def test_a_good_card_is_taken_and_shown_as_json(hub: Any, repo: str, matter: str) -> None:
    push(hub, repo, "README.md", f"---\n{matter}\n---\n".encode())
    assert hub.api().model_info(repo).card_data.to_dict()


def test_a_card_that_another_process_wrote_stops_nobody(hub: Any, tmp_path: Path) -> None:
    """Nine aliases of nine aliases: gigabytes once written out, and every search reads it."""
    lines = ["a0: &a0 [" + ", ".join(["x"] * 9) + "]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 9)]
    (tmp_path / "README.md").write_text("---\n" + "\n".join(lines) + "\n---\n")
    hub.store.create_repo("model", "me/bomb")
    hub.store.commit_folder("model", "me/bomb", tmp_path)
    start = time.monotonic()
    assert hub.api().model_info("me/bomb").card_data is None
    assert [m.id for m in hub.api().list_models(search="bomb", full=True)] == ["me/bomb"]
    assert time.monotonic() - start < 20
    hub.store.delete_repo("model", "me/bomb")


# Paths, names, bodies


@pytest.mark.parametrize(
    "path",
    ["..\\x", "../x", "a//b", "./a", "a/../b", "a\nb", "a\x1b[31m", "x" * 300, "d/" * 600 + "x"],
)
def test_paths_that_no_client_can_keep_are_refused(
    web: httpx2.Client, repo: str, path: str
) -> None:
    assert commit_lines(web, repo, HEADER, file_line(path)).status_code == 422
    asked = {"files": [{"path": path, "size": 1, "sample": ""}]}
    assert web.post(f"/api/models/{repo}/preupload/main", json=asked).status_code == 422


def test_a_file_beside_a_folder_of_its_name_is_refused(web: httpx2.Client, repo: str) -> None:
    answer = commit_lines(web, repo, HEADER, file_line("d"), file_line("d/e"))
    assert answer.status_code == 422
    assert commit_lines(web, repo, HEADER, file_line("d/e")).status_code == 200
    assert commit_lines(web, repo, HEADER, file_line("d")).status_code == 422
    replaced = {"key": "deletedFolder", "value": {"path": "d/"}}
    assert commit_lines(web, repo, HEADER, replaced, file_line("d")).status_code == 200


@pytest.mark.parametrize("digits", [7, 12, 40])
def test_no_branch_or_tag_stands_for_a_commit(hub: Any, repo: str, digits: int) -> None:
    first = push(hub, repo, "f.txt", b"good")
    push(hub, repo, "f.txt", b"evil")
    with pytest.raises(HfHubHTTPError, match="is not a branch or tag name"):
        hub.api().create_branch(repo, branch=first[:digits])
    with pytest.raises(HfHubHTTPError, match="is not a branch or tag name"):
        hub.api().create_tag(repo, tag=first[:digits])
    # Nor does one that an older version let in.
    files = hub.store.files("model", repo)
    refs = files.refs()
    refs.branches[first] = refs.branches["main"]
    files.save_refs(refs)
    assert hub.call("GET", f"/{repo}/resolve/{first}/f.txt", **AUTH) == b"good"


ODD_COMMITS = [
    {"key": "header", "value": [1]},
    {"key": "header", "value": None},
    {"key": "header", "value": "x"},
    {"key": "header", "value": {"summary": "s", "parentCommit": 5}},
    {"key": "file", "value": {"summary": "s"}},
    {"key": "header", "value": {"path": "x"}},
    "[" * 100_000,
    "9" * 10_000,
    "\x00",
    '{"key": "file", "value": {"path": "\\ud800", "content": "x"}}',
]


@pytest.mark.parametrize("line", ODD_COMMITS, ids=range(len(ODD_COMMITS)))
def test_an_odd_commit_is_a_bad_request(web: httpx2.Client, repo: str, line: object) -> None:
    assert commit_lines(web, repo, HEADER, line).status_code in (400, 422)


ODD_REQUESTS = [
    ("GET", "/api/models?limit=" + "9" * 5000),
    ("GET", "/api/models?cursor=%00"),
    ("GET", "/api/models/{repo}/revision/%00"),
    ("GET", "/api/models/{repo}/revision/a%0d%0aX-Evil:%201"),
    ("GET", "/{repo}/resolve/%00/x"),
    ("GET", "/{repo}/resolve/main/%ff%fe"),
    ("GET", "/api/models/{repo}/tree/main/%2e%2e%2f"),
    ("GET", "/api/models/%00/x"),
    ("POST", "/api/models/{repo}/paths-info/main"),
    ("POST", "/api/repos/create"),
    ("POST", "/api/repos/move"),
    ("POST", "/api/validate-yaml"),
    ("POST", "/api/models/{repo}/preupload/main"),
    ("POST", "/api/models/{repo}/branch/x"),
    ("PUT", "/api/models/{repo}/settings"),
    ("POST", "/{repo}.git/info/lfs/objects/batch"),
    ("PUT", "/_lfs/models/{repo}/" + "0" * 64 + "?until=" + "9" * 30),
    ("GET", "/_xet/models/{repo}/1-read-x/v1/reconstructions/" + "0" * 64),
    ("POST", "/_xet/models/{repo}/x-write-y/v1/shards"),
]


ODD_BODIES = [b"", b"null", b"[1]", b'"x"', b"[" * 100_000, b"\xff\xfe", b'{"content": 5}']


@pytest.mark.parametrize(("method", "path"), ODD_REQUESTS, ids=range(len(ODD_REQUESTS)))
def test_no_request_is_an_error_of_the_server(
    web: httpx2.Client, repo: str, method: str, path: str
) -> None:
    for body in ODD_BODIES:
        answer = web.request(method, path.replace("{repo}", repo), content=body)
        assert answer.status_code < 500, (body[:20], answer.text)
        assert "x-evil" not in answer.headers


@pytest.mark.parametrize(
    "header", ["Bearer", "Bearer x y", "Basic %%%", "Bearer \u00ff", "x" * 9000]
)
def test_an_odd_token_is_no_error_of_the_server(hub: Any, header: str) -> None:
    sent = {"Authorization": header.encode("latin-1")}
    answer = httpx2.get(f"{hub.url}/api/whoami-v2", headers=sent)
    assert answer.status_code == 401


def test_a_commit_that_is_too_large_is_refused(
    hub: Any, tls: Tls, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ftq_hub.api_write.MAX_COMMIT_BYTES", 10_000)
    hub.store.create_repo("model", "me/too-large")
    with (
        running(HubApp(hub.store), tls=tls) as url,
        httpx2.Client(base_url=url, headers=AUTH) as web,
    ):
        answer = commit_lines(web, "me/too-large", HEADER, file_line("x", "x" * 20_000))
        assert answer.status_code == 413
        assert commit_lines(web, "me/too-large", HEADER, file_line("x")).status_code == 200


# Who is who


def test_without_a_token_a_missing_and_a_private_repo_look_the_same(hub: Any, repo: str) -> None:
    hub.api().update_repo_settings(repo, private=True)
    for name in (repo, "me/nothing-at-all", "bare"):
        for path in (f"/api/models/{name}", f"/{name}/resolve/main/x"):
            answer = httpx2.get(hub.url + path)
            assert answer.status_code == 401
            assert answer.headers["x-error-message"] == "Invalid username or password."
        with pytest.raises(RepositoryNotFoundError):
            hub.api(False).model_info(name)
        answer = httpx2.get(
            f"{hub.url}/api/models/{name}", headers={"Authorization": "Bearer hf_other"}
        )
        assert (answer.status_code, answer.headers["x-error-code"]) == (404, "RepoNotFound")


def test_an_expired_token_is_told_as_such(hub: Any) -> None:
    hub.store.add_token("hf_late", "me", expires=time.time() - 1)
    hub.store.add_token("hf_soon", "me", expires=time.time() + 600)
    assert hub.api("hf_soon").whoami()["name"] == "me"
    with pytest.raises(HfHubHTTPError, match="is expired"):
        hub.api("hf_late").model_info("me/x")


def test_roles_in_an_organisation(hub: Any) -> None:
    for role in ("read", "contributor", "write", "admin"):
        hub.store.add_token(f"hf_{role}", role, orgs={"lab": role})
    hub.store.create_repo("model", "lab/shared", private=True)
    for role, makes, changes in (
        ("read", False, False),
        ("contributor", True, False),
        ("write", True, True),
        ("admin", True, True),
    ):
        api, token = hub.api(f"hf_{role}"), f"hf_{role}"
        assert api.whoami()["orgs"][0]["roleInOrg"] == role
        assert api.model_info("lab/shared").private
        with contextlib.nullcontext() if makes else pytest.raises(HfHubHTTPError, match="403"):
            api.create_repo(f"LAB/by-{role}")
        with contextlib.nullcontext() if changes else pytest.raises(HfHubHTTPError, match="403"):
            push(hub, "lab/shared", f"{role}.txt", token=token)
        if makes:
            push(hub, f"lab/by-{role}", "own.txt", token=token)
    with pytest.raises(HfHubHTTPError, match="403"):
        push(hub, "lab/by-write", "x.txt", token="hf_contributor")


# Names


def test_names_are_taken_in_any_case_and_kept_in_one(hub: Any, tmp_path: Path) -> None:
    api = hub.api()
    assert api.create_repo("ME/Mixed-Case").repo_id == "me/Mixed-Case"
    push(hub, "me/mixed-CASE", "w.safetensors", b"x" * 100)
    assert api.model_info("me/MIXED-case").id == "me/Mixed-Case"
    found = api.hf_hub_download("Me/mixed-case", "w.safetensors", cache_dir=tmp_path)
    assert Path(found).read_bytes() == b"x" * 100
    with pytest.raises(HfHubHTTPError, match="409"):
        api.create_repo("me/mixed-case")


def test_a_renamed_repo_is_found_by_every_call(hub: Any, tmp_path: Path) -> None:
    api = hub.api()
    api.create_repo("me/first-name", private=True)
    push(hub, "me/first-name", "a.txt", b"a")
    api.move_repo("me/first-name", "team/Second")
    answer = httpx2.get(f"{hub.url}/api/models/me/First-name?blobs=true", headers=AUTH)
    assert answer.status_code == 307
    assert answer.headers["location"] == "/api/models/team/Second?blobs=true"
    assert api.model_info("me/first-name").id == "team/Second"
    push(hub, "me/first-name", "w.safetensors", b"y" * 100)
    api.create_branch("me/first-name", branch="b")
    for name, content in (("a.txt", b"a"), ("w.safetensors", b"y" * 100)):
        found = api.hf_hub_download("me/first-name", name, cache_dir=tmp_path)
        assert Path(found).read_bytes() == content
    with pytest.raises(RepositoryNotFoundError):  # nor does the new name of a private repo leak
        hub.api("hf_other").model_info("me/first-name")
    api.move_repo("team/Second", "me/third")
    assert api.model_info("me/first-name").id == "me/third"
    api.create_repo("me/first-name")  # the name is free for a new one
    assert api.model_info("me/first-name").id == "me/first-name"


# Large files


def test_a_large_file_is_handed_out_elsewhere_for_a_while(
    hub: Any, tls: Tls, repo: str, web: httpx2.Client
) -> None:
    push(hub, repo, "w.safetensors", b"z" * 1000)
    answer = web.get(f"/{repo}/resolve/main/w.safetensors")
    assert answer.status_code == 302
    assert answer.headers["x-linked-size"] == "1000"
    there = answer.headers["location"]
    assert there.split("/")[2] != hub.url.split("/")[2]
    assert httpx2.get(there).content == b"z" * 1000
    assert httpx2.get(there, headers={"Range": "bytes=990-"}).content == b"z" * 10
    assert httpx2.get(there, headers=AUTH).status_code == 400  # the token belongs to the Hub alone
    assert httpx2.get(there + "x").status_code == 403
    assert httpx2.get(there.replace("/file/", "/xorb-0/")).status_code == 403
    for path in ("/api/models", "/", f"/{repo}/resolve/main/w.safetensors"):
        elsewhere = "/".join(there.split("/")[:3]) + path
        assert httpx2.get(elsewhere, headers=AUTH).status_code in (401, 404)
    app = HubApp(hub.store)
    app.content_url_s = -1
    with running(app, tls=tls) as url:
        ended = httpx2.get(f"{url}/{repo}/resolve/main/w.safetensors", headers=AUTH)
        assert httpx2.get(ended.headers["location"]).status_code == 403


def test_each_answer_says_how_many_requests_are_left(hub: Any, web: httpx2.Client) -> None:
    for path in ("/api/models", "/api/models/me/none", "/me/none/resolve/main/x", "/"):
        headers = web.get(path).headers
        assert headers["ratelimit"].endswith(";t=300")
        assert headers["ratelimit-policy"].endswith(";w=300")
        assert headers["x-request-id"]


def test_the_repos_own_rules_say_what_is_large(hub: Any, repo: str) -> None:
    rules = b"*.bin filter=lfs\nsmall/*.bin -filter\n*.weights filter=lfs diff=lfs -text\n"
    push(hub, repo, ".gitattributes", rules)
    for name in ("a.bin", "small/b.bin", "c.weights", "d.safetensors"):
        push(hub, repo, name, b"not empty")
    push(hub, repo, "empty.bin", b"")
    rows = {row.path: row for row in hub.api().list_repo_tree(repo, recursive=True)}
    large = {path for path, row in rows.items() if getattr(row, "lfs", None)}
    assert large == {"a.bin", "c.weights"}
    assert rows["a.bin"].xet_hash
    assert not rows["empty.bin"].xet_hash


def test_what_a_gitignore_matches_is_left_out(
    hub: Any, repo: str, files: Callable[..., Path]
) -> None:
    push(hub, repo, ".gitignore", b"*.tmp\n/nested/*\n!nested/kept.txt\n")
    folder = files({"a.txt": "a", "b.tmp": "b", "nested/c.txt": "c", "nested/kept.txt": "d"})
    hub.api().upload_folder(repo_id=repo, folder_path=folder)
    there = set(hub.api().list_repo_files(repo))
    assert there == {".gitattributes", ".gitignore", "a.txt", "nested/kept.txt"}


def test_lists_come_in_pages(hub: Any, repo: str, web: httpx2.Client) -> None:
    lines = [file_line(f"f{number:03}.txt") for number in range(75)]
    assert commit_lines(web, repo, HEADER, *lines).status_code == 200
    first = web.get(f"/api/models/{repo}/tree/main")
    assert len(first.json()) == 30
    assert 'rel="next"' in first.headers["link"]
    assert len(list(hub.api().list_repo_tree(repo))) == 76
    for number in range(35):
        hub.store.create_repo("dataset", f"me/page-{number}")
    found = list(hub.api().list_datasets(search="page-"))
    assert len({row.id for row in found}) == 35
    for number in range(35):
        hub.store.delete_repo("dataset", f"me/page-{number}")


def test_a_download_without_rights_is_no_empty_file(hub: Any, repo: str, tmp_path: Path) -> None:
    push(hub, repo, "w.safetensors", b"q" * 100)
    hub.api().update_repo_settings(repo, private=True)
    for token in ("hf_other", False):
        with pytest.raises(RepositoryNotFoundError):
            hub.api(token).hf_hub_download(repo, "w.safetensors", cache_dir=tmp_path)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--tls-cert", "{cert}"], "go together"),
        (["--tls-cert", "/nowhere.pem", "--tls-key", "{key}"], "/nowhere.pem"),
        (["--tls-cert", "{key}", "--tls-key", "{cert}"], "no certificate and its key"),
        (["--token", "hf_x=me:write:lab=owner"], "contributor"),
        (["--token", "hf_x=me:admin"], "read or write"),
    ],
)
def test_options_that_mean_nothing_are_told(
    tmp_path: Path, tls: Tls, options: list[str], words: str
) -> None:
    filled = [text.format(cert=tls.cert, key=tls.key) for text in options]
    command = [sys.executable, "-m", "ftq_client", "hub", "--port", "0", "--dir", str(tmp_path)]
    done = subprocess.run([*command, *filled], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr
