"""What every store of jobs and hosts does: one class of tests, run on each of them."""

import json
from collections.abc import Callable, Sequence

import pytest
from redis.exceptions import ResponseError

from ftq_shared.errors import ErrorInfo, NoSuchJob
from ftq_shared.events import Event, EventType
from ftq_shared.hosts import HostStore
from ftq_shared.job_record import PLAIN_VERSION, RECORD_VERSION, InputFile, Replay
from ftq_shared.lease import Lease
from ftq_shared.row_refs import RowRef
from ftq_shared.states import JobState, Phase
from ftq_shared.store import JobStore, Outcome, Placement
from tests.support.store_jobs import HOST, SPEC, log, place, run, spec_with, submit, try_to_place

MOST = 25  # deaths: more than a record holds

Events = Callable[[str], list[Event]]  # of a job, oldest first
Wait = Callable[[float], None]  # lets so many seconds pass for the broker


def states(events: list[Event]) -> list[str]:
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    return [event.data["state"] for event in events if event.type is EventType.STATE]


class StoreContract:
    """The tests. A class that inherits them has the fixtures `store`, `hosts`, `events`, `wait`.

    `hosts` are of the same broker as `store`, and h1 (instance i1) has said what HOST says.
    """

    def test_submit_twice_makes_one_job(self, store: JobStore, events: Events) -> None:
        assert submit(store) == submit(store, job="ft-bbbbbbbb") == "ft-aaaaaaaa"
        assert store.queued(0, -1) == ["ft-aaaaaaaa"]
        assert states(events("ft-aaaaaaaa")) == ["queued"]

    def test_all_phases_to_the_end(self, store: JobStore, hosts: HostStore, events: Events) -> None:
        job = submit(store)
        for phase in Phase:
            assert store.get(job).phase is phase
            token = run(store, job)
            outcome: Outcome = "next" if phase.next else "succeeded"
            for _ in range(2):  # a repeated call changes nothing
                assert store.finish(job, token, outcome, next_phase=phase.next) == "ok"
        record = store.get(job)
        assert record.state is JobState.SUCCEEDED
        assert states(events(job)) == ["queued", "placed", "running"] * 4 + ["succeeded"]
        assert store.leased() == []

    def test_a_replay_begins_in_train_in_the_other_jobs_storage(
        self, store: JobStore, hosts: HostStore, events: Events
    ) -> None:
        other = submit(store)
        again = Replay(other, 7, "s1", 4)
        options = {"client_key": "again", "owner": "me@here", "endpoint": ""}
        job = store.submit("ft-bbbbbbbb", SPEC, replay=again, **options)
        record = store.get(job)
        assert (record.phase, record.storage_id, record.fresh_after) == (Phase.TRAIN, "s1", 4)
        assert record.replay == Replay(other, 7)
        assert record.to_row()["replay_of"] == other
        # A worker that does not know replays would train the whole job again.
        assert (record.record_version, store.get(other).record_version) == (2, PLAIN_VERSION)
        assert try_to_place(store, job)[1] == "the host is of an older version"
        hosts.heartbeat("h1", "i1", "", {**HOST, "record_version": str(RECORD_VERSION)})
        assert store.finish(job, run(store, job), "succeeded") == "ok"
        assert states(events(job)) == ["queued", "placed", "running", "succeeded"]

    def test_rows_that_are_left_out_stay_with_the_job(
        self, store: JobStore, hosts: HostStore
    ) -> None:
        job = submit(store)
        assert store.get(job).without_rows == ()
        store.cancel(job)
        store.retry(job, Phase.TRAIN, without_rows='{"a b.csv":[4,2]}')
        assert store.get(job).asks_for_rows
        store.cancel(job)
        store.retry(job, Phase.TRAIN)
        record = store.get(job)
        assert not record.asks_for_rows
        assert record.without_rows == (RowRef("a b.csv", 2), RowRef("a b.csv", 4))
        assert record.record_version == RECORD_VERSION

    def test_place_twice_gives_one_token(self, store: JobStore, hosts: HostStore) -> None:
        job = submit(store)
        record = store.get(job)
        plan = Placement(job, record.version, "h1", "i1", "cpu")
        first, second = store.place(plan, "ab" * 8), store.place(plan, "ab" * 8)
        assert first == second == ("1:" + "ab" * 8, "")
        assert store.place(plan, "cd" * 8) == ("", "the job moved on")

    def test_place_refuses_what_no_longer_holds(self, store: JobStore, hosts: HostStore) -> None:
        job = submit(store)
        version = store.get(job).version
        assert store.place(Placement(job, version, "h1", "other", "cpu"))[1] == "the host restarted"
        gpu = Placement(job, version, "h1", "i1", "gpu", ("GPU-a",))
        assert store.place(gpu)[0]
        other = submit(store, "k2", "ft-bbbbbbbb")
        again = Placement(other, store.get(other).version, "h1", "i1", "gpu", ("GPU-a",))
        assert store.place(again) == ("", "a GPU was taken")

    def test_slots_are_counted_from_leases(self, store: JobStore, hosts: HostStore) -> None:
        jobs = [submit(store, str(n), f"ft-{n:08d}") for n in range(3)]
        results = [
            store.place(Placement(job, store.get(job).version, "h1", "i1", "cpu")) for job in jobs
        ]
        assert [bool(token) for token, _ in results] == [True, True, False]
        assert results[2][1] == "no free slot"

    def test_stale_token_is_refused_everywhere(self, store: JobStore, hosts: HostStore) -> None:
        job = submit(store)
        old = run(store, job)
        assert store.requeue(job, old, "test", counts_attempt=False) == "queued"
        new = place(store, job, "1" * 16)
        assert store.claim(job, old, nonce="n", instance="i1", storage_id="s1") == "stale"
        assert store.claim(job, new, nonce="n", instance="i1", storage_id="s1") == "ok"
        assert store.renew({job: old}) == {job: "stale"}
        assert store.append(job, old, 1, [log("x")], milestones=[False])[1] == "stale"
        assert store.finish(job, old, "failed") == "stale"

    def test_append_skips_doubles_and_names_gaps(
        self, store: JobStore, hosts: HostStore, events: Events
    ) -> None:
        job = submit(store)
        token = run(store, job)
        bodies = [log(str(n)) for n in range(1, 6)]
        keep = [False] * 3
        assert store.append(job, token, 1, bodies[:3], milestones=keep) == (3, "ok")
        assert store.append(job, token, 1, bodies[:3], milestones=keep) == (3, "ok")
        assert store.append(job, token, 3, bodies[2:5], milestones=keep) == (5, "ok")
        assert store.append(job, token, 9, bodies[:1], milestones=[True]) == (5, "gap")
        said = [event for event in events(job) if event.type is EventType.LOG]
        assert [event.data["line"] for event in said] == list("12345")

    def test_cancel_queued_placed_running(self, store: JobStore, hosts: HostStore) -> None:
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

    def test_attempts_run_out(self, store: JobStore, hosts: HostStore) -> None:
        job = submit(store)
        answers = [
            store.requeue(job, run(store, job), "killed", counts_attempt=True) for _ in range(3)
        ]
        assert answers == ["queued", "queued", "failed"]
        error = store.get(job).error
        assert error
        assert error.code == "attempts_exhausted"
        assert "attempt 2 on h1 in validate: killed" in error.message
        assert [death["attempt"] for death in error.where["attempts"]] == [1, 2, 3]

    @pytest.mark.parametrize("how", ["finish", "finish without a word", "requeue", "reap"])
    def test_whatever_fails_a_job_it_has_one_error_event(
        self, store: JobStore, hosts: HostStore, events: Events, how: str
    ) -> None:
        job = submit(store, spec=spec_with(max_attempts=1))
        token = run(store, job)
        error = ErrorInfo("bad_row", "row 3 is bad", "mend it", 5, {"row": 3, "nearest": []})
        if how.startswith("finish"):
            store.finish(job, token, "failed", error=error if how == "finish" else None)
        elif how == "requeue":
            store.requeue(job, token, "killed", counts_attempt=True)
        else:
            store.reap(job, token, store.leases()[0].renewals, "silent")
        told = [event for event in events(job) if event.type is EventType.ERROR]
        assert len(told) == 1
        assert told[0].host == "h1"
        if how == "finish":
            known = {"code": "bad_row", "message": "row 3 is bad", "hint": "mend it"}
            assert told[0].data == {**known, "exit_code": 5, "row": 3}
        elif "finish" not in how:
            assert told[0].data["code"] == "attempts_exhausted"
            assert "ftq retry" in told[0].data["hint"]

    def test_the_time_that_training_took_counts_over_all_attempts(
        self, store: JobStore, hosts: HostStore, wait: Wait
    ) -> None:
        job, spent = submit(store), [0]
        for following in (Phase.PREPARE, Phase.TRAIN):
            store.finish(job, run(store, job), "next", next_phase=following)
        assert "trained_ms" not in store.get(job).summary
        for _ in range(2):
            token = run(store, job)
            wait(0.05)
            store.requeue(job, token, "killed", counts_attempt=True)
            spent.append(int(store.get(job).summary["trained_ms"]))
        assert spent[1] >= 50
        assert spent[2] >= spent[1] + 50
        store.finish(job, run(store, job), "failed")
        store.retry(job, Phase.TRAIN)
        assert "trained_ms" not in store.get(job).summary

    def test_the_newest_deaths_are_told(self, store: JobStore, hosts: HostStore) -> None:
        job = submit(store, spec=spec_with(max_attempts=MOST))
        for number in range(MOST):
            store.requeue(job, run(store, job), f"killed {number}", counts_attempt=True)
        error = store.get(job).error
        assert error
        assert error.message == f"interrupted {MOST} times; " + "; ".join(
            f"attempt {number + 1} on h1 in validate: killed {number}"
            for number in range(MOST - 3, MOST)
        )
        assert len(error.where["attempts"]) == 20

    def test_reap_needs_the_same_beat(self, store: JobStore, hosts: HostStore) -> None:
        job = submit(store)
        token = run(store, job)
        seen = store.get(job).renewals
        store.renew({job: token})
        assert store.reap(job, token, seen, "silent") == "stale"
        assert store.reap(job, token, seen + 1, "silent") == "queued"
        assert store.get(job).attempt == 2

    def test_a_reaped_host_gets_nothing_before_its_next_heartbeat(
        self, store: JobStore, hosts: HostStore
    ) -> None:
        # Even when its last heartbeat looks new, as on a broker whose clock was set back.
        job = submit(store)
        token = place(store, job)
        assert store.reap(job, token, 0, "silent") == "queued"
        plan = Placement(job, store.get(job).version, "h1", "i1", "cpu")
        assert store.place(plan)[1] == "the host takes no work"
        hosts.heartbeat("h1", "i1", "", HOST)
        assert store.place(plan)[0]

    def test_a_result_counts_where_the_broker_forgot_the_claim(
        self, store: JobStore, hosts: HostStore, events: Events
    ) -> None:
        job = submit(store)
        token = place(store, job)  # what is left of a claim after a step back
        for _ in range(2):
            assert store.finish(job, token, "next", next_phase=Phase.PREPARE) == "ok"
        assert states(events(job)) == ["queued", "placed", "running", "queued"]
        assert store.get(job).phase is Phase.PREPARE

    def test_a_place_that_was_never_claimed_costs_no_attempt(
        self, store: JobStore, hosts: HostStore
    ) -> None:
        job = submit(store)
        for n in range(4):  # one more than there are attempts
            token = place(store, job, f"{n:016x}")
            assert (
                store.requeue(job, token, "the host's agent died", counts_attempt=True) == "queued"
            )
        assert store.get(job).attempt == 1
        assert "deaths" not in store.get(job).summary

    def test_a_repeated_interruption_gets_the_same_answer(
        self, store: JobStore, hosts: HostStore
    ) -> None:
        job = submit(store)
        token = run(store, job)
        assert (
            store.reap(job, token, 1, "silent") == store.reap(job, token, 1, "silent") == "queued"
        )
        assert store.get(job).attempt == 2
        hosts.heartbeat("h1", "i1", "", HOST)  # it is trusted again
        token = run(store, job)
        assert store.finish(job, token, "succeeded") == "ok"
        # What was finished cannot be interrupted any more; "succeeded" is no answer to that.
        assert store.requeue(job, token, "died", counts_attempt=True) == "stale"
        assert store.reap(job, token, 1, "silent") == "stale"

    def test_a_death_is_told_of_the_phase_it_happened_in(
        self, store: JobStore, hosts: HostStore
    ) -> None:
        job = submit(store)
        store.finish(job, run(store, job), "next", next_phase=Phase.PREPARE)
        token = run(store, job)
        assert (
            store.requeue(job, token, "lost", counts_attempt=True, phase=Phase.VALIDATE) == "queued"
        )
        record = store.get(job)
        assert (record.phase, record.storage_id) == (Phase.VALIDATE, "")
        assert json.loads(record.summary["deaths"])[0]["phase"] == "prepare"
        store.finish(job, run(store, job), "next", next_phase=Phase.PREPARE)
        token = run(store, job)
        store.cancel(job)
        assert (
            store.requeue(job, token, "lost", counts_attempt=False, phase=Phase.VALIDATE)
            == "cancelled"
        )
        record = store.get(job)  # a retry goes on where it was cancelled
        assert (record.phase, record.storage_id) == (Phase.PREPARE, "s1")

    def test_a_late_batch_does_not_turn_the_record_back(
        self, store: JobStore, hosts: HostStore
    ) -> None:
        job = submit(store)
        token = run(store, job)
        bodies = [log("1"), log("2")]
        for first in (1, 2, 1):  # the last is the first, that a network held up
            body, fields = bodies[first - 1], {"step": str(first)}
            store.append(job, token, first, [body], milestones=[False], fields=fields)
        assert store.get(job).summary["step"] == "2"

    def test_a_retried_job_says_again_what_it_waits_for(
        self, store: JobStore, events: Events
    ) -> None:
        job = submit(store)
        for _ in range(2):
            store.say_waiting(job, "no worker is online", "start one")
        store.cancel(job)
        store.retry(job, Phase.VALIDATE)
        assert not store.get(job).summary.get("waiting")
        store.say_waiting(job, "no worker is online", "start one")
        assert sum(event.type is EventType.WAITING for event in events(job)) == 2

    def test_a_lock_goes_with_the_token(self, store: JobStore, hosts: HostStore) -> None:
        first, second = submit(store), submit(store, "k2", "ft-bbbbbbbb")
        mine, its = run(store, first), run(store, second)
        for _ in range(2):
            assert store.lock(first, mine, "hub/me/x") == ("ok", "")
        assert store.lock(second, its, "hub/me/x") == ("busy", first)
        assert store.lock(second, "9:old", "hub/me/x") == ("stale", "")
        store.requeue(first, mine, "interrupted", counts_attempt=False)
        assert store.lock(second, its, "hub/me/x") == ("ok", "")

    def test_who_waits_for_a_lock_gets_a_place_with_it(
        self, store: JobStore, hosts: HostStore
    ) -> None:
        """Of many that wait for one lock, one is placed when it is free."""
        first, second = submit(store), submit(store, "k2", "ft-bbbbbbbb")
        third = submit(store, "k3", "ft-cccccccc")
        mine = run(store, first)
        store.lock(first, mine, "hub/me/x")
        for job in (second, third):
            token = run(store, job)
            assert store.lock(job, token, "hub/me/x") == ("busy", first)
            store.requeue(job, token, "wait", counts_attempt=False, awaits="hub/me/x")
        records = store.get_many([first, second, third])
        assert store.awaited(records) == {second: first, third: first}
        assert try_to_place(store, second) == ("", f"{first} has the lock that it waits for")
        store.finish(first, mine, "succeeded")
        assert store.awaited(records) == {}
        token = run(store, second)
        assert store.awaited(store.get_many([third])) == {third: second}
        assert not try_to_place(store, third)[0]
        assert store.lock(second, token, "hub/me/x") == ("ok", "")
        store.requeue(second, token, "the host is going down", counts_attempt=False)
        assert store.get(second).awaits == ""
        place(store, third)
        place(store, second)  # it asks for itself whether it is free

    def test_a_retry_waits_for_nothing(self, store: JobStore, hosts: HostStore) -> None:
        first, second = submit(store), submit(store, "k2", "ft-bbbbbbbb")
        store.lock(first, run(store, first), "hub/me/x")
        store.requeue(second, run(store, second), "wait", counts_attempt=False, awaits="hub/me/x")
        store.cancel(second)
        store.retry(second, Phase.VALIDATE)
        place(store, second)

    def test_drain_is_heard_at_the_next_heartbeat(self, store: JobStore, hosts: HostStore) -> None:
        assert hosts.drain("h1") == "i1"
        assert hosts.heartbeat("h1", "i1", "", HOST)
        assert hosts.drain("nobody") == ""
        assert [host.name for host in hosts.all()] == ["h1"]

    def test_retry_after_failure(self, store: JobStore, hosts: HostStore) -> None:
        job = submit(store)
        token = run(store, job)
        store.finish(job, token, "failed", error=ErrorInfo("bad", "it broke", exit_code=5))
        assert store.get(job).exit_code == 5
        for _ in range(2):
            assert store.retry(job, Phase.VALIDATE, nonce="once") == "queued"
        record = store.get(job)
        assert (record.state, record.attempt, record.error) == (JobState.QUEUED, 2, None)
        assert (record.round, record.fresh_after) == (1, 0)

    def test_find_by_prefix(self, store: JobStore) -> None:
        submit(store, "1", "ft-abc22222")
        submit(store, "2", "ft-abd22222")
        assert store.find("ft-abc") == store.find("abc") == "ft-abc22222"
        with pytest.raises(NoSuchJob, match="fits 2 jobs: ft-abc22222, ft-abd22222"):
            store.find("ab")
        with pytest.raises(NoSuchJob, match="no job zz"):
            store.find("zz")

    def test_a_name_has_one_owner(self, store: JobStore, hosts: HostStore) -> None:
        with pytest.raises(Exception, match="another worker is called 'h1'"):
            hosts.heartbeat("h1", "i2", "", HOST)
        hosts.heartbeat("h1", "i2", "i1", HOST)
        assert [host.instance for host in hosts.all()] == ["i2"]
        hosts.leave("h1", "i2")
        assert hosts.all() == []

    def test_what_was_submitted_is_in_the_record(self, store: JobStore) -> None:
        file = InputFile("dataset/rows.jsonl", 3, "ab", ("cd",))
        spec = spec_with(gpus="h100:2", min_vram_gb=40, priority="high")
        job = store.submit(
            "ft-aaaaaaaa",
            spec,
            client_key="k",
            owner="me@here",
            endpoint="http://hub",
            sealed="box",
            inputs=[file],
        )
        record = store.get(job)
        assert (record.id, record.owner) == (job, "me@here")
        assert (record.state, record.phase, record.attempt) == (JobState.QUEUED, Phase.VALIDATE, 1)
        assert (record.priority, record.endpoint) == ("high", "http://hub")
        assert (record.spec, record.inputs, record.error) == (spec, (file,), None)
        assert record.summary["gpu_request"] == "h100:2"
        assert float(record.summary["min_vram_gb"]) == 40
        assert store.sealed_secrets(job) == "box"
        assert store.cancel(job) == "cancelled"
        assert store.sealed_secrets(job) == ""

    def test_an_id_is_given_once(self, store: JobStore) -> None:
        submit(store)
        with pytest.raises(ResponseError, match="EXISTS"):
            submit(store, "k2")

    def test_the_queue_is_by_priority_then_first_come(self, store: JobStore) -> None:
        for number, priority in enumerate(("low", "normal", "high", "normal")):
            spec = spec_with(priority=priority)
            submit(store, str(number), f"ft-{number:08d}", spec)
        order = [f"ft-{number:08d}" for number in (2, 1, 3, 0)]
        assert store.queued(0, -1) == order
        assert store.queued(1, 2) == order[1:3]
        assert store.queued(3, 9) == order[3:]
        assert store.queued(4, 9) == []
        assert [store.queue_position(job) for job in order] == [1, 2, 3, 4]
        assert store.queue_position("ft-zzzzzzzz") is None

    def test_lists_are_in_their_order(self, store: JobStore) -> None:
        jobs = [submit(store, str(number), f"ft-{number:08d}") for number in range(5)]
        newest = [record.id for record in store.newest_first(page=2)]
        assert newest == sorted(jobs, reverse=True)
        found = store.get_many([jobs[3], "ft-zzzzzzzz", jobs[0]])
        assert [record.id for record in found] == [jobs[3], jobs[0]]
        with pytest.raises(NoSuchJob, match="no job ft-zzzzzzzz"):
            store.get("ft-zzzzzzzz")

    def test_lists_are_of_owners_and_states(self, store: JobStore, hosts: HostStore) -> None:
        """ftq 0.1.0 wrote user@machine."""
        owners = ("me", "root@laptop", "root@desk", "rooty@laptop", "other")
        ids = [f"ft-{letter * 8}" for letter in "abcde"]
        for job, owner in zip(ids, owners, strict=True):
            store.submit(job, SPEC, client_key=job, owner=owner, endpoint="")
        run(store, ids[1])
        store.cancel(ids[2])

        def found(*owners: str, states: Sequence[JobState] = (), page: int = 2) -> set[str]:
            listed = store.newest_first(owners=owners, states=states, page=page)
            return {record.id for record in listed}

        assert found("me", "root") == {*ids[:3]}
        assert found("root", page=200) == {*ids[1:3]}
        assert found("nobody", "") == set()
        assert found(states=[JobState.QUEUED]) == {ids[0], *ids[3:]}
        assert found("root", states=[JobState.QUEUED, JobState.RUNNING]) == {ids[1]}
        assert found() == set(ids)

    def test_a_lease_is_what_the_record_says_of_it(self, store: JobStore, hosts: HostStore) -> None:
        job = submit(store)
        assert (store.leases(), store.leased()) == ([], [])
        token = run(store, job)
        store.renew({job: token})
        lease = Lease(job, 1, JobState.RUNNING, token, 2, "h1", "i1", "cpu", (), "s1")
        assert store.leases() == [lease]
        assert store.leased() == [store.get(job)]

    def test_one_request_for_a_dispatch_pass_is_enough(self, store: JobStore) -> None:
        assert [store.first_to_request(), store.first_to_request()] == [True, False]
        store.take_request()
        assert store.first_to_request()

    def test_a_job_that_is_not_there_is_not_made(self, store: JobStore) -> None:
        job = "ft-zzzzzzzz"
        store.say_waiting(job, "no worker is online", "start one")
        assert store.retry(job, Phase.VALIDATE) == store.sealed_secrets(job) == ""
        assert store.lock(job, "1:a", "hub/me/x") == ("stale", "")
        assert store.requeue(job, "1:a", "killed", counts_attempt=True) == "stale"
        assert store.place(Placement(job, 0, "h1", "i1", "cpu")) == ("", "the job moved on")
        assert list(store.newest_first()) == []

    def test_hosts_are_known_by_what_they_said_last(
        self, store: JobStore, hosts: HostStore
    ) -> None:
        hosts.heartbeat("h2", "i2", "", {**HOST, "draining": "1", "running": {"ft-a": "1:a"}})
        first, second = hosts.all()
        assert (first.name, first.online, first.draining, first.slots) == ("h1", True, False, 2)
        assert (second.name, second.draining, second.running) == ("h2", True, {"ft-a": "1:a"})
        assert [gpu.uuid for gpu in first.gpus] == ["GPU-a"]
        hosts.leave("h2", "another")
        assert len(hosts.all()) == 2
        hosts.forget_old_queues()
