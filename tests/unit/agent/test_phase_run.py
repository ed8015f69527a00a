"""A run beside its children: what it takes back, what it ends, how it says that it ended."""

import json
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from redis.exceptions import ResponseError
from tests.support.agents import services, store_with_run

from ftq_shared.errors import BrokerUnreachable, ErrorInfo
from ftq_shared.hosts import Gpu
from ftq_shared.in_memory import MemoryStore
from ftq_shared.states import JobState, Phase
from ftq_worker.agent import gang
from ftq_worker.agent.child import DIE_S, Child, HostTrouble
from ftq_worker.agent.gang import Deaths
from ftq_worker.agent.leases import ask_broker
from ftq_worker.agent.outcome import report_until_heard
from ftq_worker.agent.phase_run import PhaseRun
from ftq_worker.agent.run_handle import CANCEL_GRACE_S, KILL_GRACE_S, STOP_GRACE_S, RunHandle
from ftq_worker.host.messages import (
    GPU_FAULT,
    RANK_LOST,
    Answer,
    ChildRequest,
    Ending,
    LeaseTimes,
    Outcome,
    Question,
    Secrets,
    Stop,
    StopReason,
    report_line,
)
from ftq_worker.host.process_tree import PhaseProcesses

FAILED = Outcome(Ending.FAILED, ErrorInfo("nonfinite_loss", "the loss is not finite"))


class FakeChild(Child):
    """Stands for a process: notes what it is told, and may refuse to die."""

    def __init__(self, pid: int, stuck: bool = False, status: int = 0) -> None:
        self.pid, self.stuck, self.exit = pid, stuck, status
        self.ended = self.closed = False
        self.told: list[Any] = []
        self.events: Any = SimpleNamespace(open=False)

    def send(self, message: Any) -> None:
        self.told.append(message)

    def kill_tree(self, signum: int = 9) -> None:
        self.told.append(signum)

    def end(self) -> None:
        if self.stuck:
            raise HostTrouble("does not die")
        self.ended = True

    def close(self) -> None:
        self.closed = True

    def status(self) -> int:
        return self.exit


class FakeOutbox:
    """Notes what is emitted and passed on."""

    def __init__(self) -> None:
        self.redactor: Any = None
        self.bodies: list[Any] = []

    def emit(self, *_: Any, **__: Any) -> None: ...

    def add(self, body: Any) -> None:
        self.bodies.append(body)


class FakeSpawn:
    """Gives the children of a test, one after the other."""

    warm = False
    children: list[FakeChild] | HostTrouble

    def __init__(self) -> None:
        self.requests: list[ChildRequest] = []

    def __call__(self, request: ChildRequest, output: int) -> Child:
        self.requests.append(request)
        if isinstance(self.children, HostTrouble):
            raise self.children
        return self.children.pop(0)


class NoProcesses(PhaseProcesses):
    """A fake child's pid is nobody's: none is written down, no orphan is killed."""

    def add(self, pid: int) -> None: ...

    def remove(self, pids: Iterable[int]) -> None: ...


@pytest.fixture
def store() -> MemoryStore:
    return store_with_run()


@pytest.fixture
def handle(store: MemoryStore) -> RunHandle:
    (lease,) = store.leases()
    times = LeaseTimes(120.0, 110.0)
    return RunHandle(lease.id, lease.token, times, claim_again=lambda: None)


@pytest.fixture
def spawn() -> FakeSpawn:
    return FakeSpawn()


@pytest.fixture
def run(store: MemoryStore, handle: RunHandle, spawn: FakeSpawn, tmp_path: Path) -> PhaseRun:
    card = Gpu("GPU-a", "Test", 80.0)
    given = services(store, tmp_path, spawn, NoProcesses(0, tmp_path), gpus=[card])
    return PhaseRun(given, store.get(handle.job), handle)


def with_children(handle: RunHandle, *children: FakeChild) -> None:
    for child in children:
        handle.add(child, Secrets({}))
        child.told.clear()


# -- the handle: what other threads do


