"""The job store on a real server: each arrow of the state diagram, and each call repeated."""

import json

import pytest
from redis.exceptions import ResponseError

from ftq_shared import keys
from ftq_shared.errors import ErrorInfo, NoSuchJob
from ftq_shared.events import Event, EventType, make_body
from ftq_shared.hosts import HostStore
from ftq_shared.spec import JobSpec
from ftq_shared.states import JobState, Phase
from ftq_shared.store import JobStore, Placement

SPEC = JobSpec(model="org/model", dataset="org/data")
HOST = {
    "slots": 2,
    "gpus": [{"uuid": "GPU-a", "name": "Test", "memory_gb": 10}],
    "storage_id": "s1",
    "draining": "0",
    "version": "0",
}


@pytest.fixture
def hosts(store: JobStore) -> HostStore:
    hosts = HostStore(store.redis)
    hosts.beat("h1", "i1", "", HOST)
    return hosts


def submit(store: JobStore, key: str = "k", job: str = "ft-aaaaaaaa") -> str:
    return store.submit(job, SPEC, client_key=key, owner="me@here", endpoint="")


def place(store: JobStore, job: str, random: str = "0" * 16) -> str:
    record = store.get(job)
    token, why = store.place(Placement(job, record.version, "h1", "i1", "cpu"), random)
    assert token, why
    return token


def run(store: JobStore, job: str) -> str:
    token = place(store, job)
    assert store.claim(job, token, nonce="n", instance="i1", storage_id="s1") == "ok"
    return token


def states(store: JobStore, job: str) -> list[str]:
    lines = [fields["e"] for _, fields in store.redis.xrange(keys.events(job))]
    events = [Event.from_json(line) for line in lines]
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    return [event.data["state"] for event in events if event.type is EventType.STATE]


def test_submit_twice_makes_one_job(store: JobStore) -> None:
    assert submit(store) == submit(store, job="ft-bbbbbbbb") == "ft-aaaaaaaa"
    assert store.queued(0, -1) == ["ft-aaaaaaaa"]
    assert states(store, "ft-aaaaaaaa") == ["queued"]


def test_all_phases_to_the_end(store: JobStore, hosts: HostStore) -> None:
    job = submit(store)
    for phase in Phase:
        assert store.get(job).phase is phase
        token = run(store, job)
        outcome = "next" if phase.next else "succeeded"
        for _ in range(2):  # a repeated call changes nothing
            assert store.finish(job, token, outcome, next_phase=phase.next) == "ok"
    record = store.get(job)
    assert record.state is JobState.SUCCEEDED
    assert states(store, job) == ["queued", "placed", "running"] * 4 + ["succeeded"]
    assert store.leased() == []
    assert store.redis.ttl(keys.job(job)) > 0


def test_place_twice_gives_one_token(store: JobStore, hosts: HostStore) -> None:
    job = submit(store)
    record = store.get(job)
    plan = Placement(job, record.version, "h1", "i1", "cpu")
    first, second = store.place(plan, "ab" * 8), store.place(plan, "ab" * 8)
    assert first == second == ("1:" + "ab" * 8, "")
    assert store.place(plan, "cd" * 8) == ("", "the job moved on")


def test_place_refuses_what_no_longer_holds(store: JobStore, hosts: HostStore) -> None:
    job = submit(store)
    version = store.get(job).version
    assert store.place(Placement(job, version, "h1", "other", "cpu"))[1] == "the host restarted"
    gpu = Placement(job, version, "h1", "i1", "gpu", ("GPU-a",))
    assert store.place(gpu)[0]
    other = submit(store, "k2", "ft-bbbbbbbb")
    again = Placement(other, store.get(other).version, "h1", "i1", "gpu", ("GPU-a",))
    assert store.place(again) == ("", "a GPU was taken")


def test_slots_are_counted_from_leases(store: JobStore, hosts: HostStore) -> None:
    jobs = [submit(store, str(n), f"ft-{n:08d}") for n in range(3)]
    results = [
        store.place(Placement(job, store.get(job).version, "h1", "i1", "cpu")) for job in jobs
    ]
    assert [bool(token) for token, _ in results] == [True, True, False]
    assert results[2][1] == "no free slot"


