"""The flood of `tests/redis/test_fuzz.py`, longer, under other seeds; hostile jobs on a worker."""

import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from ftq_client.local.valkey import EmbeddedBroker
from ftq_worker.demo import assets
from tests.e2e.conftest import Fleet, fleet, local_hub, wait_for  # noqa: F401  fixtures
from tests.e2e.validate.test_hostile_models import FOLDERS
from tests.redis.test_fuzz import command_lines
from tests.support import fuzz, hostile

pytestmark = pytest.mark.chaos

SEED = int(os.environ.get("FTQ_CHAOS_SEED") or random.SystemRandom().randrange(10**6))
JOBS_S = 900.0  # for all hostile jobs together
BUGS = ("unexpected", "agent_failed", "attempts_exhausted")


@pytest.mark.parametrize(
    ("one", "count"),
    [(fuzz.spec, 6_000), (fuzz.record, 10_000), (fuzz.host, 10_000), (fuzz.event, 10_000)],
)
def test_no_reader_lets_an_error_out(one: Callable[[random.Random], str], count: int) -> None:
    assert not fuzz.run(SEED, count, one), f"seed {SEED}"


def test_no_command_line_ends_in_a_traceback(
    broker: EmbeddedBroker, redis: Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not command_lines(SEED, 2_000, broker.url, tmp_path, monkeypatch), f"seed {SEED}"


def hostile_models(folder: Path) -> dict[str, dict[str, Any]]:
    """Return a spec for each model folder of the validate tests."""
    specs = {}
    assets.save_base(
        folder / "base",
        [" ".join(map(str, row.values())) for row in assets.make_rows()],
        hidden_size=16,
    )
    for name, (changes, _) in FOLDERS.items():
        at = folder / name.replace(" ", "-")
        shutil.copytree(folder / "base", at)
        for path, content in changes.items():
            (at / path).unlink(missing_ok=True)
            if content is not None:
                data = content if isinstance(content, bytes) else content.encode()
                (at / path).write_bytes(data)
        specs[name] = {"model": f"worker:{at}"}
    return specs


def hostile_datasets(folder: Path) -> dict[str, dict[str, Any]]:
    """Return a spec for each way in which a dataset may be hostile."""
    good = '{"prompt": "a", "completion": "b"}\n'
    rows = {
        "digits": good + '{"prompt": ' + "9" * 5000 + "}\n",
        "deep": good + hostile.DEEP + "\n",
        "half": good + '{"prompt": "\\ud800", "completion": "x"}\n',
        "no text": good + "\xff\xfe\n",
        "infinite": good + '{"prompt": 1e999, "completion": NaN}\n',
        "empty": "",
        "one": good,
        "long": good + '{"prompt": "' + "x" * (20 << 20) + '"}\n',
        "no rows": "null\n" * 50,
        "types": "".join(json.dumps({"prompt": v, "completion": v}) + "\n" for v in _values()),
    }
    specs: dict[str, dict[str, Any]] = {}
    for name, text in rows.items():
        for suffix in (".jsonl", ".json", ".csv", ".txt"):
            path = folder / f"{name.replace(' ', '-')}{suffix}"
            path.write_bytes(text.encode("latin-1", "replace"))
            specs[path.name] = {"dataset": f"worker:{path}"}
    os.mkfifo(folder / "pipe.jsonl")
    for name in (
        "/etc/*",
        "/proc/self/**/*.txt",
        f"{folder}/pipe.jsonl",
        "/dev/zero",
        "/" + "x" * 5000,
    ):
        specs[name[:40]] = {"dataset": f"worker:{name}"}
    return specs


def _values() -> list[Any]:
    return [v for v in hostile.VALUES if not (isinstance(v, int) and v > 10**100)]


def test_hostile_jobs_on_a_real_worker(fleet: Fleet, tmp_path: Path) -> None:  # noqa: F811
    """All end, none as a bug of ours, none writes outside of the storage; then a good job runs."""
    fleet.stop_worker(fleet.workers[0])
    worker = fleet.start_worker("hostile", FTQ_DATA_ROOTS=str(tmp_path))
    client = fleet.client()
    specs = hostile_models(tmp_path) | hostile_datasets(tmp_path)
    before = set(tmp_path.rglob("*"))
    base = {"model": assets.MODEL, "dataset": assets.DATASET, "train": {"max_steps": 1}}
    jobs = {name: client.submit({**base, **changes}) for name, changes in specs.items()}
    assert len(jobs) >= 60

    def left() -> list[str]:
        return [name for name, job in jobs.items() if not client.get(job).state.terminal]

    wait_for(lambda: not left(), timeout_s=JOBS_S, what=left)
    bugs = {}
    for name, job in jobs.items():
        error, events = client.get(job).error, list(client.tail(job, follow=False))
        traced = any("Traceback" in json.dumps(event.data) for event in events)
        if traced or (error and error.code in BUGS):
            bugs[name] = error and f"{error.code}: {error.message[:200]}"
    assert not bugs
    assert set(tmp_path.rglob("*")) == before
    assert fleet.submit("--model", assets.MODEL, "--dataset", assets.DATASET).code == 0
    fleet.stop_worker(worker)
