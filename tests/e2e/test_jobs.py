"""Jobs from `ftq submit` to their end, through real processes and a real Hub client."""

import gzip
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ftq_shared.states import Phase
from tests.support.pages import why_wrong

from .conftest import QUICK, Fleet, wait_for

BASE = ("--model", "demo/tiny-llama", "--dataset", "demo/colours")


@pytest.fixture
def own_rows(tmp_path: Path) -> Path:
    """A client's own file with a broken line."""
    rows = [{"prompt": f"Say {n}.", "completion": f"It is {n}."} for n in range(150)]
    lines = [json.dumps(row) for row in rows]
    lines[41] = '{"prompt": "cut off'
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(lines) + "\n")
    return path


def test_all_phases_to_a_verified_model_on_the_hub(fleet: Fleet) -> None:
    given = (*BASE, *QUICK, "--gpus", "auto", "--publish-to", "me/colours-sft")
    done = fleet.submit(*given, quick=False)
    assert done.code == 0, done.stderr
    assert [e["seq"] for e in done.events] == list(range(1, len(done.events) + 1))
    assert [e["data"]["step"] for e in done.events if e["type"] == "step"] == list(range(1, 21))
    phases = [e["phase"] for e in done.events if e["type"] == "phase_finished"]
    assert phases == [str(phase) for phase in Phase]
    golden = {d["when"]: d["loss"] for d in done.data("eval") if d["set"] == "golden"}
    assert golden["after"] < golden["before"] - 1
    assert all(check["ok"] for check in done.data("check") + done.data("verification"))
    published = done.data("published")[0]
    assert published["url"] == f"{fleet.hub.url}/me/colours-sft"
    files = fleet.hub.store.files("model", "me/colours-sft").commit("main")
    assert files.sha == published["revision"]


def test_own_file_through_the_broker_and_the_model_back(
    fleet: Fleet, own_rows: Path, tmp_path: Path
) -> None:
    done = fleet.submit("--model", "demo/tiny-llama", "--dataset", str(own_rows))
    assert done.code == 0, done.stderr
    assert "data: rows.jsonl, 150 rows, columns prompt, completion\n" in done.stderr
    unreadable = next(d for d in done.data("cleaning") if d["rule"] == "unreadable")
    assert unreadable["rows_in"] - unreadable["rows_out"] == 1
    assert "rows.jsonl" in str(unreadable["examples"])
    assert "42" in str(unreadable["examples"])
    fetched = fleet.run("fetch", done.job, str(tmp_path / "model"))
    assert fetched.returncode == 0, fetched.stderr
    brought = {p.name for p in (tmp_path / "model").iterdir()}
    assert {"README.md", "config.json", "tokenizer.json", "report.html", "train.json"} <= brought


def test_what_a_file_holds_is_said_before_it_leaves(fleet: Fleet, own_rows: Path) -> None:
    given = ("--model", "demo/tiny-llama", "--dataset", str(own_rows))
    done = fleet.run("submit", *given, "--detach", "--json")
    assert done.returncode == 0, done.stderr
    sent = json.loads(done.stdout)
    assert sent["data"]["columns"] == {"prompt": 99, "completion": 99}
    assert (sent["data"]["rows"], sent["data"]["looked_at"]) == (150, 99)
    assert (sent["data"]["unused"], sent["data"]["refusal"]) == ([], None)
    assert "every column is used" in done.stderr
    (look,) = re.findall(r"^the rows as the model .*: ftq (.*)$", done.stderr, re.MULTILINE)
    assert not why_wrong(shlex.split(look))
    fleet.run("cancel", sent["job"])