def test_stale_token_is_refused_everywhere(store: JobStore, hosts: HostStore) -> None:
    job = submit(store)
    old = run(store, job)
    assert store.requeue(job, old, "test", burn=False) == "queued"
    new = place(store, job, "1" * 16)
    assert store.claim(job, old, nonce="n", instance="i1", storage_id="s1") == "stale"
    assert store.claim(job, new, nonce="n", instance="i1", storage_id="s1") == "ok"
    assert store.renew({job: old}) == {job: "stale"}
    body = make_body(EventType.LOG, {"line": "x"}, attempt=1, host="h1", phase=Phase.VALIDATE)
    assert store.append(job, old, 1, [body], milestones=[False])[1] == "stale"
    assert store.finish(job, old, "failed") == "stale"


def test_append_skips_doubles_and_names_gaps(store: JobStore, hosts: HostStore) -> None:
    job = submit(store)
    token = run(store, job)
    bodies = [
        make_body(EventType.LOG, {"line": str(n)}, attempt=1, host="h1", phase=Phase.VALIDATE)
        for n in range(1, 6)
    ]
    keep = [False] * 3
    assert store.append(job, token, 1, bodies[:3], milestones=keep) == (3, "ok")
    assert store.append(job, token, 1, bodies[:3], milestones=keep) == (3, "ok")
    assert store.append(job, token, 3, bodies[2:5], milestones=keep) == (5, "ok")
    assert store.append(job, token, 9, bodies[:1], milestones=[True]) == (5, "gap")
    lines = [json.loads(f["e"]) for _, f in store.redis.xrange(keys.events(job))]
    assert [e["data"]["line"] for e in lines if e["type"] == "log"] == list("12345")


def test_cancel_queued_placed_running(store: JobStore, hosts: HostStore) -> None:
    job = submit(store)
    assert store.cancel(job) == store.cancel(job) == "cancelled"
    job = submit(store, "2", "ft-bbbbbbbb")
    token = place(store, job)
    assert store.cancel(job) == store.cancel(job) == "cancelled"
    for _ in range(2):
        answer = store.claim(job, token, nonce="n", instance="i1", storage_id="s1")
        assert answer == "cancelled"
    assert store.leases() == []
    assert store.get(job).state is JobState.CANCELLED
    job = submit(store, "3", "ft-cccccccc")
    token = run(store, job)
    assert store.cancel(job) == "running"
    assert store.renew({job: token}) == {job: "cancel"}
    assert store.finish(job, token, "cancelled") == "ok"
    assert store.get(job).exit_code == 4
    assert store.cancel("ft-zzzzzzzz") == ""


def test_attempts_run_out(store: JobStore, hosts: HostStore) -> None:
    job = submit(store)
    answers = [store.requeue(job, run(store, job), "killed", burn=True) for _ in range(3)]
    assert answers == ["queued", "queued", "failed"]
    error = store.get(job).error
    assert error
    assert error.code == "attempts_exhausted"
    assert "attempt 2 on h1 in validate: killed" in error.message
    assert [death["attempt"] for death in error.where["attempts"]] == [1, 2, 3]


def test_reap_needs_the_same_beat(store: JobStore, hosts: HostStore) -> None:
    job = submit(store)
    token = run(store, job)
    seen = store.get(job).beat
    store.renew({job: token})
    assert store.reap(job, token, seen, "silent") == "stale"
    assert store.reap(job, token, seen + 1, "silent") == "queued"
    assert store.get(job).attempt == 2


def test_a_reaped_host_gets_nothing_before_its_next_heartbeat(
    store: JobStore, hosts: HostStore
) -> None:
    # Even when its last heartbeat looks new, as on a broker whose clock was set back.
    job = submit(store)
    token = place(store, job)
    assert store.reap(job, token, 0, "silent") == "queued"
    plan = Placement(job, store.get(job).version, "h1", "i1", "cpu")
    assert store.place(plan)[1] == "the host takes no work"
    hosts.beat("h1", "i1", "", HOST)
    assert store.place(plan)[0]