def test_a_stop_waits_for_as_long_as_a_save_needs(
    handle: RunHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    child, now = FakeChild(1), time.monotonic()
    with_children(handle, child)
    handle.save_s = 10 * STOP_GRACE_S
    handle.stop(StopReason.DRAIN)
    monkeypatch.setattr("time.monotonic", lambda: now + 9 * STOP_GRACE_S)
    handle.enforce_stop()
    assert child.told == [Stop(StopReason.DRAIN)]


def test_a_cancel_comes_before_every_other_stop_and_saves_nothing(
    handle: RunHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    child, now = FakeChild(1), time.monotonic()
    with_children(handle, child)
    handle.save_s = 10 * STOP_GRACE_S
    handle.stop(StopReason.DRAIN)
    handle.stop(StopReason.CANCEL)
    monkeypatch.setattr("time.monotonic", lambda: now + CANCEL_GRACE_S + 0.5)
    handle.enforce_stop()
    assert child.told == [Stop(StopReason.DRAIN), Stop(StopReason.CANCEL), 9]


def test_a_new_child_hears_all_that_was_said_before_it_was_there(handle: RunHandle) -> None:
    handle.extend_lease(LeaseTimes(200.0, 190.0))
    handle.stop(StopReason.DRAIN)
    handle.stop(StopReason.DEADLINE)  # the first reason stays
    child = FakeChild(1)
    handle.add(child, Secrets({"HF_TOKEN": "x"}))
    lease, stop = LeaseTimes(200.0, 190.0), Stop(StopReason.DRAIN)
    assert child.told == [Secrets({"HF_TOKEN": "x"}), lease, stop]


def test_a_child_that_is_started_after_the_claim_was_lost_is_killed(handle: RunHandle) -> None:
    handle.abandon()
    child = FakeChild(1)
    handle.add(child, Secrets({}))
    assert child.told[-1] == 9


def test_a_late_answer_takes_no_time_back(handle: RunHandle) -> None:
    child = FakeChild(1)
    with_children(handle, child)
    handle.extend_lease(LeaseTimes(200.0, 190.0))
    handle.extend_lease(LeaseTimes(150.0, 140.0))
    assert child.told[-1] == LeaseTimes(200.0, 190.0)


def test_a_process_that_does_not_die_does_not_keep_the_job(
    handle: RunHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    handle.enforce_stop()
    handle.kill(handle.children())
    now = time.monotonic()
    monkeypatch.setattr("time.monotonic", lambda: now + DIE_S + 1)
    with pytest.raises(HostTrouble, match="does not die"):
        handle.enforce_stop()


def test_what_does_not_stop_gets_term_and_then_kill(
    handle: RunHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    child, now = FakeChild(1), time.monotonic()
    with_children(handle, child)
    handle.stop(StopReason.DRAIN)
    grace_s = STOP_GRACE_S
    for later_s, signals in ((grace_s - 1, []), (grace_s, [15]), (grace_s + KILL_GRACE_S, [9])):
        child.told.clear()
        monkeypatch.setattr("time.monotonic", lambda at=later_s: now + at + 0.5)
        handle.enforce_stop()
        assert [told for told in child.told if isinstance(told, int)] == signals


@pytest.mark.parametrize("answer", ["later", None])
def test_an_answer_that_is_none_confirms_nothing(
    store: MemoryStore, handle: RunHandle, answer: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = FakeChild(1)
    with_children(handle, child)
    monkeypatch.setattr(store, "renew", lambda leases: dict.fromkeys(leases, answer))
    monkeypatch.setattr(store, "lock", lambda *_: (answer, ""))
    for question in (Question("confirm"), Question("lock", "hub/me/x")):
        with pytest.raises(ResponseError, match="is no answer"):
            ask_broker(store, handle, question)
    assert child.told == []


def test_a_confirmation_extends_the_lease_also_of_a_job_that_is_cancelled(
    store: MemoryStore, handle: RunHandle
) -> None:
    child = FakeChild(1)
    with_children(handle, child)
    store.cancel(handle.job)
    assert ask_broker(store, handle, Question("confirm")) == Answer("ok")
    assert child.told[0].until > time.monotonic()


# -- the run: what its own thread does


def test_one_child_that_does_not_die_keeps_no_other_alive_and_no_descriptor(
    run: PhaseRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    children = FakeChild(1, stuck=True), FakeChild(2)
    with_children(run.handle, *children)
    monkeypatch.setattr(PhaseRun, "_run", lambda self, outbox: Outcome(Ending.DONE))
    monkeypatch.setattr(PhaseRun, "_open_outbox", _Context)
    run.work()
    assert children[1].ended
    assert run.handle.lost
    assert all(child.closed for child in children)


class _Context:
    def __init__(self, *_: Any) -> None: ...

    def __enter__(self) -> FakeOutbox:
        return FakeOutbox()

    def __exit__(self, *_: object) -> None: ...


@pytest.fixture
def outcome(
    run: PhaseRun, spawn: FakeSpawn, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Outcome]:
    """Runs a phase whose children have said something, or not, and died in an order."""

    def of(
        *deaths: tuple[FakeChild, Outcome | None],
        at_once: bool = False,
        phase: Phase = Phase.PREPARE,
    ) -> Outcome:
        spawn.children = [child for child, _ in deaths]

        def pump(self: PhaseRun, outbox: Any, deadline: float | None) -> None:
            for child, said in deaths:
                lines = [[report_line(said)]] if said else []
                child.events = SimpleNamespace(
                    open=True, read=lambda lines=lines: lines.pop() if lines else []
                )
                self._read(child, outbox)
            each = [[child for child, _ in deaths]] if at_once else [[c] for c, _ in deaths]
            for gone in each:
                self._deaths.note(gone, self._said)

        monkeypatch.setattr(PhaseRun, "_pump", pump)
        run.record = replace(run.record, phase=phase, gpus=tuple("ab"[: len(deaths)]))
        outbox: Any = FakeOutbox()
        return run._run(outbox)

    return of


def test_a_phase_is_done_when_every_rank_says_so(outcome: Callable[..., Outcome]) -> None:
    done = Outcome(Ending.DONE)
    assert outcome((FakeChild(1), done), (FakeChild(2), done)) == done


def test_training_is_verified_on_the_first_card_by_one_more_process(
    run: PhaseRun, spawn: FakeSpawn, monkeypatch: pytest.MonkeyPatch
) -> None:
    run.record = replace(run.record, phase=Phase.TRAIN, gpus=("a", "b"))
    ranks = spawn.children = [FakeChild(n) for n in (1, 2, 3)]
    ranks = list(ranks)
    there: list[list[int]] = []

    def pump(self: PhaseRun, outbox: Any, deadline: float | None) -> None:
        there.append([child.pid for child in self.handle.children()])
        if there == [[1, 2]]:
            assert deadline is None or deadline > 0
        else:
            assert deadline is None  # max_runtime limits training
            assert all(child.ended and child.closed for child in ranks[:2])

    monkeypatch.setattr(PhaseRun, "_pump", pump)
    outbox: Any = FakeOutbox()
    assert run._run(outbox) == Outcome(Ending.DONE)
    assert there == [[1, 2], [3]]
    assert [(r.part, r.rank, r.gpus) for r in spawn.requests] == [
        ("train", 0, ("a", "b")),
        ("train", 1, ("a", "b")),
        ("verify", 0, ("a",)),
    ]
    last = spawn.requests[-1]
    assert last.env == {"CUDA_VISIBLE_DEVICES": "a", "FTQ_JOB_ID": run.record.id}
    assert last.phase == "train"


def test_a_training_that_fails_is_not_verified(outcome: Callable[..., Outcome]) -> None:
    assert outcome((FakeChild(1), FAILED), phase=Phase.TRAIN) == FAILED


def test_of_a_gang_the_first_to_die_is_named(outcome: Callable[..., Outcome]) -> None:
    ended = outcome((FakeChild(2, status=-11), None), (FakeChild(1, status=-9), None))
    assert ended.ending is Ending.DIED
    assert ended.error
    assert ended.error.code == "crashed"


def test_of_ranks_that_die_at_once_the_silent_one_is_the_cause(
    outcome: Callable[..., Outcome],
) -> None:
    """One is killed for its memory; the other says that it has lost the connection to it."""
    ended = outcome((FakeChild(1), FAILED), (FakeChild(2, status=-9), None), at_once=True)
    assert ended.error
    assert ended.error.code == "killed"


def test_the_first_rank_to_fail_is_believed_over_those_that_follow(
    outcome: Callable[..., Outcome],
) -> None:
    ended = outcome((FakeChild(1), FAILED), (FakeChild(2, status=-6), None))
    assert ended.error
    assert (ended.error.code, ended.ending) == ("nonfinite_loss", Ending.FAILED)
    assert ended.error.message == "rank 0 of 2: the loss is not finite"


def test_a_rank_that_has_lost_another_waits_for_that_one_to_be_seen(
    outcome: Callable[..., Outcome],
) -> None:
    """Its connection breaks before the system says that the other is dead."""
    follows = Outcome(Ending.HOST, ErrorInfo(RANK_LOST, "it lost the connection"))
    ended = outcome((FakeChild(1), follows), (FakeChild(2, status=-9), None))
    assert ended.error
    assert ended.error.code == "killed"
    assert ended.error.message.startswith("rank 1 of 2: ")


def test_ranks_that_have_only_lost_each_other_are_ended_after_a_moment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lost = Outcome(Ending.HOST, ErrorInfo(RANK_LOST, "it lost the connection"))
    deaths, child = Deaths(), FakeChild(1)
    assert not deaths.note([child], {1: lost})
    monkeypatch.setattr(gang, "FOLLOW_S", 0.0)
    assert deaths.note([], {1: lost})
    assert deaths.cause is child


@pytest.mark.parametrize(("code", "counts"), [("host_trouble", False), ("no_fork", True)])
def test_what_a_job_may_meet_for_ever_costs_an_attempt(
    run: PhaseRun, spawn: FakeSpawn, code: str, counts: bool
) -> None:
    spawn.children = HostTrouble("no", code=code)
    outbox: Any = FakeOutbox()
    assert run._run(outbox) == Outcome(Ending.NOT_RUN, ErrorInfo(code, "no"), counts)


@pytest.mark.parametrize(
    ("outcome", "aside", "counts"),
    [
        (Outcome(Ending.HOST, ErrorInfo(GPU_FAULT, "no CUDA")), True, False),
        (Outcome(Ending.HOST, ErrorInfo("disk_full", "no room")), False, True),
        (Outcome(Ending.DIED, ErrorInfo("crashed", "SIGSEGV")), True, True),
        (Outcome(Ending.FAILED, ErrorInfo("nonfinite_loss", "NaN")), False, True),
        (Outcome(Ending.DONE), False, True),
    ],
)
def test_cards_on_which_a_phase_failed_are_set_aside(
    run: PhaseRun, outcome: Outcome, aside: bool, counts: bool
) -> None:
    run.record = replace(run.record, gpus=("GPU-a",))
    cards = run._services.cards
    for thread in cards.try_due():
        thread.join()
    assert run._judge_cards(outcome) == replace(outcome, counts_attempt=counts)
    assert bool(cards.sick()) is aside


def test_a_job_that_fails_again_on_cards_that_compute_comes_to_an_end(run: PhaseRun) -> None:
    run.record = replace(run.record, gpus=("GPU-a",))
    outcome = Outcome(Ending.HOST, ErrorInfo(GPU_FAULT, "no CUDA"))
    free = [not run._judge_cards(outcome).counts_attempt for _ in range(3)]
    assert free == [True, False, False]


@pytest.mark.parametrize(
    ("error", "reason"),
    [(OSError(5, "Input/output error"), "the storage failed"), (KeyError("x"), "the agent failed")],
)
def test_whatever_goes_wrong_is_said(
    run: PhaseRun,
    store: MemoryStore,
    error: Exception,
    reason: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(job: str) -> str:
        raise error

    monkeypatch.setattr(store, "sealed_secrets", broken)
    outbox: Any = FakeOutbox()
    ended = run._run(outbox)
    assert ended.ending is Ending.NOT_RUN
    assert reason in ended.reason


def test_a_disk_without_room_for_an_event_requeues_the_job_and_counts(
    run: PhaseRun, store: MemoryStore
) -> None:
    run.paths.claim_dir(run.record.claim).parent.mkdir(parents=True)
    run.paths.claim_dir(run.record.claim).touch()  # in the way of the folder
    run.work()
    record = store.get(run.record.id)
    assert (record.state, record.attempt) == (JobState.QUEUED, run.record.attempt + 1)
    assert "events cannot be written" in store.broker.held.jobs[record.id].deaths[-1]["reason"]


def test_a_claims_end_is_reported_once_the_broker_is_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    calls = []

    def report() -> None:
        calls.append("told")
        if len(calls) < 3:
            raise BrokerUnreachable("away")

    report_until_heard("j", report, lambda: False)
    assert len(calls) == 3
    report_until_heard("j", report, lambda: True)
    assert len(calls) == 3, "somebody else owns the job"


def test_written_means_that_all_before_it_is_in_the_outbox(run: PhaseRun) -> None:
    child: Any = FakeChild(1)
    early, late = {"type": "log", "data": {}}, {"type": "warning", "data": {}}
    lines = [json.dumps(line).encode() for line in (early, {"ask": "written"}, late)]
    batches = [lines]
    child.events = SimpleNamespace(open=True, read=lambda: batches.pop() if batches else [])
    outbox: Any = FakeOutbox()
    child.send = outbox.bodies.append
    run._read(child, outbox)
    assert outbox.bodies == [early, Answer("ok"), late]


@pytest.mark.parametrize(
    ("asked", "left"), [(StopReason.DEADLINE, None), (StopReason.DRAIN, StopReason.DRAIN)]
)
def test_a_deadline_that_was_met_ends_no_verification(
    handle: RunHandle, asked: StopReason, left: StopReason | None
) -> None:
    handle.stop(asked)
    handle.forget_children()
    assert handle.stop_reason is left
    child = FakeChild(1)
    handle.add(child, Secrets({}))
    assert (Stop(asked) in child.told) is (left is not None)
    handle.enforce_stop()
