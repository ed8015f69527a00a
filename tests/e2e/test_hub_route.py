"""Files too large for the broker, through a private Hub repo: with consent, and freed after."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ftq_hub import Fault
from ftq_shared import keys
from ftq_shared.errors import FtqError, Stale, UsageError
from ftq_shared.events import EventType
from ftq_shared.job_record import InputFile
from ftq_shared.lifetimes import INPUT_JOB_MAX, INPUT_TOTAL_MAX
from ftq_shared.spec import JobSpec
from ftq_shared.states import JobState, Phase
from ftq_worker.child.main import hub_inputs
from ftq_worker.demo.assets import save_base
from ftq_worker.job.context import SoleOwner
from tests.support.data_jobs import Recorder, make_context

from .conftest import QUICK, READER, WRITER, Fleet, Hub
from .test_terminal import spawn

MODEL = ("--model", "demo/tiny-llama")
AWAY = {"status": 503, "retry_after_s": 3600, "times": None}  # longer than ftq's patience


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows of 66 MiB: short texts to train on, and a long column that nobody reads."""
    path = tmp_path_factory.mktemp("large") / "rows.jsonl"
    note = "x" * 400_000
    with path.open("w") as file:
        for n in range(173):
            row = {"prompt": f"Say {n}.", "completion": f"It is {n}.", "note": note}
            file.write(json.dumps(row) + "\n")
    assert path.stat().st_size > INPUT_JOB_MAX
    return path


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A model folder: with it nothing of a job but its files touches the Hub."""
    save_base(tmp_path / "base", ["Say 1.", "It is 1."] * 20)
    return tmp_path / "base"


@pytest.fixture
def sparse(tmp_path: Path) -> Path:
    """A file that is too large as well, and costs nothing: it is never read."""
    path = tmp_path / "big.jsonl"
    with path.open("wb") as file:
        file.truncate(65 * 2**20)
    return path


def repos(fleet: Fleet) -> list[str]:
    """Return the datasets that the Hub holds for jobs."""
    return [r.id for r in fleet.hub.store.repos("dataset") if "ftq-inputs" in r.id]


def jobs(fleet: Fleet) -> int:
    return len(fleet.client().list_jobs(mine=False, active=False))


def test_model_folder_and_rows_go_through_the_hub_and_are_freed(
    fleet: Fleet, large: Path, base: Path
) -> None:
    done = fleet.submit("--model", str(base), "--dataset", str(large), "--via-hub", "--yes")
    assert done.code == 0, done.stderr
    assert f"uploading dataset/{large.name}, 66" in done.stderr
    assert f"/datasets/me/ftq-inputs-{done.job}" in done.stderr
    fetched = [d for d in done.data("progress") if d["task"] == "download your files"]
    assert fetched[-1]["done"] == fetched[-1]["total"] > INPUT_JOB_MAX
    assert any("deleted the private repo" in d["line"] for d in done.data("log"))
    assert repos(fleet) == []


@pytest.mark.chaos
def test_the_repo_is_private_and_a_deletion_that_fails_is_only_a_warning(
    fleet: Fleet, large: Path
) -> None:
    fleet.hub.app.faults.add(Fault(path="/api/repos/delete", **AWAY))
    done = fleet.submit(*MODEL, "--dataset", str(large), "--via-hub")
    assert done.code == 0, done.stderr
    repo = f"me/ftq-inputs-{done.job}"
    warning = next(d for d in done.data("warning") if repo in d["message"])
    assert f"{fleet.hub.url}/datasets/{repo}/settings" in warning["hint"]
    assert repos(fleet) == [repo]
    assert fleet.hub.store.repo("dataset", repo).private
    client = fleet.client()
    assert not client.redis.exists(keys.inputs(done.job))
    assert client.redis.zscore(keys.INPUT_SIZES, done.job) is None
    fleet.hub.store.delete_repo("dataset", repo)


def test_without_consent_the_routes_are_named(fleet: Fleet, sparse: Path) -> None:
    before = jobs(fleet)
    done = fleet.run("submit", *MODEL, "--dataset", str(sparse))
    assert done.returncode == 2
    assert "65 MiB of files cannot travel through the broker" in done.stderr
    for route in ("FTQ_STORAGE", "worker:", "ftq submit --via-hub", "hf upload"):
        assert route in done.stderr
    assert (jobs(fleet), repos(fleet)) == (before, [])


@pytest.mark.parametrize(
    ("token", "words"), [(READER, "role read"), ("", "none was given"), ("hf_x", "does not know")]
)
def test_a_token_that_cannot_write_is_refused_before_a_job_exists(
    fleet: Fleet, sparse: Path, token: str, words: str
) -> None:
    before = jobs(fleet)
    done = fleet.run(
        *("submit", *MODEL, "--dataset", str(sparse), "--via-hub"), env=fleet.env(HF_TOKEN=token)
    )
    assert done.returncode == 5
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert (jobs(fleet), repos(fleet)) == (before, [])


@pytest.mark.parametrize("where", ["/api/whoami", "/commit/"])
def test_a_hub_that_is_away_leaves_neither_job_nor_repo(
    fleet: Fleet, large: Path, where: str
) -> None:
    before = jobs(fleet)
    fleet.hub.app.faults.add(Fault(path=where, **AWAY))
    done = fleet.run("submit", *MODEL, "--dataset", str(large), "--via-hub")
    assert done.returncode == 7
    assert "no job was made" in done.stderr
    assert (jobs(fleet), repos(fleet)) == (before, [])


@pytest.mark.chaos
def test_the_repo_outlives_a_failed_validate_for_retry(
    fleet: Fleet, large: Path, base: Path
) -> None:
    repo = _failed_in_validate(fleet, large, model=str(base))
    retried = fleet.run("retry", repo.removeprefix("me/ftq-inputs-"), "--json")
    assert retried.returncode == 0, retried.stdout[-2000:]
    assert repos(fleet) == []


@pytest.mark.chaos
def test_a_repo_that_is_gone_is_input_lost(fleet: Fleet, large: Path) -> None:
    repo = _failed_in_validate(fleet, large)
    fleet.hub.store.delete_repo("dataset", repo)
    job = repo.removeprefix("me/ftq-inputs-")
    assert fleet.run("retry", job, "--json").returncode == 1
    error = fleet.client().get(job).error
    assert error is not None
    assert (error.code, error.where["file"]) == ("input_lost", "dataset/rows.jsonl")
    assert repo in error.message
    assert "submit the job again" in error.hint


def _failed_in_validate(fleet: Fleet, large: Path, model: str = MODEL[1]) -> str:
    """Submit while the Hub gives no files out; return the repo, which has stayed."""
    fleet.hub.app.faults.add(Fault(path="/datasets/me/ftq-inputs.*/resolve/", **AWAY))
    done = fleet.submit("--model", model, "--dataset", str(large), "--via-hub")
    assert (done.code, done.error()["code"]) == (7, "hub_unreachable")
    fleet.hub.app.faults.clear()
    repo = f"me/ftq-inputs-{done.job}"
    assert repos(fleet) == [repo]
    return repo


def test_a_second_call_with_the_same_key_leaves_no_repo(fleet: Fleet, large: Path) -> None:
    client = fleet.client()
    spec = JobSpec(model="demo/tiny-llama", dataset=str(large))
    said: list[str] = []
    calls = [
        client.submit(
            spec,
            secrets={"HF_TOKEN": WRITER},
            client_key="once",
            via_hub=True,
            on_progress=said.append,
        )
        for _ in range(2)
    ]
    assert calls[0] == calls[1]
    client.cancel(calls[0])
    assert client.wait(calls[0], timeout_s=60).state in (JobState.CANCELLED, JobState.SUCCEEDED)
    assert set(repos(fleet)) <= {f"me/ftq-inputs-{calls[0]}"}
    assert any("uploading dataset/rows.jsonl" in text for text in said)
    for repo in repos(fleet):  # the job was cancelled before prepare was done
        fleet.hub.store.delete_repo("dataset", repo)


def test_a_full_broker_asks_as_well(fleet: Fleet, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"prompt": "a", "completion": "b"}\n')
    client = fleet.client()
    asked: list[str] = []

    def no(question: str) -> bool:
        asked.append(question)
        return False

    spec = JobSpec(model="demo/tiny-llama", dataset=str(path))
    assert not client.draft(spec).needs_hub
    client.redis.zadd(keys.INPUT_SIZES, {"ft-bbbbbbbb": INPUT_TOTAL_MAX})
    client.redis.hset(keys.inputs("ft-bbbbbbbb"), "chunk", "x")
    try:
        assert client.draft(spec).needs_hub
        with pytest.raises(UsageError, match="other jobs hold 1024 MiB"):
            client.submit(spec, via_hub=no)
    finally:
        client.redis.delete(keys.inputs("ft-bbbbbbbb"))
    assert "other jobs hold 1024 MiB of the broker already" in asked[0]
    assert not client.draft(spec).needs_hub  # what is gone counts no more


def test_the_question_defaults_to_no(fleet: Fleet, sparse: Path) -> None:
    before = jobs(fleet)
    child = spawn(fleet, "submit", *MODEL, "--dataset", str(sparse), HF_TOKEN=READER)
    child.expect("65 MiB of files cannot travel")
    child.expect("private repo.*ftq-inputs-ft-.*of yours on")
    child.expect(r"\[y/N\]")
    child.sendline("")
    child.expect("--via-hub")
    child.wait()
    assert child.exitstatus == 2
    child = spawn(fleet, "submit", *MODEL, "--dataset", str(sparse), HF_TOKEN=READER)
    child.expect(r"\[y/N\]")
    child.sendline("y")
    child.expect("role read")
    child.wait()
    assert child.exitstatus == 5
    assert (jobs(fleet), repos(fleet)) == (before, [])


def test_yes_at_the_question_sends_the_file(fleet: Fleet, large: Path) -> None:
    child = spawn(fleet, "submit", *MODEL, "--dataset", str(large), *QUICK, HF_TOKEN=WRITER)
    child.expect(r"\[y/N\]")
    child.sendline("y")
    child.expect("submitted ft-")
    child.expect("succeeded", timeout=100)
    child.wait()
    assert child.exitstatus == 0
    assert repos(fleet) == []


# The child's part by itself.


def listed(hub: Hub, tmp_path: Path, **changes: Any) -> Any:
    """Return a prepare context whose one file lies in `me/ftq-inputs-<its job>`."""
    ctx = make_context(
        tmp_path / "storage",
        JobSpec(model="a/b", dataset="./a.txt"),
        secrets={"HF_TOKEN": WRITER},
        endpoint=hub.url,
    )
    repo = changes.pop("repo", f"me/ftq-inputs-{ctx.job}")
    folder = tmp_path / "files" / "dataset"
    folder.mkdir(parents=True)
    (folder / "a.txt").write_text("hello")
    if not hub.store.has_repo("dataset", repo):
        hub.store.create_repo("dataset", repo, private=True)
    commit = hub.store.commit_folder("dataset", repo, folder.parent)
    hello = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
    entry = vars(InputFile("dataset/a.txt", 5, hello, hub=f"{repo}@{commit.sha}")) | changes
    ctx.paths.root.mkdir(parents=True)
    ctx.paths.hub_inputs.write_text(json.dumps([entry]))
    return ctx


def test_a_file_is_placed_once_and_the_repo_deleted_after_prepare(
    local_hub: Hub, tmp_path: Path
) -> None:
    ctx = listed(local_hub, tmp_path)
    hub_inputs.fetch(ctx)
    assert (ctx.paths.inputs / "dataset/a.txt").read_text() == "hello"
    assert sorted(p.name for p in ctx.paths.root.iterdir()) == ["hub_inputs.json", "inputs"]
    emit = ctx.emit
    assert isinstance(emit, Recorder)
    assert emit.events[-1][1]["done"] == 5
    hub_inputs.free(ctx)
    hub_inputs.fetch(ctx)  # again after a crash: the repo is gone, and nobody needs it
    hub_inputs.free(ctx)
    assert not local_hub.store.has_repo("dataset", f"me/ftq-inputs-{ctx.job}")
    assert [type_ for type_, _ in emit.events].count(EventType.WARNING) == 0


def test_only_prepare_frees(local_hub: Hub, tmp_path: Path) -> None:
    ctx = listed(local_hub, tmp_path)
    for phase in set(Phase) - {Phase.PREPARE}:
        hub_inputs.free(replace(ctx, phase=phase))
    assert local_hub.store.has_repo("dataset", f"me/ftq-inputs-{ctx.job}")
    local_hub.store.delete_repo("dataset", f"me/ftq-inputs-{ctx.job}")


def test_a_stale_claim_deletes_nothing(local_hub: Hub, tmp_path: Path) -> None:
    class Lost(SoleOwner):
        def check_lease(self) -> None:
            raise Stale("somebody else has the job")

    ctx = listed(local_hub, tmp_path)
    with pytest.raises(Stale):
        hub_inputs.free(replace(ctx, owner=Lost()))
    assert local_hub.store.has_repo("dataset", f"me/ftq-inputs-{ctx.job}")
    local_hub.store.delete_repo("dataset", f"me/ftq-inputs-{ctx.job}")


@pytest.mark.parametrize("changes", [{"sha256": "0" * 64}, {"size": 6}, {"path": "dataset/b.txt"}])
def test_a_file_that_is_not_what_was_sent_is_input_lost(
    local_hub: Hub, tmp_path: Path, changes: dict[str, Any]
) -> None:
    ctx = listed(local_hub, tmp_path, **changes)
    with pytest.raises(FtqError) as caught:
        hub_inputs.fetch(ctx)
    assert caught.value.code == "input_lost"
    assert not ctx.paths.inputs.exists()
    local_hub.store.delete_repo("dataset", f"me/ftq-inputs-{ctx.job}")


def test_another_repo_is_neither_read_nor_deleted(local_hub: Hub, tmp_path: Path) -> None:
    ctx = listed(local_hub, tmp_path, repo="me/precious")
    with pytest.raises(FtqError, match="not the repo of this job"):
        hub_inputs.fetch(ctx)
    with pytest.raises(FtqError, match="not the repo of this job"):
        hub_inputs.free(ctx)
    assert not ctx.paths.inputs.exists()
    assert local_hub.store.has_repo("dataset", "me/precious")
    local_hub.store.delete_repo("dataset", "me/precious")


def test_an_expired_token_loses_no_file(local_hub: Hub, tmp_path: Path) -> None:
    """Over https: there huggingface_hub takes any 401 for a repo that is not there."""
    ctx = listed(local_hub, tmp_path)
    local_hub.store.add_token("hf_expired", "me", expires=1.0)
    with pytest.raises(FtqError) as caught:
        hub_inputs.fetch(replace(ctx, secrets={"HF_TOKEN": "hf_expired"}))
    assert caught.value.code == "bad_token"
    assert "is expired" in caught.value.message
    local_hub.store.delete_repo("dataset", f"me/ftq-inputs-{ctx.job}")


def test_without_a_token_it_says_how_to_go_on(local_hub: Hub, tmp_path: Path) -> None:
    ctx = listed(local_hub, tmp_path)
    with pytest.raises(FtqError) as caught:
        hub_inputs.fetch(replace(ctx, secrets={}))
    assert caught.value.code == "no_token"
    assert f"ftq retry {ctx.job}" in caught.value.hint
    local_hub.store.delete_repo("dataset", f"me/ftq-inputs-{ctx.job}")
