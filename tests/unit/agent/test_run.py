"""A run beside its children: what it takes back, what it ends, what it names."""

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from redis.exceptions import ResponseError

from ftq_shared.errors import BrokerUnreachable
from ftq_shared.job_record import JobRecord
from ftq_worker.agent.child import DIE_S, HostTrouble
from ftq_worker.agent.run import PhaseRun


class FakeChild:
    """Stands for a process: notes what it is told, and may refuse to die."""

    def __init__(self, pid: int, stuck: bool = False, status: int = 0) -> None:
        self.pid, self.stuck, self.exit = pid, stuck, status
        self.ended = self.closed = False
        self.told: list[Any] = []

    def send(self, message: Any) -> None:
        self.told.append(message)

    def kill_tree(self) -> None:
        self.told.append("kill")

    def end(self) -> None:
        if self.stuck:
            raise HostTrouble("does not die")
        self.ended = True

    def close(self) -> None:
        self.closed = True

    def status(self) -> int:
        return self.exit


@pytest.fixture
def run(tmp_path: Path) -> PhaseRun:
    raw = {"id": "ft-aaaaaaaa", "v": "1", "state": "running", "phase": "train"}
    record = JobRecord.from_hash(raw | {"attempt": "1", "version": "1", "token": "1:a"})
    bench: Any = SimpleNamespace(
        storage=tmp_path, note_children=lambda: None, end_orphans=lambda: None
    )
    return PhaseRun(bench, record, "n", asked=100.0)


def with_children(run: PhaseRun, *children: FakeChild) -> None:
    run._children = list(children)  # type: ignore[arg-type]


def test_a_late_answer_takes_no_time_back(run: PhaseRun) -> None:
    child = FakeChild(1)
    with_children(run, child)
    run.feed(200.0, 190.0)
    run.feed(150.0, 140.0)
    assert child.told[-1] == {"lease": {"until": 200.0, "pause_at": 190.0}}


def test_one_child_that_does_not_die_keeps_no_other_alive_and_no_descriptor(run: PhaseRun) -> None:
    children = FakeChild(1, stuck=True), FakeChild(2)
    with_children(run, *children)
    run._clear_up()
    assert children[1].ended
    assert run.lost
    assert all(child.closed for child in children)


def test_of_a_gang_the_first_to_die_is_named(run: PhaseRun) -> None:
    killed_by_us, crashed = FakeChild(1, status=-9), FakeChild(2, status=-11)
    with_children(run, killed_by_us, crashed)
    run._first_dead = crashed  # type: ignore[assignment]
    assert run._verdict()["code"] == "crashed"


@pytest.mark.parametrize(("code", "burn"), [("host_trouble", False), ("no_fork", True)])
def test_what_a_job_may_meet_for_ever_costs_an_attempt(
    run: PhaseRun, code: str, burn: bool
) -> None:
    def no_child(*_: Any) -> None:
        raise HostTrouble("no", code=code)

    bench: Any = run._bench
    bench.spawn, bench.host, bench.endpoint, bench.cpu_threads = no_child, "h", "", 1
    bench.open_secrets = lambda record: {}
    bench.fetch_inputs = lambda record, paths: None
    outbox: Any = SimpleNamespace(say=lambda *_, **__: None)
    run._try(outbox)
    assert run._verdict() == {"outcome": "died", "reason": "no", "burn": burn}


def test_a_claims_end_is_told_once_the_broker_is_back(
    run: PhaseRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    calls = []

    def report() -> None:
        calls.append("told")
        if len(calls) < 3:
            raise BrokerUnreachable("away")

    run.tell(report)
    assert len(calls) == 3
    run.lost = True
    run.tell(report)
    assert len(calls) == 3, "somebody else owns the job"


@pytest.mark.parametrize(
    ("error", "reason"),
    [(OSError(5, "Input/output error"), "the storage failed"), (KeyError("x"), "the agent failed")],
)
def test_whatever_goes_wrong_is_said(run: PhaseRun, error: Exception, reason: str) -> None:
    def broken(record: JobRecord) -> dict[str, str]:
        raise error

    bench: Any = run._bench
    bench.open_secrets = broken
    run._try(SimpleNamespace())  # type: ignore[arg-type]
    verdict = run._verdict()
    assert verdict["outcome"] == "died"
    assert reason in verdict["reason"]


def test_of_ranks_that_die_at_once_the_silent_one_is_the_cause(run: PhaseRun) -> None:
    """One is killed for its memory; the other says that it has lost the connection to it."""
    complains, killed = FakeChild(1), FakeChild(2, status=-9)
    with_children(run, complains, killed)
    run._outcomes = {1: {"outcome": "failed", "error": {}}}
    assert run._note_deaths(run._children)
    assert run._verdict()["code"] == "killed"


def test_the_first_rank_to_fail_is_believed_over_those_that_follow(run: PhaseRun) -> None:
    fails, follows = FakeChild(1), FakeChild(2, status=-6)
    with_children(run, fails, follows)
    run._outcomes = {1: {"outcome": "failed", "error": {"code": "nonfinite_loss"}}}
    assert run._note_deaths(run._children[:1])
    assert run._note_deaths(run._children[1:])
    assert run._verdict()["error"]["code"] == "nonfinite_loss"


def test_a_process_that_does_not_die_does_not_keep_the_job(run: PhaseRun) -> None:
    run._mind_time(None)
    run._killed_at = time.monotonic() - DIE_S
    with pytest.raises(HostTrouble, match="does not die"):
        run._mind_time(None)


@pytest.mark.parametrize("answer", ["later", None])
def test_an_answer_that_is_none_confirms_nothing(run: PhaseRun, answer: str | None) -> None:
    child = FakeChild(1)
    with_children(run, child)
    bench: Any = run._bench
    bench.store = SimpleNamespace(
        renew=lambda leases: dict.fromkeys(leases, answer), lock=lambda *_: (answer, "")
    )
    for question in ({"ask": "confirm"}, {"ask": "lock", "what": "hub/me/x"}):
        with pytest.raises(ResponseError, match="is no answer"):
            run._ask_broker(question)
    assert child.told == []


def test_written_means_that_all_before_it_is_in_the_outbox(run: PhaseRun) -> None:
    child: Any = FakeChild(1)
    batches = [[b'{"type": "log"}', b'{"ask": "written"}', b'{"type": "late"}']]
    child.events = SimpleNamespace(open=True, read=lambda: batches.pop() if batches else [])
    order: list[Any] = []
    child.send = order.append
    run._read(child, SimpleNamespace(add=order.append))  # type: ignore[arg-type]
    assert order == [{"type": "log"}, {"answer": {"status": "ok"}}, {"type": "late"}]