def test_a_folder_is_read_whole_and_what_is_not_read_is_named(
    fleet: Fleet, own_rows: Path, tmp_path: Path
) -> None:
    lines = own_rows.read_bytes().splitlines(keepends=True)
    folder = tmp_path / "rows"
    folder.mkdir()
    (folder / "part-0.JSONL").write_bytes(b"".join(lines[:50]))
    (folder / "part-1.jsonl.gz").write_bytes(gzip.compress(b"".join(lines[50:100])))
    (folder / "part-2.ndjson").write_text(b"".join(lines[100:]).decode(), encoding="utf-16")
    for name in ("notes.docx", "README.md", "._part-0.jsonl"):
        (folder / name).write_text("no rows")
    given = ("--model", "demo/tiny-llama", "--dataset", str(folder))
    asked = fleet.submit(*given)
    assert "not read: notes.docx (files of kind .docx are not read)" in asked.stderr
    assert (asked.code, asked.error()["code"]) == (5, "unread_files")
    done = fleet.submit(*given, "--set", "data.allow=unread_files")
    assert done.code == 0, done.stderr
    (told,) = (d["message"] for d in done.data("warning") if "not used" in d["message"])
    assert "1 file of" in told
    assert "notes.docx (files of kind .docx are not read)" in told
    counts = {d["rule"]: d for d in done.data("cleaning")}
    assert max(d["rows_in"] for d in counts.values()) == 150
    assert counts["unreadable"]["rows_in"] - counts["unreadable"]["rows_out"] == 1


def test_cancel_a_running_job(fleet: Fleet) -> None:
    job = fleet.detach(
        *BASE, "--set", "train.max_steps=100000", "--gpus", "0", "--set", "train.method=full"
    )
    client = fleet.client()
    wait_for(lambda: client.get(job).summary.get("step"), what=lambda: client.get(job))
    assert fleet.run("cancel", job).returncode == 0
    assert fleet.run("cancel", job).returncode == 0
    assert fleet.run("wait", job, "--timeout", "60").returncode == 4
    assert fleet.run("tail", job).returncode == 4


def test_hub_down_keeps_the_job_for_retry(fleet: Fleet) -> None:
    from ftq_hub import Fault

    # A wait that is longer than ftq's patience ends the job at once instead of after a minute.
    fleet.hub.app.faults.add(Fault(path="/api/.*", status=503, retry_after_s=3600, times=None))
    done = fleet.submit(*BASE)
    assert done.code == 7
    assert done.error()["code"] == "hub_unreachable"
    fleet.hub.app.faults.clear()
    retried = fleet.run("retry", done.job, "--json")
    assert retried.returncode == 0, retried.stdout[-2000:]


@pytest.fixture(scope="module")
def second(fleet: Fleet) -> Iterator[None]:
    """A second worker for two tests, of which the later sends it away."""
    process = fleet.start_worker("second")
    yield
    fleet.stop_worker(process)


def test_two_hosts_share_the_jobs_and_keep_their_files(fleet: Fleet, second: None) -> None:
    jobs = [fleet.detach(*BASE, *QUICK) for _ in range(5)]
    assert fleet.run("wait", *jobs, "--timeout", "100").returncode == 0
    hosts = {job: _hosts(fleet, job) for job in jobs}
    assert all(len(names) == 1 for names in hosts.values()), hosts
    assert {name for names in hosts.values() for name in names} == {"first", "second"}


def test_a_drain_says_whose_files_are_only_there(fleet: Fleet, second: None) -> None:
    client = fleet.client()
    long = ("--set", "train.max_steps=100000", "--gpus", "0", "--set", "train.method=full")
    jobs = [fleet.detach(*BASE, *long) for _ in range(3)]
    try:

        def at_work() -> list[str]:
            """Return the jobs that train there: before, one may have left nothing there."""
            found = map(client.get, jobs)
            return [it.id for it in found if (it.host, it.phase) == ("second", Phase.TRAIN)]

        there = wait_for(at_work, timeout_s=60)
        drained = fleet.run("drain", "second", "--wait", "--timeout", "60")
        assert drained.returncode == 0, drained.stderr
        assert "with files only there" in drained.stderr
        assert all(job in drained.stderr for job in there)
        assert "second has left" in drained.stderr
    finally:
        for job in jobs:
            fleet.run("cancel", job)
    assert [row["name"] for row in _json(fleet, "workers", "--json")] == ["first"]
    assert fleet.run("drain", "no\x1b[31mbody").stderr.count("\x1b") == 0


