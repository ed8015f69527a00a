"""Publishing while things go wrong: the process dies, the Hub stumbles, others are there too.

Through the real command, worker and Hub client. Each test says what must hold at the end: one
commit of the job, one `published` event, nothing of anybody else's lost.
"""

import json
import os
import signal
from typing import Any

import pytest

from ftq_hub import Fault

from .conftest import QUICK, WRITER, Fleet, wait_for

BASE = ("--model", "demo/tiny-llama", "--dataset", "demo/colours")
REVOKED = "hf_revokedRevokedRevokedRev"


def commits(fleet: Fleet, repo: str) -> list[tuple[str, str]]:
    """Return (job, revision) of ftq's commits in a repo, newest first; empty when it is absent."""
    if not fleet.hub.store.has_repo("model", repo):
        return []
    history = fleet.hub.store.files("model", repo).history("main")
    return [(c.title.split()[1].rstrip(":"), c.sha) for c in history if c.title.startswith("ftq ")]


def events(fleet: Fleet, job: str, *types: str) -> list[Any]:
    """Return the events of a job so far, of some types."""
    return [e for e in fleet.client().tail(job, follow=False) if not types or e.type in types]


def seen(fleet: Fleet, job: str) -> str:
    return "\n".join(f"{e.type} {e.data}" for e in events(fleet, job)[-8:])


def publishing_pid(fleet: Fleet, job: str) -> int:
    """Return the process that publishes."""
    starts = [e for e in events(fleet, job, "phase_started") if e.phase == "publish"]
    return int(starts[-1].data["pid"])


def test_killed_between_the_commit_and_its_record(fleet: Fleet) -> None:
    repo = "me/killed"
    # The files are read back after the commit: that takes its time here, so that we are in time.
    fleet.hub.app.faults.add(Fault(path=f"{repo}/tree/", stall_s=4.0, times=None))
    job = fleet.detach(*BASE, *QUICK, "--publish-to", repo)
    wait_for(lambda: commits(fleet, repo), timeout_s=100, what=lambda: seen(fleet, job))
    os.kill(publishing_pid(fleet, job), signal.SIGKILL)
    fleet.hub.app.faults.clear()
    assert fleet.run("wait", job, "--timeout", "100").returncode == 0
    assert [owner for owner, _ in commits(fleet, repo)] == [job]
    (published,) = events(fleet, job, "published")
    assert published.data["revision"] == commits(fleet, repo)[0][1]
    assert published.attempt == 2
    assert any("has pushed to me/killed already" in str(e.data) for e in events(fleet, job, "log"))
    deaths = [e for e in events(fleet, job, "warning") if e.data.get("code") == "killed"]
    assert len(deaths) == 1
    assert {e.attempt for e in events(fleet, job, "step")} == {1}


@pytest.mark.chaos
def test_a_stumbling_hub_is_got_over(fleet: Fleet) -> None:
    repo = "me/stumbling"
    bad = [
        Fault(path="/preupload/", status=429, retry_after_s=1),
        Fault(path="/xet-write-token/", status=503),
        Fault(path="/v1/xorbs/", method="POST", cut_after_bytes=0),  # stored, and the answer lost
        Fault(path="/v1/shards", status=500),
        Fault(path="/commit/", status=503),
        Fault(path="/commit/", cut_after_bytes=0),  # done, and the answer lost
        Fault(path=f"{repo}/tree/", status=503),
    ]
    for fault in bad:
        fleet.hub.app.faults.add(fault)
    done = fleet.submit(*BASE, "--publish-to", repo)
    assert done.code == 0, (done.stderr, done.events[-5:])
    assert [fault.hits for fault in fleet.hub.app.faults.list()] == [1] * len(bad)
    assert [owner for owner, _ in commits(fleet, repo)] == [done.job]
    (published,) = done.data("published")
    assert published["revision"] == commits(fleet, repo)[0][1]
    said = " ".join(d["message"] for d in done.data("warning"))
    assert "asks to slow down (429)" in said
    assert "is in trouble (503); committing to me/stumbling" in said


@pytest.mark.chaos
def test_two_jobs_to_one_repo_follow_each_other(fleet: Fleet) -> None:
    repo = "me/shared"
    # Whoever comes first holds the repo until we let its commit through.
    fleet.hub.app.faults.add(Fault(path=f"{repo}/commit/", status=503, times=None))
    jobs = [
        fleet.detach(*BASE, *QUICK, "--publish-to", repo, "--set", f"train.seed={seed}")
        for seed in (1, 2)
    ]
    waits = wait_for(
        lambda: [
            (job, e.data["reason"])
            for job in jobs
            for e in events(fleet, job, "waiting")
            if "publishes to" in e.data["reason"]
        ],
        timeout_s=100,
        what=lambda: [seen(fleet, job) for job in jobs],
    )
    fleet.hub.app.faults.clear()
    ((second, reason),) = waits
    (first,) = (job for job in jobs if job != second)
    assert reason == f"{first} publishes to {repo}"
    assert fleet.run("wait", *jobs, "--timeout", "100").returncode == 0
    assert [owner for owner, _ in commits(fleet, repo)] == [second, first]
    revisions = {
        job: event.data["revision"] for job in jobs for event in events(fleet, job, "published")
    }
    assert [(job, revisions[job]) for job in (second, first)] == commits(fleet, repo)
    history = list(fleet.hub.store.files("model", repo).history("main"))
    assert history[0].parent == revisions[first]  # on top of it, not beside it


@pytest.mark.chaos
def test_a_token_that_was_revoked_needs_no_second_training(fleet: Fleet) -> None:
    repo = "me/revoked"
    fleet.hub.store.add_token(REVOKED, "me", role="write")
    env = fleet.env(HF_TOKEN=REVOKED)
    steps = ("--set", "train.max_steps=60", "--set", "train.method=full")
    sent = fleet.run("submit", *BASE, *steps, "--publish-to", repo, "--detach", "--json", env=env)
    job = str(json.loads(sent.stdout)["job"])
    client = fleet.client()
    wait_for(lambda: client.get(job).summary.get("step"), what=lambda: seen(fleet, job))
    fleet.hub.store.remove_token(REVOKED)

    assert fleet.run("wait", job, "--timeout", "100").returncode == 5
    (error,) = events(fleet, job, "error")
    assert (error.phase, error.data["code"]) == ("publish", "bad_token")
    assert "`--token-stdin` of `ftq submit` and `ftq retry`" in error.data["hint"]
    assert REVOKED not in json.dumps([e.data for e in events(fleet, job)])
    assert commits(fleet, repo) == []

    retried = fleet.run("retry", job, "--token-stdin", "--json", stdin=WRITER + "\n")
    assert retried.returncode == 0, (retried.stderr, retried.stdout[-2000:])
    assert [owner for owner, _ in commits(fleet, repo)] == [job]
    trained = events(fleet, job, "step")
    assert [e.data["step"] for e in trained] == list(range(1, 61))
    later = [e.phase for e in events(fleet, job, "phase_started") if e.seq > error.seq]
    assert later == ["publish"]
