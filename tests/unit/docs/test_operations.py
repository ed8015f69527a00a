"""docs/operations.md names every key and variable, and the times that the code has."""

import re
import types
from pathlib import Path

import pytest
from tests.support.pages import ROOT, section

from ftq_client.local.stack import STOP_TIMEOUT_S
from ftq_shared import keys
from ftq_shared.lifetimes import (
    CHILD_S,
    DISPATCH_TTL_S,
    EVENTS_EXACT,
    EVENTS_TTL_S,
    HOST_TTL_S,
    INPUT_JOB_MAX,
    INPUT_TOTAL_MAX,
    INPUTS_TTL_S,
    JOB_TTL_S,
    KEEP_ENDED_S,
    KEEP_ENDED_SHORT_OF_ROOM_S,
    KEEP_PUBLISHED_S,
    KEEP_WORK_S,
    LEASE_S,
    LITTLE_ROOM,
    LOCK_TTL_S,
    MILESTONES_KEPT,
    PAUSE_S,
    RENEW_S,
    SECRET_TTL_S,
    SUBMIT_TTL_S,
)
from ftq_worker.agent import run_handle
from ftq_worker.agent.main import SWEEP_S
from ftq_worker.supervisor.main import DRAIN_S, END_S

TEXT = (ROOT / "docs" / "operations.md").read_text()
COMPOSE = (ROOT / "docker-compose.yml").read_text()

FUNCTIONS = {
    "lock": "NAME",
    "job": "ID",
    "events": "ID",
    "kept": "ID",
    "live": "ID",
    "secret": "ID",
    "inputs": "ID",
    "relay": "NONCE",
    "relay_taken": "NONCE",
    "submit": "KEY",
    "host": "NAME",
    "places": "NAME",
}


def test_every_key_is_in_the_table() -> None:
    made = [getattr(keys, function)(word) for function, word in FUNCTIONS.items()]
    made.append(keys.host_queue("NAME", "INSTANCE"))
    made += [v for v in vars(keys).values() if isinstance(v, str) and re.match(r"ftq(:|$)", v)]
    table = section(TEXT, "### Keys")
    named = re.findall(r"^\| `([^`]+)`", table, re.MULTILINE)
    assert set(made) == {name for name in named if not name.startswith("_kombu")}


def test_every_function_that_makes_a_key_was_tried() -> None:
    made = {
        name
        for name, value in vars(keys).items()
        if isinstance(value, types.BuiltinMethodType)  # the `format` of a key's form
    }
    assert made == set(FUNCTIONS)


@pytest.mark.parametrize(
    ("key", "ttl_s", "words"),
    [
        ("job:ID", JOB_TTL_S, "{} days after the job's end"),
        ("kept:ID", JOB_TTL_S, "{} days after the job's end"),
        ("events:ID", EVENTS_TTL_S, "{} day after the job's end"),
        ("secret:ID", SECRET_TTL_S, "at most {} days"),
        ("submit:KEY", SUBMIT_TTL_S, "{} day "),
        ("lock:NAME", LOCK_TTL_S, "at most {} day "),
        ("host:NAME", HOST_TTL_S, "else {} day "),
    ],
)
def test_times_to_live_are_those_of_the_code(key: str, ttl_s: int, words: str) -> None:
    row = re.search(rf"^\| `ftq:{key}` .*$", section(TEXT, "### Keys"), re.MULTILINE)
    assert row
    assert words.format(ttl_s // 86_400) in row[0]


def test_the_shorter_times_to_live_are_those_of_the_code() -> None:
    table = section(TEXT, "### Keys")
    assert f"| {DISPATCH_TTL_S} s |" in table
    assert f"{INPUTS_TTL_S // 3_600} hour without a submit" in table


@pytest.mark.parametrize("script", sorted((ROOT / "shared/ftq_shared/scripts").glob("*.lua")))
def test_no_script_has_a_time_to_live_of_its_own(script: Path) -> None:
    text = re.sub(r"--.*", "", script.read_text())
    assert not re.findall(r"'(?:EX|PX|EXPIRE|PEXPIRE|MAXLEN)'.*\b\d{2,}\b", text)
    calendar = {"86400", "719468", "146097", "146096", "36524", "1460"}  # of days and dates
    assert set(re.findall(r"\b\d{4,}\b", text)) <= calendar | {"1000", "3600"}


def test_limits_are_those_of_the_code() -> None:
    assert f"at most {INPUT_JOB_MAX // 2**20} MiB a job" in TEXT
    assert INPUT_TOTAL_MAX == 2**30
    assert "1 GiB together" in TEXT
    assert f"at most {EVENTS_EXACT:,} events and {MILESTONES_KEPT:,} milestones a job" in TEXT
    assert f"The newest {EVENTS_EXACT:,} events" in (ROOT / "docs/events.md").read_text()


def test_what_stays_on_disk_is_as_the_code_keeps_it() -> None:
    days = [f"{seconds / 86_400:.0f} days" for seconds in (KEEP_ENDED_S, KEEP_PUBLISHED_S)]
    assert KEEP_WORK_S == KEEP_ENDED_SHORT_OF_ROOM_S == 86_400
    assert f"everything; `ftq retry` then starts it over | {days[0]} | 1 day |" in TEXT
    assert f"with its model on the Hub: everything | {days[1]} | {days[1]} |" in TEXT
    assert f"less than {LITTLE_ROOM:.0%} of the disk".replace("%", " %") in TEXT
    assert f"every {SWEEP_S / 60:.0f} minutes" in TEXT


def test_there_is_time_enough_for_a_drain() -> None:
    drain_s = max(DRAIN_S, run_handle.SAVE_GRACE_S + END_S) + 2 * END_S
    assert f"The drain takes up to {DRAIN_S:.0f} s, or" in TEXT
    assert f"({run_handle.SAVE_GRACE_S / 60:.0f} minutes for a training" in TEXT
    assert f"the rest up to {2 * END_S:.0f} s" in TEXT
    systemd = re.search(r"TimeoutStopSec=(\d+)", TEXT)
    compose = re.search(r"stop_grace_period: (\d+)s", COMPOSE)
    assert systemd
    assert compose
    assert int(systemd[1]) > drain_s
    assert int(compose[1]) > drain_s
    assert drain_s < STOP_TIMEOUT_S
    assert run_handle.STOP_GRACE_S + run_handle.KILL_GRACE_S < DRAIN_S
    assert f"get {run_handle.STOP_GRACE_S:.0f} s to save" in TEXT


def test_leases_are_as_the_architecture_tells() -> None:
    text = re.sub(r"\s+", " ", (ROOT / "docs" / "architecture.md").read_text())
    assert f"renewed every {RENEW_S:.0f} s and may be taken after {LEASE_S:.0f} s" in text
    assert f"after {PAUSE_S:.0f} s and is ended by the kernel after {CHILD_S:.0f} s" in text
