"""Search, infos, trees and downloads, asked by the real client."""

import hashlib
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import hf_hub_download, snapshot_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

CARD = """---
license: apache-2.0
base_model: org/base
library_name: transformers
pipeline_tag: text-generation
tags: [demo]
---
# A model
"""


def safetensors(shapes: dict[str, tuple[str, list[int]]]) -> bytes:
    """Return a safetensors file of zeros."""
    sizes = {"F32": 4, "BF16": 2}
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, (dtype, shape) in shapes.items():
        start, count = end, 1
        for side in shape:
            count *= side
        end += count * sizes[dtype]
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(end)


WEIGHTS = safetensors({"a": ("F32", [30, 10]), "b": ("BF16", [7])})
MODEL: dict[str, str | bytes] = {
    "README.md": CARD,
    "config.json": '{"model_type": "llama", "architectures": ["LlamaForCausalLM"]}',
    "model.safetensors": WEIGHTS,
    "extra/deep/notes.txt": "hello",
}


@pytest.fixture(scope="module")
def model(hub: Any, tmp_path_factory: pytest.TempPathFactory) -> str:
    """One public model, a private and a gated one, a dataset; returns the public one's commit."""
    folder = tmp_path_factory.mktemp("model")
    for name, content in MODEL.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    store = hub.store
    store.create_repo("model", "me/tiny-llama")
    sha: str = store.commit_folder("model", "me/tiny-llama", folder, "weights").sha
    for repo_id, settings in {
        "me/secret-llama": {"private": True},
        "team/gated-llama": {"gated": True},
    }.items():
        store.create_repo("model", repo_id, **settings)
        store.commit_folder("model", repo_id, folder, "weights")
    store.create_repo("dataset", "me/rows")
    return sha


def test_search_finds_what_the_user_may_see(hub: Any, model: str) -> None:
    mine = ("me/tiny-llama", "me/secret-llama", "team/gated-llama")  # the Hub holds others' too

    def ids(token: str | bool, **query: Any) -> list[str]:
        return [one.id for one in hub.api(token).list_models(**query) if one.id in mine]

    assert ids("hf_me", search="LLAMA tiny") == ["me/tiny-llama"]
    assert set(ids("hf_me", search="llama")) == {
        "me/tiny-llama",
        "me/secret-llama",
        "team/gated-llama",
    }
    assert set(ids("hf_other", search="llama")) == {"me/tiny-llama", "team/gated-llama"}
    assert ids(False, author="team") == ["team/gated-llama"]
    assert ids(False, filter="license:apache-2.0", author="me") == ["me/tiny-llama"]
    assert ids(False, filter="license:wtfpl") == []
    assert len(list(hub.api("hf_me").list_models(limit=2, sort="last_modified"))) == 2
    assert "me/rows" in [found.id for found in hub.api().list_datasets(search="rows")]
    assert not list(hub.api().list_datasets(search="no-such-rows"))


def test_search_follows_pages_and_expands(hub: Any, model: str) -> None:
    page = hub.call("GET", "/api/models?search=llama&limit=1&expand=sha&cursor=0")
    assert set(json.loads(page)[0]) == {"_id", "id", "modelId", "sha"}
    found = next(iter(hub.api().list_models(search="tiny", expand=["safetensors", "gated"])))
    assert found.safetensors.total == 307
    assert found.gated is False


def test_model_info(hub: Any, model: str) -> None:
    info = hub.api().model_info("me/tiny-llama", files_metadata=True)
    assert info.sha == model
    assert info.safetensors.parameters == {"BF16": 7, "F32": 300}
    assert (info.private, info.gated, info.author) == (False, False, "me")
    assert info.card_data["base_model"] == "org/base"
    assert {"demo", "license:apache-2.0", "base_model:org/base", "llama"} <= set(info.tags)
    assert info.config["model_type"] == "llama"
    files = {row.rfilename: row for row in info.siblings}
    assert set(files) == {*MODEL, ".gitattributes"}
    assert files["model.safetensors"].lfs.size == len(WEIGHTS)
    assert files["config.json"].lfs is None
    assert hub.api().dataset_info("me/rows").sha
    one = hub.api().model_info("me/tiny-llama", expand=["private"])
    assert one.private is False
    assert one.siblings is None


