"""What is refused of a replay, and of rows to be left out, before anything is queued."""

from dataclasses import replace
from typing import Any

import pytest
from tests.unit.client.view.story import JOB, Teller

from ftq_client.replaying import ReplayResult, refuse_replay, refuse_without_rows
from ftq_shared.errors import UsageError
from ftq_shared.events import Event
from ftq_shared.hosts import HostRecord
from ftq_shared.job_record import RECORD_VERSION, JobRecord
from ftq_shared.row_refs import RowRef
from ftq_shared.states import Phase

FIELDS = {"id": JOB, "v": "1", "state": "failed", "phase": "train", "attempt": "1", "version": "9",
          "storage_id": "s1", "last_host": "gpu-03", "step": "26", "steps": "60"}  # fmt: skip
HOST = HostRecord(
    "gpu-03", "i1", 2, (), "s1", False, 0, 1.0, "0.2", "", record_version=RECORD_VERSION
)


def record(**fields: str) -> JobRecord:
    return JobRecord.from_hash({**FIELDS, **fields})


def events() -> list[Event]:
    tell = Teller()
    data: dict[str, Any] = {"rows": 200, "columns": ["a"]}
    return [
        tell("dataset", **data),
        tell("golden", rows=20, source="train", sha256="", reason="", train_rows=160),
        *(tell("step", step=n, steps=60, epoch=0.0, loss=1.0, lr=1e-4) for n in (1, 30, 25)),
    ]


def code_of(refuse: Any, *args: Any) -> str:
    with pytest.raises(UsageError) as caught:
        refuse(*args)
    assert caught.value.hint
    return caught.value.code


def asked(step: int = 22, host: HostRecord | None = HOST, **fields: str) -> str:
    return code_of(refuse_replay, record(**fields), step, events, [host] if host else [])


class TestReplay:
    def test_a_step_that_was_trained_is_not_refused(self) -> None:
        for step in (1, 26, 30):  # 30 before a roll-back, as the events tell
            refuse_replay(record(), step, events, [HOST])

    def test_one_that_was_not_is(self) -> None:
        assert asked(31) == "no_such_step"
        assert code_of(refuse_replay, record(step="", phase="prepare"), 1, events, [HOST]) == (
            "not_trained"
        )

    @pytest.mark.parametrize("state", ["queued", "placed", "running"])
    def test_of_a_job_that_goes_on(self, state: str) -> None:
        assert asked(state=state) == "not_ended"

    def test_of_a_replay(self) -> None:
        assert asked(replay_of="ft-aaaaaaaa", replay_step="3") == "is_replay"

    def test_without_a_host_that_has_the_files(self) -> None:
        assert asked(host=None) == "no_storage_host"
        assert asked(host=replace(HOST, storage_id="s2")) == "no_storage_host"
        assert asked(host=replace(HOST, age_s=1e6)) == "no_storage_host"
        assert asked(host=replace(HOST, draining=True)) == "no_storage_host"
        assert asked(host=replace(HOST, record_version=1)) == "older_worker"


def left_out(*rows: int, phase: Phase | None = None, **fields: str) -> str:
    refs = {RowRef("a.jsonl", row) for row in rows or (3,)}
    return code_of(refuse_without_rows, record(**fields), phase, refs, events)


class TestWithoutRows:
    def test_what_can_be_done_is_not_refused(self) -> None:
        rows = {RowRef("a.jsonl", 199)}
        refuse_without_rows(record(), None, rows, events)
        refuse_without_rows(record(state="cancelled"), None, rows, events)
        refuse_without_rows(record(phase="publish"), Phase.TRAIN, rows, events)
        refuse_without_rows(record(step="60"), Phase.TRAIN, rows, events)
        refuse_without_rows(record(state="succeeded"), None, rows, events)  # the retry refuses

    def test_a_row_beyond_the_data(self) -> None:
        assert left_out(3, 200) == "no_such_row"

    def test_all_rows(self) -> None:
        assert left_out(*range(160)) == "all_rows_left_out"
        before = '{"a.jsonl":[' + ",".join(map(str, range(100))) + "]}"
        assert left_out(*range(100, 160), without_rows=before) == "all_rows_left_out"

    def test_before_training_and_behind_it(self) -> None:
        assert code_of(
            refuse_without_rows, record(phase="prepare"), None, {RowRef("a", 1)}, events
        ) == ("not_trained")
        assert left_out(step="60") == "trained_already"
        refs = {RowRef("a", 1)}
        publish = record(phase="publish")
        assert code_of(refuse_without_rows, publish, None, refs, events) == "trained_already"

    def test_with_data_that_are_read_again(self) -> None:
        assert left_out(phase=Phase.PREPARE) == "rows_of_other_data"
        assert left_out(phase=Phase.VALIDATE) == "rows_of_other_data"

    def test_of_a_replay(self) -> None:
        assert left_out(replay_of="ft-aaaaaaaa", replay_step="3") == "is_replay"


def test_of_several_attempts_at_a_replay_the_last_counts() -> None:
    tell = Teller()
    attempt = [
        tell("phase_started", pid=1),
        tell("replay_row", step=3, tokens=5, text="a"),
    ]
    end = tell("replayed", job=JOB, step=3, rows=1, loss=1.0, recorded_loss=1.0, equal=True)
    result = ReplayResult.of([*attempt, *attempt, end])
    assert (len(result.rows), result.step["loss"]) == (1, 1.0)