def test_a_claim_that_the_broker_forgot_is_made_again(store: JobStore, hosts: HostStore) -> None:
    job = submit(store)
    token = run(store, job)
    store.redis.hset(keys.job(job), mapping={"state": "placed", "nonce": ""})  # rolled back
    assert store.renew({job: token}) == {job: "unclaimed"}
    assert store.claim(job, token, nonce="n", instance="i1", storage_id="s1") == "ok"
    assert store.renew({job: token}) == {job: "ok"}


def test_a_result_counts_where_the_broker_forgot_the_claim(
    store: JobStore, hosts: HostStore
) -> None:
    job = submit(store)
    token = place(store, job)  # what is left of a claim after a step back
    for _ in range(2):
        assert store.finish(job, token, "next", next_phase=Phase.PREPARE) == "ok"
    assert states(store, job) == ["queued", "placed", "running", "queued"]
    assert store.get(job).phase is Phase.PREPARE


def test_a_place_that_was_never_claimed_costs_no_attempt(store: JobStore, hosts: HostStore) -> None:
    job = submit(store)
    for n in range(4):  # one more than there are attempts
        token = place(store, job, f"{n:016x}")
        assert store.requeue(job, token, "the host's agent died", burn=True) == "queued"
    assert store.get(job).attempt == 1
    assert "deaths" not in store.get(job).summary


def test_a_repeated_interruption_gets_the_same_answer(store: JobStore, hosts: HostStore) -> None:
    job = submit(store)
    token = run(store, job)
    assert store.reap(job, token, 0, "silent") == store.reap(job, token, 0, "silent") == "queued"
    assert store.get(job).attempt == 2
    hosts.beat("h1", "i1", "", HOST)  # it is trusted again
    token = run(store, job)
    assert store.finish(job, token, "succeeded") == "ok"
    # What was finished cannot be interrupted any more; "succeeded" is no answer to that.
    assert store.requeue(job, token, "died", burn=True) == "stale"
    assert store.reap(job, token, 0, "silent") == "stale"


def test_a_death_is_told_of_the_phase_it_happened_in(store: JobStore, hosts: HostStore) -> None:
    job = submit(store)
    store.finish(job, run(store, job), "next", next_phase=Phase.PREPARE)
    token = run(store, job)
    assert store.requeue(job, token, "lost", burn=True, phase=Phase.VALIDATE) == "queued"
    record = store.get(job)
    assert (record.phase, record.storage_id) == (Phase.VALIDATE, "")
    assert json.loads(record.summary["deaths"])[0]["phase"] == "prepare"
    store.finish(job, run(store, job), "next", next_phase=Phase.PREPARE)
    token = run(store, job)
    store.cancel(job)
    assert store.requeue(job, token, "lost", burn=False, phase=Phase.VALIDATE) == "cancelled"
    record = store.get(job)  # a retry goes on where it was cancelled
    assert (record.phase, record.storage_id) == (Phase.PREPARE, "s1")


def test_a_late_batch_does_not_turn_the_record_back(store: JobStore, hosts: HostStore) -> None:
    job = submit(store)
    token = run(store, job)
    bodies = [
        make_body(EventType.LOG, {"line": str(n)}, attempt=1, host="h1", phase=Phase.TRAIN)
        for n in (1, 2)
    ]
    for first in (1, 2, 1):  # the last is the first, that a network held up
        store.append(
            job, token, first, [bodies[first - 1]], milestones=[False], fields={"step": str(first)}
        )
    assert store.get(job).summary["step"] == "2"


def test_a_retried_job_says_again_what_it_waits_for(store: JobStore) -> None:
    job = submit(store)
    for _ in range(2):
        store.say_waiting(job, "no worker is online", "start one")
    store.cancel(job)
    store.retry(job, Phase.VALIDATE)
    assert not store.get(job).summary.get("waiting")
    store.say_waiting(job, "no worker is online", "start one")
    lines = [json.loads(fields["e"]) for _, fields in store.redis.xrange(keys.events(job))]
    assert sum(line["type"] == "waiting" for line in lines) == 2


def test_an_older_worker_neither_gets_nor_claims_a_newer_record(
    store: JobStore, hosts: HostStore
) -> None:
    job = submit(store)
    token = place(store, job)
    store.redis.hset(keys.job(job), "v", "99")
    assert store.claim(job, token, nonce="n", instance="i1", storage_id="s1") == "stale"
    assert store.requeue(job, token, "given back", burn=False) == "queued"
    plan = Placement(job, store.get(job).version, "h1", "i1", "cpu")
    assert store.place(plan)[1] == "the host is of an older version"