def _hosts(fleet: Fleet, job: str) -> set[str]:
    events = fleet.client().tail(job)
    return {event.host for event in events if event.type == "phase_started"}


def _json(fleet: Fleet, *args: str) -> list[dict[str, object]]:
    done = fleet.run(*args)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_list_show_and_prefix(fleet: Fleet) -> None:
    job = fleet.detach(*BASE, *QUICK, "--name", "named")
    fleet.run("wait", job)
    shown = _json(fleet, "show", job[:9], "--json")[0]
    assert (shown["id"], shown["name"], shown["state"]) == (job, "named", "succeeded")
    assert job in [row["id"] for row in _json(fleet, "list", "-a", "--json")]
    assert job not in fleet.run("list").stdout
    assert fleet.run("show", "ft-nosuchjob").returncode == 3


def test_three_tails_through_killed_connections(fleet: Fleet) -> None:
    job = fleet.detach(*BASE, *QUICK, "--set", "train.max_steps=60")
    command = [sys.executable, "-m", "ftq_client", "tail", job, "--json"]
    tails = [
        subprocess.Popen(command, env=fleet.env(), stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    client = fleet.client()
    killed = 0
    while not client.get(job).state.terminal:
        killed += client.redis.client_kill_filter(_type="pubsub", skipme=True)
        try:
            client.wait(job, timeout_s=0.2)
        except TimeoutError:
            continue
    late = fleet.run("tail", job, "--json")
    outputs = [tail.communicate(timeout=60)[0] for tail in tails] + [late.stdout]
    total = client.get(job).seq
    assert killed > 2
    for output in outputs:
        assert [json.loads(line)["seq"] for line in output.splitlines()] == list(
            range(1, total + 1)
        )
    assert [tail.returncode for tail in tails] == [0, 0]


def test_an_ended_job_looks_ended(fleet: Fleet, tmp_path: Path) -> None:
    job = fleet.detach(*BASE, *QUICK)
    assert fleet.run("wait", job, "--timeout", "100").returncode == 0
    row = next(row for row in _json(fleet, "list", "--ended", "--json") if row["id"] == job)
    assert row["host"] == "first"
    table = fleet.run("list", "--ended", "--limit", "1").stdout
    assert "ETA" not in table
    assert "first" in table
    shown = fleet.run("show", job).stdout
    for part in ("took:", "golden:", "token accuracy:", "resolved:", "train.epochs:", "first",
                 "train.max_steps:", f"ftq fetch {job}"):  # fmt: skip
        assert part in shown, shown
    assert "train.precision: auto" not in shown, "only what differs from the default"
    (data,) = _json(fleet, "show", job, "--json")
    assert data["golden"]["after"]["loss"] < data["golden"]["before"]["loss"]  # type: ignore[index]
    # Without an id it is the newest, also where a folder is named.
    assert fleet.run("wait", "--timeout", "5").returncode == 0
    fetched = fleet.run("fetch", str(tmp_path / "model"))
    assert fetched.returncode == 0, fetched.stderr
    assert job in fetched.stderr
    assert (tmp_path / "model" / "config.json").exists()


@pytest.mark.chaos
def test_the_next_commands_of_a_failed_job_work_as_printed(fleet: Fleet, own_rows: Path) -> None:
    own = ("--model", "demo/tiny-llama", "--dataset", str(own_rows))
    for options in (
        (*BASE, "--set", "data.columns.prompt=questoin"),
        (*own, "--set", "data.on_bad_row=fail"),
        ("--model", "demo/tiny-lama", "--dataset", "demo/colours"),
    ):
        done = fleet.run("submit", *options, *QUICK)
        assert done.returncode == 5
        printed = re.findall(r"^  next +ftq (.*)$", done.stdout, re.MULTILINE)
        assert len(printed) == 2, done.stdout
        for command in printed:
            pasted = fleet.run(*shlex.split(command))
            assert pasted.returncode == 0, (command, pasted.stdout[-500:], pasted.stderr)
