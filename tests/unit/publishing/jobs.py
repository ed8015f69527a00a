"""What tests of the publish phase ask of a job and of its repo."""

from tests.support.tiny_jobs import TinyJob

from ftq_shared.events import EventType


def names(hub, repo: str) -> set[str]:
    return set(hub.api.list_repo_files(repo)) - {".gitattributes"}


def own_commits(hub, repo: str, job: TinyJob) -> list[str]:
    """Return the commits that a job has made."""
    found = hub.api.list_repo_commits(repo)
    return [c.commit_id for c in found if c.title.startswith(f"ftq {job.ctx.job}:")]


def told(job: TinyJob) -> dict[str, bool]:
    return {v["name"]: v["ok"] for v in job.events.of(EventType.VERIFICATION)}


def publishing_again(publishing, tmp_path, **options) -> TinyJob:
    """Return a second copy of the trained job: another job to the same repo."""
    (tmp_path / "storage").rename(tmp_path / "storage-before")
    return publishing(**options)
