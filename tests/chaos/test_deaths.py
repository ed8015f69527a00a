"""One death at a time, on a real worker with fake phases: what happens, and what it costs.

Lease times are a fifth of the real ones. The storm puts all of this together.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from ftq_client.client import Client
from ftq_shared import keys
from ftq_shared.celery_messages import RUN_PHASE, sender
from ftq_shared.job_record import RECORD_VERSION
from ftq_shared.keys import new_job_id
from ftq_shared.settings import load_settings
from ftq_shared.spec import JobSpec
from ftq_shared.states import JobState, Phase
from ftq_worker.host.process_tree import runs
from tests.chaos.fleet import Fleet, Worker, fleet, journal, read_lines, wait_for
from tests.chaos.jobs import submit_as_previous

LONG = "chaos steps=300 ms=10"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with fleet(tmp_path_factory.mktemp("deaths"), scale=0.2) as made:
        made.add_worker("one")
        made.wait_online("one")
        yield made


@pytest.fixture
def one(made: Fleet) -> Worker:
    """The worker, online again after whatever the last test did."""
    worker = made.workers["one"]
    worker.proxy.heal()
    worker.start()
    made.wait_online("one")
    return worker


@pytest.fixture
def client(made: Fleet) -> Client:
    return made.client()


def submit(client: Client, name: str, attempts: int = 10) -> str:
    resources = {"gpus": "0", "max_attempts": attempts}
    return client.submit({"model": "a/b", "dataset": "c/d", "name": name, "resources": resources})


def steps(worker: Worker, job: str) -> list[dict[str, Any]]:
    entries = journal(worker.home.parent, job)
    return [e for e in entries if e["phase"] == "train" and e["what"] == "step"]


def until_step(worker: Worker, job: str, step: int) -> None:
    wait_for(lambda: any(e["step"] >= step for e in steps(worker, job)), 60, worker.log_tail)


def events(client: Client, job: str, type_: str) -> list[dict[str, Any]]:
    return [dict(e.data) for e in client.tail(job, follow=False) if e.type == type_]


def test_a_killed_child_goes_on_from_its_checkpoint(one: Worker, client: Client) -> None:
    job = submit(client, LONG)
    until_step(one, job, 12)
    (pid,) = one.phases()
    os.kill(pid, signal.SIGKILL)
    record = client.wait(job, timeout_s=60)
    assert (record.state, record.attempt) == (JobState.SUCCEEDED, 2)
    codes = [w["code"] for w in events(client, job, "warning")]
    assert codes == ["killed"]
    (resumed,) = events(client, job, "resumed")
    assert resumed["step"] >= 10
    claims = list(dict.fromkeys(e["claim"] for e in steps(one, job)))
    assert all(re.fullmatch(r"\d+-[0-9a-f]{16}", claim) for claim in claims)
    assert len(claims) == 2


def test_a_dead_agents_children_end_first_and_its_events_are_sent(
    one: Worker, client: Client
) -> None:
    job = submit(client, "chaos steps=300 ms=10 save=28")  # a save would wait for the broker
    until_step(one, job, 30)
    (child,) = one.phases()
    one.proxy.cut.set()  # from here on the agent only writes down what it hears
    until_step(one, job, 50)
    agent = one.pid("agent")
    assert agent
    os.kill(agent, signal.SIGKILL)
    one.proxy.heal()
    record = client.wait(job, timeout_s=60)
    assert record.state is JobState.SUCCEEDED
    assert not runs(child)
    done = steps(one, job)
    first = done[0]["claim"]
    assert max(e["t"] for e in done if e["claim"] == first) < min(
        e["t"] for e in done if e["claim"] != first
    )
    written = read_lines(one.storage / "jobs" / job / "attempts" / first / "events.jsonl")
    assert [e["data"]["step"] for e in written if e["type"] == "step"][-1] >= 45
    told = [(e.time, e.data) for e in client.tail(job)]
    assert [e for e in written if (e["time"], e["data"]) not in told] == []


@pytest.mark.chaos
def test_running_phases_outlive_the_zygote(one: Worker, client: Client) -> None:
    job = submit(client, LONG)
    until_step(one, job, 5)
    zygote = one.pid("zygote")
    assert zygote
    os.kill(zygote, signal.SIGKILL)
    second = submit(client, "chaos steps=5 ms=1")
    for each in (job, second):
        record = client.wait(each, timeout_s=60)
        assert (record.state, record.attempt) == (JobState.SUCCEEDED, 1)
    assert one.pid("zygote") not in (None, zygote)


def test_a_poison_job_says_where_each_attempt_died(one: Worker, client: Client) -> None:
    job = submit(client, "chaos steps=9 kind=poison at=2", attempts=3)
    record = client.wait(job, timeout_s=60)
    assert record.state is JobState.FAILED
    assert record.error
    assert record.error.code == "attempts_exhausted"
    for attempt in (1, 2, 3):
        assert f"attempt {attempt} on one in train" in record.error.message
    assert "SIGSEGV" in record.error.message


def test_what_a_phase_leaves_behind_is_ended_with_it(
    one: Worker, made: Fleet, client: Client
) -> None:
    job = submit(client, "chaos steps=400 ms=10 kind=orphan")
    until_step(one, job, 5)
    (child,) = one.phases()
    below = [process.pid for process in psutil.Process(child).children(recursive=True)]
    assert below
    os.kill(child, signal.SIGKILL)
    wait_for(lambda: not any(runs(pid) for pid in below), 10, lambda: below)
    assert client.cancel(job) in (JobState.QUEUED, JobState.RUNNING, JobState.CANCELLED)
    assert client.wait(job, timeout_s=30).state is JobState.CANCELLED
    left = [line for line in made.left_over() if "zygote" in line]
    assert len(left) == 1, left  # the zygote itself


def test_a_drain_costs_no_attempt_and_a_second_signal_nothing(
    one: Worker, client: Client, made: Fleet
) -> None:
    job = submit(client, LONG)
    until_step(one, job, 40)
    assert one.process
    supervisor = one.process
    for _ in range(3):
        supervisor.terminate()
        time.sleep(0.05)
    assert supervisor.wait(30) == 0
    record = client.get(job)
    assert (record.state, record.attempt) == (JobState.QUEUED, 1)
    done = max(e["step"] for e in steps(one, job))
    one.start()
    assert client.wait(job, timeout_s=60).state is JobState.SUCCEEDED
    # A rolling restart: the checkpoint of the drain is that of the last step.
    first_again = [e["step"] for e in steps(one, job)].index(done) + 1
    assert steps(one, job)[first_again]["step"] == done + 1


@pytest.mark.chaos
def test_a_worker_that_drains_is_seen_until_it_has_left(one: Worker, client: Client) -> None:
    job = submit(client, f"{LONG} slow=4")
    until_step(one, job, 5)
    client.drain("one")
    assert one.process
    oldest_s = 0.0
    while one.process.poll() is None:
        oldest_s = max([oldest_s, *(host.age_s for host in client.workers())])
        time.sleep(0.1)
    assert one.process.returncode == 0
    assert oldest_s < 3.0  # heartbeats come every 0.6 s here, and `--wait` goes by them
    assert client.workers() == []
    client.cancel(job)


def test_ftq_drain_from_another_machine(one: Worker, made: Fleet) -> None:
    ftq = [sys.executable, "-m", "ftq_client"]
    env = made.env("client")
    unknown = subprocess.run([*ftq, "drain", "nobody"], env=env, capture_output=True, text=True)
    assert (unknown.returncode, "no worker 'nobody'" in unknown.stderr) == (2, True)
    command = [*ftq, "drain", "one", "--wait", "--timeout", "30s"]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert one.process
    assert one.process.wait(10) == 0


def test_cancel_without_any_worker(one: Worker, made: Fleet, client: Client) -> None:
    assert one.process
    one.process.terminate()
    one.process.wait(30)
    job = submit(client, LONG)
    assert client.cancel(job) is JobState.CANCELLED
    assert client.cancel(job) is JobState.CANCELLED
    assert client.wait(job, timeout_s=1).exit_code == 4


def test_a_cancelled_job_goes_on_and_from_a_phase_begins_anew(one: Worker, client: Client) -> None:
    job = submit(client, LONG)
    until_step(one, job, 20)
    client.cancel(job)
    assert client.wait(job, timeout_s=30).state is JobState.CANCELLED
    client.retry(job)
    assert client.wait(job, timeout_s=60).state is JobState.SUCCEEDED
    assert len(events(client, job, "resumed")) == 1

    other = submit(client, LONG)
    until_step(one, other, 20)
    client.cancel(other)
    client.wait(other, timeout_s=30)
    client.retry(other, phase=Phase.TRAIN)
    assert client.wait(other, timeout_s=60).state is JobState.SUCCEEDED
    assert events(client, other, "resumed") == []
    assert sum(e["step"] == 1 for e in steps(one, other)) == 2


def test_records_of_the_previous_and_of_a_later_version(one: Worker, client: Client) -> None:
    name = "chaos steps=5 ms=1"
    spec = JobSpec.model_validate(
        {"model": "a/b", "dataset": "c/d", "name": name, "resources": {"gpus": "0"}}
    )
    later = submit_as_previous(client.redis, new_job_id(), spec, version=RECORD_VERSION + 1)
    previous = submit_as_previous(client.redis, new_job_id(), spec)
    client.request_dispatch()
    assert client.wait(previous, timeout_s=60).state is JobState.SUCCEEDED
    assert client.get(later).state is JobState.QUEUED  # neither placed nor refused
    assert client.cancel(later) is JobState.CANCELLED


@pytest.mark.chaos
def test_a_result_in_the_storage_is_believed_over_a_record_that_went_back(
    one: Worker, client: Client
) -> None:
    job = submit(client, "chaos steps=5 ms=1")
    assert client.wait(job, timeout_s=60).state is JobState.SUCCEEDED
    pushed = read_lines(one.home.parent / "fake-hub" / f"{job}.jsonl")
    claims = {e["claim"] for e in journal(one.home.parent, job)}
    # As after a rollback: the record is queued for its last phase again.
    redis = client.redis
    redis.hset(f"ftq:job:{job}", mapping={"state": "queued", "phase": "publish"})
    redis.hdel(f"ftq:job:{job}", "ended_ms", "exit_code")
    redis.zadd("ftq:queue", {job: 1})
    client.request_dispatch()
    assert client.wait(job, timeout_s=30).state is JobState.SUCCEEDED
    again = {e["claim"] for e in journal(one.home.parent, job)}
    assert again == claims  # no phase ran once more
    assert read_lines(one.home.parent / "fake-hub" / f"{job}.jsonl") == pushed


@pytest.mark.chaos
def test_a_broker_that_loses_its_last_second_under_a_job(
    one: Worker, made: Fleet, client: Client
) -> None:
    made.watch_file()
    job = submit(client, "chaos steps=400 ms=10 save=1000")
    until_step(one, job, 150)
    made.restart_broker(lost_s=1.0)
    record = client.wait(job, timeout_s=60)
    # By the worker's word: a look at the broker may come after the events were sent again.
    assert "sending them again" in (one.home / "worker.log").read_text(), "it has lost something"
    assert (record.state, record.attempt) == (JobState.SUCCEEDED, 1)
    assert [e.seq for e in client.tail(job)] == list(range(1, record.seq + 1))
    assert [e["step"] for e in events(client, job, "step")] == list(range(1, 401))


@pytest.mark.chaos
def test_a_training_that_takes_too_long(one: Worker, client: Client) -> None:
    resources = {"gpus": "0", "max_runtime": 3}
    spec = {"model": "a/b", "dataset": "c/d", "name": LONG, "resources": resources}
    job = client.submit(spec | {"name": "chaos steps=1000 ms=10"})
    record = client.wait(job, timeout_s=60)
    assert (record.state, record.attempt) == (JobState.FAILED, 1)
    assert record.error
    assert record.error.code == "timeout"
    last = steps(one, job)[-1]["step"]
    assert client.retry(job) == "queued"
    client.wait(job, timeout_s=60)
    (resumed,) = events(client, job, "resumed")  # it had saved before it was stopped
    assert resumed["step"] == last


def test_a_full_broker_in_words(one: Worker, made: Fleet, client: Client) -> None:
    client.redis.config_set("maxmemory", 1)
    try:
        command = [sys.executable, "-m", "ftq_client", "submit", "--model", "a/b", "--dataset"]
        done = subprocess.run(
            [*command, "c/d", "--detach"], env=made.env("client"), capture_output=True, text=True
        )
    finally:
        client.redis.config_set("maxmemory", 0)
    assert done.returncode == 6
    assert "takes nothing more" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.chaos
def test_a_job_ends_in_a_full_broker(one: Worker, client: Client) -> None:
    job = submit(client, "chaos steps=100 ms=10")
    until_step(one, job, 5)
    client.redis.config_set("maxmemory", 1)
    try:
        wait_for(lambda: steps(one, job)[-1]["step"] == 100, 30, one.log_tail)
        wait_for(lambda: client.get(job).phase is Phase.PUBLISH, 30, one.log_tail)
    finally:
        client.redis.config_set("maxmemory", 0)
    record = client.wait(job, timeout_s=60)
    assert (record.state, record.attempt) == (JobState.SUCCEEDED, 1)
    assert [e["step"] for e in events(client, job, "step")] == list(range(1, 101))


@pytest.mark.chaos
def test_a_run_folder_that_is_cleaned_away_costs_nothing(one: Worker, client: Client) -> None:
    job = submit(client, "chaos steps=900 ms=10")
    until_step(one, job, 5)
    (lock,) = (one.home / "workers").glob("*.lock")
    shutil.rmtree(json.loads(lock.read_text())["run_dir"])
    second = submit(client, "chaos steps=5 ms=10")  # its message and its zygote have no socket
    for each in (second, job):
        record = client.wait(each, timeout_s=60)
        assert (record.state, record.attempt) == (JobState.SUCCEEDED, 1)


def test_a_submit_whose_answer_is_lost_makes_one_job(
    one: Worker, made: Fleet, client: Client
) -> None:
    lossy = Client(load_settings(made.env("client", one.proxy.port)))
    before = client.redis.zcard(keys.JOBS)
    one.proxy.swallow = 1
    job = submit(lossy, "chaos steps=3 ms=1")  # answered at the second try, after a time-out
    assert one.proxy.swallow == 0
    assert client.redis.zcard(keys.JOBS) == before + 1
    assert client.wait(job, timeout_s=60).state is JobState.SUCCEEDED


@pytest.mark.chaos
def test_messages_that_are_none_stop_nobody(one: Worker, client: Client) -> None:
    running = submit(client, LONG)
    until_step(one, running, 5)
    (host,) = [host for host in client.workers() if host.name == "one"]
    for queue in (keys.DISPATCH_QUEUE, host.queue):
        client.redis.lpush(queue, "no json", "{}", "[1]", '{"body": "e30=", "properties": {}}')
    app = sender(client.settings.redis_url or "")
    app.send_task("ftq.unknown", queue=keys.DISPATCH_QUEUE)
    for args in ([], ["x"], [1, 2], ["ft-aaaaaaaa", "1:a"]):
        app.send_task(RUN_PHASE, args=args, queue=host.queue)
    for text in ("no json", "[]", "{}", '{"cancel": 7}', '{"drain": "one"}'):
        client.redis.publish(keys.CONTROL, text)
    client.redis.publish(keys.CONTROL, json.dumps({"fetch": "../x", "storage_id": host.storage_id}))
    job = submit(client, "chaos steps=3 ms=1")
    for each in (job, running):
        record = client.wait(each, timeout_s=60)
        assert (record.state, record.attempt) == (JobState.SUCCEEDED, 1)


@pytest.mark.chaos
def test_a_damaged_lock_file_keeps_nobody_from_starting(one: Worker, made: Fleet) -> None:
    assert one.process
    one.process.terminate()
    one.process.wait(30)
    (lock,) = (one.home / "workers").glob("*.lock")
    lock.write_text('{"instance": ')
    one.start()
    made.wait_online("one")


def test_two_workers_of_one_name_are_told_apart(one: Worker, made: Fleet, tmp_path: Path) -> None:
    env = one.env | {"FTQ_HOME": str(tmp_path)}
    command = [sys.executable, "-m", "ftq_client", "worker", "--name", "one"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=30)
    assert (done.returncode, "another worker" in done.stderr) == (2, True), done.stderr