def test_a_lock_goes_with_the_token(store: JobStore, hosts: HostStore) -> None:
    first, second = submit(store), submit(store, "k2", "ft-bbbbbbbb")
    mine, its = run(store, first), run(store, second)
    for _ in range(2):
        assert store.lock(first, mine, "hub/me/x") == ("ok", "")
    assert store.lock(second, its, "hub/me/x") == ("busy", first)
    assert store.lock(second, "9:old", "hub/me/x") == ("stale", "")
    store.requeue(first, mine, "interrupted", burn=False)
    assert not store.redis.exists(keys.lock("hub/me/x"))
    assert store.lock(second, its, "hub/me/x") == ("ok", "")
    # One whose owner vanished without a word is nobody's.
    store.redis.set(keys.lock("hub/me/y"), f"{first} {mine}")
    assert store.lock(second, its, "hub/me/y") == ("ok", "")


def test_a_full_broker_keeps_leases_and_lets_jobs_end(store: JobStore, hosts: HostStore) -> None:
    job = submit(store)
    token = run(store, job)
    store.redis.config_set("maxmemory", 1)
    try:
        with pytest.raises(ResponseError, match="maxmemory"):
            submit(store, "k2", "ft-bbbbbbbb")
        body = make_body(EventType.LOG, {"line": "x"}, attempt=1, host="", phase=None)
        with pytest.raises(ResponseError, match="maxmemory"):
            store.append(job, token, 1, [body], milestones=[False])
        assert store.renew({job: token}) == {job: "ok"}
        assert not hosts.beat("h1", "i1", "", HOST)
        assert store.finish(job, token, "failed") == "ok"
    finally:
        store.redis.config_set("maxmemory", 0)
    assert store.redis.keys("ftq:*ft-bbbbbbbb") == []  # refused before the first write


def test_a_stream_that_is_none_makes_room(store: JobStore, hosts: HostStore) -> None:
    job = submit(store)
    token = run(store, job)
    for key in (keys.events(job), keys.kept(job)):
        store.redis.delete(key)
        store.redis.set(key, "not a stream")
    assert store.finish(job, token, "failed") == "ok"
    (entry,) = store.redis.xrange(keys.events(job))
    assert json.loads(entry[1]["e"])["seq"] == store.get(job).seq


def test_drain_is_heard_at_the_next_heartbeat(store: JobStore, hosts: HostStore) -> None:
    assert hosts.drain("h1") == "i1"
    assert hosts.beat("h1", "i1", "", HOST)
    assert hosts.drain("nobody") == ""
    assert not store.redis.exists(keys.host("nobody"))


def test_retry_after_failure(store: JobStore, hosts: HostStore) -> None:
    job = submit(store)
    token = run(store, job)
    store.finish(job, token, "failed", error=ErrorInfo("bad", "it broke", exit_code=5))
    assert store.get(job).exit_code == 5
    for _ in range(2):
        assert store.retry(job, Phase.VALIDATE, nonce="once") == "queued"
    record = store.get(job)
    assert (record.state, record.attempt, record.error) == (JobState.QUEUED, 2, None)
    assert (record.round, record.fresh_after) == (1, 0)
    assert store.redis.ttl(keys.job(job)) == -1


def test_find_by_prefix(store: JobStore) -> None:
    submit(store, "1", "ft-abc22222")
    submit(store, "2", "ft-abd22222")
    assert store.find("ft-abc") == store.find("abc") == "ft-abc22222"
    with pytest.raises(NoSuchJob, match="fits 2 jobs: ft-abc22222, ft-abd22222"):
        store.find("ab")
    with pytest.raises(NoSuchJob, match="no job zz"):
        store.find("zz")


def test_a_name_has_one_owner(store: JobStore, hosts: HostStore) -> None:
    with pytest.raises(Exception, match="another worker is called 'h1'"):
        hosts.beat("h1", "i2", "", HOST)
    hosts.beat("h1", "i2", "i1", HOST)
    assert [host.instance for host in hosts.all()] == ["i2"]
    hosts.leave("h1", "i2")
    assert hosts.all() == []
