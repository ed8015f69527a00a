"""Which route the client's own files take. Broker and Hub: tests/redis, tests/e2e."""

from dataclasses import replace
from pathlib import Path

import pytest
from redis import Redis

from ftq_client.transfer.files import OwnFile
from ftq_client.transfer.hub_route import HubRoute
from ftq_client.transfer.upload_routes import Draft, make_draft, send_inputs
from ftq_shared.dataset_files import UNREAD_LIST, unread_from_json
from ftq_shared.errors import UsageError
from ftq_shared.hosts import HostRecord
from ftq_shared.job_record import InputFile
from ftq_shared.lifetimes import INPUT_JOB_MAX
from ftq_shared.settings import Settings, load_settings
from ftq_shared.spec import JobSpec

NO_BROKER = Redis(port=1)  # any call raises
HOST = HostRecord("h1", "i1", 1, (), "s1", False, 0, 1.0, "0", "http://hub")
SHA256 = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"  # of hello


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "storage_id").write_text("s1\n")
    return load_settings({"FTQ_STORAGE": f"file://{tmp_path}", "FTQ_HOME": str(tmp_path)})


@pytest.fixture
def spec(tmp_path: Path) -> JobSpec:
    (tmp_path / "rows.jsonl").write_text("hello")
    return JobSpec(model="a/b", dataset=str(tmp_path / "rows.jsonl"))


def hub(*, consents: bool) -> HubRoute:
    return HubRoute("http://hub", None, lambda _: consents, lambda _: None)


def test_a_shared_storage_gets_a_copy(settings: Settings, spec: JobSpec, tmp_path: Path) -> None:
    lost = replace(HOST, name="h2", storage_id="s2", age_s=1e6)  # does not count
    draft = make_draft(spec, NO_BROKER, settings, [HOST, lost])
    assert (draft.storage, draft.needs_hub) == (tmp_path, False)
    sent = send_inputs(draft, "ft-aaaaaaaa", NO_BROKER, hub(consents=False))
    assert sent == [InputFile("dataset/rows.jsonl", 5, SHA256)]
    copy = tmp_path / "jobs" / "ft-aaaaaaaa" / "inputs" / "dataset" / "rows.jsonl"
    assert copy.read_text() == "hello"


def test_one_host_with_another_storage_closes_that_route(settings: Settings, spec: JobSpec) -> None:
    with Path(spec.dataset).open("ab") as file:
        file.truncate(INPUT_JOB_MAX + 1)
    draft = make_draft(spec, NO_BROKER, settings, [HOST, replace(HOST, storage_id="s2")])
    assert (draft.storage, draft.needs_hub) == (None, True)
    with pytest.raises(UsageError, match="64 MiB of files cannot travel through the broker"):
        send_inputs(draft, "ft-aaaaaaaa", NO_BROKER, hub(consents=False))


def test_without_own_files_nothing_is_sent(settings: Settings) -> None:
    draft = make_draft(JobSpec(model="a/b", dataset="c/d"), NO_BROKER, settings, [])
    assert draft == Draft(draft.spec, [])
    assert send_inputs(draft, "ft-aaaaaaaa", NO_BROKER, hub(consents=False)) == []


def test_files_of_a_draft_go_as_they_were_found(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("hello")
    file = OwnFile(tmp_path / "a.txt", "model/a.txt", 5)
    draft = Draft(JobSpec(model="./gone", dataset="c/d"), [file], storage=tmp_path)
    sent = send_inputs(draft, "ft-aaaaaaaa", NO_BROKER, hub(consents=False))
    assert [entry.path for entry in sent] == ["model/a.txt"]


def test_of_a_file_that_is_not_read_the_name_goes(settings: Settings, tmp_path: Path) -> None:
    for name in ("rows.jsonl", "notes.docx"):
        (tmp_path / "data" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "data" / name).write_text("hello")
    spec = JobSpec(model="a/b", dataset=str(tmp_path / "data"))
    draft = make_draft(spec, NO_BROKER, settings, [HOST])
    sent = send_inputs(draft, "ft-aaaaaaaa", NO_BROKER, hub(consents=False))
    assert [file.path for file in sent] == ["dataset/rows.jsonl", f"dataset/{UNREAD_LIST}"]
    told = tmp_path / "jobs" / "ft-aaaaaaaa" / "inputs" / "dataset" / UNREAD_LIST
    assert told.stat().st_size == sent[1].size
    assert [file.name for file in unread_from_json(told.read_bytes())] == ["notes.docx"]
