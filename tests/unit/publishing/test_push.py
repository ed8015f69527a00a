"""The push against the local Hub: one commit, read back, whatever happens meanwhile."""

import json
from dataclasses import dataclass, field, replace
from urllib.parse import urlsplit

import pytest
from huggingface_hub import HfApi
from tests.chaos.proxy import Proxy
from tests.support.tiny_jobs import TinyJob
from tests.unit.publishing.conftest import READER
from tests.unit.publishing.jobs import names, own_commits, publishing_again, told

from ftq_hub import Fault
from ftq_shared.errors import FtqError, HubUnreachable, JobCancelled, Refused, Stale
from ftq_shared.events import EventType
from ftq_worker.job.context import Busy, StopReason
from ftq_worker.job.reports import Published, Trained
from ftq_worker.phases import publish


def publish_to(job: TinyJob, repo: str):
    target = job.ctx.spec.publish.model_copy(update={"repo": repo})
    return job.ctx.spec.model_copy(update={"publish": target})


@dataclass
class OneOwner:
    """An owner that answers what a test wants."""

    confirmed: bool = True
    locks: list[str | Exception] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    def check_lease(self) -> None:
        if not self.confirmed:
            raise Stale("somebody else owns this job now")

    def try_lock(self, what: str) -> str:
        self.asked.append(what)
        answer = self.locks.pop(0) if self.locks else ""
        if isinstance(answer, Exception):
            raise answer
        return answer


def owned(job: TinyJob, owner: OneOwner) -> TinyJob:
    return replace(job, ctx=replace(job.ctx, owner=owner))


class CuttingProxy(Proxy):
    """Breaks off the first connection that sends the bytes of `mark`, in the middle of it."""

    def __init__(self, target: tuple[str, int], mark: bytes) -> None:
        self._mark, self.cuts = mark, 0
        super().__init__(target)

    def _chunks(self, client, server):
        for source, data in super()._chunks(client, server):
            if source is client and self._mark in data and not self.cuts:
                self.cuts += 1
                yield source, data[: data.index(self._mark) + 300]
                return
            yield source, data