def test_trees_and_paths(hub: Any, model: str) -> None:
    api = hub.api()
    top = {row.path: type(row).__name__ for row in api.list_repo_tree("me/tiny-llama")}
    assert top["extra"] == "RepoFolder"
    assert top["config.json"] == "RepoFile"
    deep = [row.path for row in api.list_repo_tree("me/tiny-llama", "extra/deep")]
    assert deep == ["extra/deep/notes.txt"]
    every = api.list_repo_tree("me/tiny-llama", recursive=True, expand=True)
    assert {row.last_commit.title for row in every if row.path in MODEL} == {"weights"}
    asked = api.get_paths_info("me/tiny-llama", ["extra", "config.json", "nothing"], expand=True)
    assert [row.path for row in asked] == ["extra", "config.json"]
    with pytest.raises(EntryNotFoundError):
        list(api.list_repo_tree("me/tiny-llama", "nowhere"))


def test_safetensors_metadata_comes_by_range(hub: Any, model: str) -> None:
    found = hub.api().get_safetensors_metadata("me/tiny-llama")
    assert found.parameter_count == {"F32": 300, "BF16": 7}
    assert not found.sharded


def test_history_refs_and_pinned_revisions(hub: Any, model: str, tmp_path: Path) -> None:
    api = hub.api()
    first = [commit.commit_id for commit in api.list_repo_commits("me/tiny-llama")][-1]
    api.create_tag("me/tiny-llama", tag="v1", revision=model)
    api.create_branch("me/tiny-llama", branch="old/start", revision=first)
    api.create_branch("me/tiny-llama", branch="old/start", revision=first, exist_ok=True)
    refs = api.list_repo_refs("me/tiny-llama")
    assert {ref.name: ref.target_commit for ref in refs.tags} == {"v1": model}
    assert {ref.name: ref.target_commit for ref in refs.branches}["old/start"] == first
    assert api.model_info("me/tiny-llama", revision="v1").sha == model
    assert api.model_info("me/tiny-llama", revision=first[:8]).sha == first
    old = api.list_repo_files("me/tiny-llama", revision="old/start")
    assert old == [".gitattributes"]
    path = api.hf_hub_download(
        "me/tiny-llama", "config.json", revision=model, cache_dir=tmp_path / "cache"
    )
    assert model in path
    api.delete_tag("me/tiny-llama", tag="v1")
    api.delete_branch("me/tiny-llama", branch="old/start")
    assert [ref.name for ref in api.list_repo_refs("me/tiny-llama").branches] == ["main"]


def test_downloads(hub: Any, model: str, tmp_path: Path) -> None:
    folder = snapshot_download(
        "me/tiny-llama", endpoint=hub.url, token=False, cache_dir=tmp_path / "cache"
    )
    for name, content in MODEL.items():
        data = content.encode() if isinstance(content, str) else content
        assert (Path(folder) / name).read_bytes() == data
    assert Path(folder).name == model
    url = f"{hub.url}/me/tiny-llama/resolve/main/model.safetensors"
    meta = hub.api().get_hf_file_metadata(url=url)
    assert (meta.size, meta.commit_hash) == (len(WEIGHTS), model)
    assert meta.etag == hashlib.sha256(WEIGHTS).hexdigest()
    assert meta.location.split("/")[2] != hub.url.split("/")[2]  # on another port
    assert meta.xet_file_data.refresh_route.startswith(hub.url)


