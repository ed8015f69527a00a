"""The tables of `ftq list` and `ftq workers`, the block of `ftq show`."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.client.view.strategies import VALUES

from ftq_client.view.lines import cells
from ftq_client.view.tables import jobs_table, show_block, workers_table

JOBS = [
    {"id": "ft-7k3q9xhd", "name": "qwen-gsm8k", "state": "running", "phase": "train", "step": 120,
     "steps": 300, "loss": 1.2345, "eta_s": 341, "model": "Qwen/Qwen3-0.6B", "priority": "high"},
    {"id": "ft-aaaaaaaa", "name": "日本語", "state": "queued"},
]  # fmt: skip
HOST = {
    "name": "gpu-03", "state": "online", "cpu_slots": 4, "cpu_used": 1, "running": ["ft-7k3q9xhd"],
    "gpus": [
        {"name": "NVIDIA H100 80GB HBM3", "uuid": "a", "memory_gb": 79.6, "job": "ft-7k3q9xhd"},
        {"name": "NVIDIA H100 80GB HBM3", "uuid": "b", "memory_gb": 79.6, "job": None},
    ],
    "seen_s": 1.2,
}  # fmt: skip


def plain(text: str) -> str:
    return re.sub(r"\x1b\[\d+m", "", text)


def test_a_pipe_gets_aligned_whole_columns() -> None:
    head, first, second = jobs_table(JOBS).splitlines()
    assert head.split() == [
        "JOB",
        "NAME",
        "STATE",
        "PHASE",
        "STEP",
        "LOSS",
        "ETA",
        "MODEL",
        "PRIORITY",
    ]
    assert "120/300 40%" in first
    assert "5m41s" in first
    at = head.index("STATE")
    assert first[at:].startswith("running")
    assert cells(second[: second.index("queued")]) == at


def test_a_card_that_is_set_aside_is_counted_apart() -> None:
    used, sick = HOST["gpus"]  # type: ignore[misc]
    assert "1/2 H100 80GB HBM3 80 GB " in workers_table([HOST])
    host = {**HOST, "gpus": [used, {**sick, "fault": "fell off the bus"}]}
    assert "1/1 H100 80GB HBM3 80 GB, 1 set aside" in workers_table([host])


def test_a_terminal_gets_colours_unless_it_asks_for_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\x1b[36mrunning" in jobs_table(JOBS, tty=True)
    assert plain(jobs_table(JOBS, tty=True)) == jobs_table(JOBS)
    monkeypatch.setenv("NO_COLOR", "1")
    assert jobs_table(JOBS, tty=True) == jobs_table(JOBS)
    assert "\x1b" not in show_block(HOST, tty=True)


def test_a_narrow_terminal_keeps_id_and_state() -> None:
    for width in (30, 60, 100):
        lines = jobs_table(JOBS, width=width).splitlines()
        assert all(cells(line) <= width for line in lines)
        assert "ft-7k3q9xhd" in lines[1]
        assert "running" in lines[1]


def test_workers() -> None:
    text = workers_table([HOST])
    assert "1/2 H100 80GB HBM3 80 GB" in text
    assert "1/4" in text
    assert "1.2s ago" in text
    assert workers_table([]).endswith("ftq worker")
    assert jobs_table([]) == "no jobs"


def test_show_names_what_is_there() -> None:
    text = show_block({"id": "ft-a", "spec": {"model": "m", "lora": {}}, "url": None, "eta_s": 90})
    assert text.splitlines() == ["id:    ft-a", "spec:", "  model: m", "eta_s: 1m30s"]


KEYS = (
    "created",
    "step",
    "steps",
    "loss",
    "name",
    "seen_s",
    "cpu_slots",
    "eta_s",
    "running",
    "gpus",
)
ROWS = st.fixed_dictionaries({"id": VALUES, "state": VALUES}, optional=dict.fromkeys(KEYS, VALUES))


@given(st.lists(ROWS, max_size=4), st.none() | st.integers(20, 200))
def test_no_row_is_too_odd(rows: list[dict[str, object]], width: int | None) -> None:
    for table in (jobs_table, workers_table):
        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", table(rows, width=width))
    for row in rows:
        show_block(row)