class TestPush:
    def test_adapter(self, publishing, hub):
        job = publishing(repo="me/adapter")
        publish.run(job.ctx)
        assert told(job)["pushed_files"]
        assert names(hub, "me/adapter") == {
            "README.md",
            "adapter_config.json",
            "adapter_model.safetensors",
            "generation_config.json",
            "tokenizer.json",
            "tokenizer_config.json",
        }
        (event,) = job.events.of(EventType.PUBLISHED)
        assert event["url"] == f"{hub.url}/me/adapter"
        assert event["private"] is True
        report = Published.load(job.ctx.paths.published)
        assert set(json.loads(job.ctx.paths.published.read_text())) == {"repo", "revision", "url"}
        commits = hub.api.list_repo_commits("me/adapter")
        assert report.revision == commits[0].commit_id
        assert commits[0].title.startswith(f"ftq {job.ctx.job}:")
        done = [p for p in job.events.of(EventType.PROGRESS) if p["task"].startswith("upload")]
        assert done[-1]["done"] == done[-1]["total"]

    def test_merged_replaces_the_adapter_of_an_earlier_push(self, publishing, hub, tmp_path):
        publish.run(publishing(repo="me/both").ctx)
        note = tmp_path / "note.md"
        note.write_text("mine")
        before = names(hub, "me/both")
        job = publishing_again(publishing, tmp_path, repo="me/both", format="merged")
        publish.run(job.ctx)
        after = names(hub, "me/both")
        assert {"adapter_config.json", "adapter_model.safetensors"} <= before
        assert not any(name.startswith("adapter") for name in after)
        assert "model.safetensors" in after

    @pytest.mark.parametrize(
        ("task", "method", "form"),
        [
            ("sft", "lora", "adapter"),
            ("sft", "lora", "merged"),
            ("sft", "full", "auto"),
            ("classification", "lora", "merged"),
        ],
    )
    def test_another_attempt_stages_the_same_bytes_and_finds_the_commit(
        self, publishing, hub, task, method, form
    ):
        repo = f"me/twice-{task[:3]}-{method}-{form}"
        job = publishing(task, method, repo=repo, format=form)
        publish.run(job.ctx)
        again = job.again(claim_name="3-another")
        publish.run(again.ctx)
        assert len(own_commits(hub, repo, job)) == 1
        assert again.events.of(EventType.PUBLISHED) == job.events.of(EventType.PUBLISHED)
        assert "has pushed" in again.events.of(EventType.LOG)[-1]["line"]
        assert not again.events.of(EventType.WARNING)

    def test_its_commit_is_found_below_somebody_elses_which_stays(self, publishing, hub):
        job = publishing(repo="me/below")
        publish.run(job.ctx)
        hub.api.upload_file(
            path_or_fileobj=b"theirs",
            path_in_repo="theirs.txt",
            repo_id="me/below",
            commit_message="ftq ft-other222: another job",
        )
        again = job.again()
        publish.run(again.ctx)
        assert again.events.of(EventType.PUBLISHED) == job.events.of(EventType.PUBLISHED)
        assert len(own_commits(hub, "me/below", job)) == 1
        assert hub.api.list_repo_commits("me/below")[0].title.startswith("ftq ft-other222")
        (said,) = again.events.of(EventType.WARNING)
        assert "later commits than this job's; they stay" in said["message"]

    def test_another_model_of_the_same_job_is_pushed_on_top(self, publishing, hub):
        """Trained anew after `ftq retry --from train`: the earlier commit is not this model."""
        job = publishing(repo="me/anew")
        publish.run(job.ctx)
        report = Trained.load(job.ctx.paths.train_report)
        report.model_copy(update={"steps": 7}).save(job.ctx.paths.train_report)
        publish.run(job.again().ctx)
        assert len(own_commits(hub, "me/anew", job)) == 2

    def test_a_stale_owner_commits_nothing(self, publishing, hub):
        job = owned(publishing(repo="me/stale"), OneOwner(confirmed=False))
        with pytest.raises(Stale):
            publish.run(job.ctx)
        assert not hub.api.repo_exists("me/stale")
        assert not job.ctx.paths.published.exists()
        assert not job.events.of(EventType.PUBLISHED)

    def test_a_stale_owner_gets_no_lock(self, publishing, hub):
        job = owned(publishing(repo="me/unlocked"), OneOwner(locks=[Stale("gone")]))
        with pytest.raises(Stale):
            publish.run(job.ctx)
        assert not hub.api.repo_exists("me/unlocked")

    def test_it_gives_way_to_the_job_that_has_the_repo_before_it_works(self, publishing, hub):
        owner = OneOwner(locks=["ft-first222"])
        job = owned(publishing(repo="me/locked"), owner)
        with pytest.raises(Busy) as caught:
            publish.run(job.ctx)
        assert caught.value.message == "ft-first222 publishes to me/locked"
        assert caught.value.lock == f"{hub.url}/me/locked"
        assert not job.ctx.paths.release.exists()
        publish.run(job.again(owner=owner).ctx)
        assert len(own_commits(hub, "me/locked", job)) == 1

    def test_a_repo_is_one_in_whatever_case_it_is_named(self, publishing, hub):
        owner = OneOwner()
        job = owned(publishing(repo="ME/Cased"), owner)
        publish.run(job.ctx)
        assert owner.asked == [f"{hub.url}/me/cased"]
        assert job.events.of(EventType.PUBLISHED)[0]["repo"] == "me/Cased"
        again = owned(job.again(spec=publish_to(job, "Me/CASED")), owner)
        publish.run(again.ctx)
        assert owner.asked == [f"{hub.url}/me/cased"] * 2
        assert again.events.of(EventType.PUBLISHED)[-1]["repo"] == "me/Cased"

    def test_a_gitignore_that_drops_the_model_is_named(self, publishing, hub):
        hub.app.store.create_repo("model", "me/ignores", private=True)
        hub.api.upload_file(
            path_or_fileobj=b"*.safetensors\n",
            path_in_repo=".gitignore",
            repo_id="me/ignores",
            commit_message="mine",
        )
        job = publishing(repo="me/ignores", overwrite=True)
        with pytest.raises(Refused) as caught:
            publish.run(job.ctx)
        assert caught.value.code == "files_ignored"
        assert "me/ignores/edit/main/.gitignore" in caught.value.hint
        assert own_commits(hub, "me/ignores", job) == []

    def test_a_repo_that_is_not_everywhere_yet_is_waited_for(self, publishing, hub, quick):
        slow = Fault(path="me/slow-copies/preupload", status=404, error_code="RepoNotFound")
        late = Fault(
            path="me/slow-copies/tree/[0-9a-f]{40}", status=404, error_code="RevisionNotFound"
        )
        for fault in (slow, late):
            hub.app.faults.add(replace(fault, times=2))
        job = publishing(repo="me/slow-copies")
        publish.run(job.ctx)
        assert [fault.hits for fault in hub.app.faults.list()] == [2, 2]
        assert len(own_commits(hub, "me/slow-copies", job)) == 1

    def test_a_connection_lost_in_the_upload_goes_on(self, publishing, hub, quick):
        target = urlsplit(hub.url)
        proxy = CuttingProxy((target.hostname, target.port), b"/v1/xorbs/")
        job = publishing(repo="me/cut")
        job = replace(job, ctx=replace(job.ctx, endpoint=f"http://127.0.0.1:{proxy.port}"))
        publish.run(job.ctx)
        proxy.close()
        assert proxy.cuts == 1
        assert len(own_commits(hub, "me/cut", job)) == 1
        assert told(job)["pushed_files"]

    @pytest.mark.parametrize(
        ("text", "code", "exit_code"),
        [
            (
                "Network error: HTTP status client error (401 Unauthorized), domain: x",
                "bad_token",
                5,
            ),
            ("Network error: HTTP status client error (403 Forbidden), domain: x", "access", 5),
            ("Server error: HTTP status server error (503 Service Unavailable), domain: x", "", 7),
            ("Network error: connection reset by peer", "", 7),
        ],
    )
    def test_what_the_transfer_library_raises_is_translated(
        self, publishing, monkeypatch, text, code, exit_code
    ):
        def preupload(*_, **__):
            raise ConnectionError(f"Network error: {text}")

        monkeypatch.setattr(HfApi, "preupload_lfs_files", preupload)
        with pytest.raises(FtqError) as caught:
            publish.run(publishing(repo="me/transfer").ctx)
        assert caught.value.exit_code == exit_code
        assert caught.value.code == (code or "hub_unreachable")
        assert caught.value.hint

    def test_lost_answer_of_the_commit_makes_one_commit(self, publishing, hub, quick):
        hub.app.faults.add(Fault(path="/commit/", method="POST", cut_after_bytes=0, times=1))
        job = publishing(repo="me/lost")
        publish.run(job.ctx)
        titles = [c.title for c in hub.api.list_repo_commits("me/lost")]
        assert sum(title.startswith("ftq ") for title in titles) == 1
        assert job.events.of(EventType.PUBLISHED)

    def test_hub_in_trouble_is_retried_and_shown(self, publishing, hub, quick):
        hub.app.faults.add(Fault(path="/commit/", status=503, times=2))
        job = publishing(repo="me/trouble")
        publish.run(job.ctx)
        assert len(job.events.of(EventType.WARNING)) == 2
        assert job.events.of(EventType.PUBLISHED)

    def test_hub_down_ends_with_exit_7(self, publishing, hub, quick):
        hub.app.faults.add(Fault(path="/commit/", status=503, times=None))
        job = publishing(repo="me/down")
        with pytest.raises(HubUnreachable) as caught:
            publish.run(job.ctx)
        assert caught.value.exit_code == 7
        assert not job.ctx.paths.published.exists()

    def test_foreign_content_is_refused(self, publishing, hub):
        hub.api.create_repo("me/foreign", exist_ok=True)
        hub.api.upload_file(
            path_or_fileobj=b"precious", path_in_repo="model.bin", repo_id="me/foreign"
        )
        job = publishing(repo="me/foreign")
        with pytest.raises(Refused) as caught:
            publish.run(job.ctx)
        assert caught.value.code == "target_taken"
        assert "model.bin" in names(hub, "me/foreign")

    def test_foreign_content_goes_with_overwrite(self, publishing, hub):
        hub.api.create_repo("me/over", exist_ok=True)
        for name in ("model.bin", "notes.txt"):
            hub.api.upload_file(path_or_fileobj=b"old", path_in_repo=name, repo_id="me/over")
        job = publishing(repo="me/over", overwrite=True)
        publish.run(job.ctx)
        assert "model.bin" not in names(hub, "me/over")
        assert "notes.txt" in names(hub, "me/over")  # no part of a model: it stays

    def test_token_that_may_not_write(self, publishing):
        job = publishing(repo="me/nope")
        job = replace(job, ctx=replace(job.ctx, secrets={"HF_TOKEN": READER}))
        with pytest.raises(Refused) as caught:
            publish.run(job.ctx)
        assert caught.value.exit_code == 5

    def test_no_token(self, publishing, monkeypatch):
        monkeypatch.setenv("HF_TOKEN", "hf_of_the_host")  # must never be used
        job = publishing(repo="me/none")
        job = replace(job, ctx=replace(job.ctx, secrets={}))
        with pytest.raises(Refused) as caught:
            publish.run(job.ctx)
        assert caught.value.code == "no_token"

    def test_commit_in_between_is_kept(self, publishing, hub, monkeypatch):
        job = publishing(repo="me/race", overwrite=True)
        original, raced = HfApi.create_commit, []

        def create_commit(api, *args, **kwargs):
            """Let somebody else commit in the moment between looking and committing."""
            if kwargs["commit_message"].startswith("ftq ") and not raced:
                raced.append(True)
                hub.api.upload_file(
                    path_or_fileobj=b"hello", path_in_repo="hello.txt", repo_id="me/race"
                )
            return original(api, *args, **kwargs)

        monkeypatch.setattr(HfApi, "create_commit", create_commit)
        publish.run(job.ctx)
        assert "hello.txt" in names(hub, "me/race")
        assert any("another commit" in w["message"] for w in job.events.of(EventType.WARNING))

    def test_changed_file_on_the_hub_is_noticed(self, publishing, hub, monkeypatch):
        job = publishing(repo="me/changed")
        original = publish.push

        def push(*args):
            pushed = original(*args)
            commit = hub.api.upload_file(
                path_or_fileobj=b"{}", path_in_repo="tokenizer.json", repo_id="me/changed"
            )
            return replace(pushed, revision=commit.oid)

        monkeypatch.setattr(publish, "push", push)
        with pytest.raises(FtqError) as caught:
            publish.run(job.ctx)
        assert "tokenizer.json differs" in caught.value.message
        assert told(job)["pushed_files"] is False

    def test_cancel_before_the_commit(self, publishing, hub):
        job = publishing(repo="me/cancelled")

        def cancel(type_, data):
            if type_ is EventType.PROGRESS and data["task"].startswith("upload"):
                job.ctx.control.stop(StopReason.CANCEL)

        job.events.hook = cancel
        with pytest.raises(JobCancelled):
            publish.run(job.ctx)
        titles = [c.title for c in hub.api.list_repo_commits("me/cancelled")]
        assert not any(title.startswith("ftq ") for title in titles)