def test_a_started_download_goes_on_where_it_stopped(hub: Any, model: str, tmp_path: Path) -> None:
    part = hub.call("GET", "/me/tiny-llama/resolve/main/model.safetensors", Range="bytes=100-199")
    assert part == WEIGHTS[100:200]
    tail = hub.call("GET", "/me/tiny-llama/resolve/main/model.safetensors", Range="bytes=-10")
    assert tail == WEIGHTS[-10:]
    rest = hub.call("GET", "/me/tiny-llama/resolve/main/model.safetensors", Range="bytes=1000-")
    assert rest == WEIGHTS[1000:]
    with pytest.raises(OSError, match="416"):
        hub.call("GET", "/me/tiny-llama/resolve/main/config.json", Range="bytes=99999-")
    with pytest.raises(OSError, match="400"):
        hub.call("GET", "/me/tiny-llama/resolve/main/config.json", Range="bytes=a-b")


def test_each_refusal_is_the_clients_own_error(hub: Any, model: str, tmp_path: Path) -> None:
    def fetch(repo: str, name: str, token: str | bool, revision: str = "main") -> str:
        return hf_hub_download(
            repo,
            name,
            revision=revision,
            endpoint=hub.url,
            token=token,
            cache_dir=tmp_path / "cache",
        )

    for token in ("hf_other", False):
        for call in (hub.api(token).model_info, hub.api(token).auth_check):
            with pytest.raises(RepositoryNotFoundError) as caught:
                call("me/secret-llama")
            assert not isinstance(caught.value, GatedRepoError)
    for repo in ("me/nothing", "bare-name"):
        with pytest.raises(RepositoryNotFoundError):
            hub.api().model_info(repo)
    with pytest.raises(RevisionNotFoundError):
        hub.api().model_info("me/tiny-llama", revision="nope")
    with pytest.raises(RevisionNotFoundError):
        fetch("me/tiny-llama", "config.json", False, "0" * 40)
    with pytest.raises(EntryNotFoundError):
        fetch("me/tiny-llama", "nope.json", False)
    for token, status in (("hf_other", 403), (False, 401)):
        with pytest.raises(GatedRepoError) as gated:
            fetch("team/gated-llama", "config.json", token)
        assert gated.value.response.status_code == status
    with pytest.raises(HfHubHTTPError, match="401"):
        hub.api("hf_unknown").model_info("me/tiny-llama")
    assert fetch("team/gated-llama", "config.json", "hf_me")


def test_access_can_be_granted(hub: Any, model: str) -> None:
    with pytest.raises(GatedRepoError):
        hub.api("hf_other").auth_check("team/gated-llama")
    hub.store.grant_access("team/gated-llama", "other")
    hub.api("hf_other").auth_check("team/gated-llama")
    hub.store.grant_access("me/secret-llama", "other")
    assert hub.api("hf_other").model_info("me/secret-llama").private


def test_who_am_i_and_roles(hub: Any, model: str) -> None:
    me = hub.api().whoami()
    assert (me["name"], [org["name"] for org in me["orgs"]]) == ("me", ["team"])
    assert hub.api("hf_reader").whoami()["auth"]["accessToken"]["role"] == "read"
    hub.api().auth_check("me/tiny-llama", write=True)
    for token in ("hf_reader", "hf_other"):
        with pytest.raises(HfHubHTTPError, match="403"):
            hub.api(token).auth_check("me/tiny-llama", write=True)
    with pytest.raises(HfHubHTTPError):
        hub.api("hf_unknown").whoami()


def test_pages_are_readable(hub: Any, model: str, files: Callable[..., Path]) -> None:
    assert "me/tiny-llama" in hub.call("GET", "/").decode()
    page = hub.call("GET", "/me/tiny-llama").decode()
    assert "# A model" in page
    assert "model.safetensors" in page
    assert "license:" not in page
    with pytest.raises(OSError, match="401"):
        hub.call("GET", "/me/secret-llama")
    assert b"# A model" in hub.call("GET", "/me/secret-llama", Authorization="Basic eDpoZl9tZQ==")
