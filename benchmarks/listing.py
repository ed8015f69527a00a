"""What lists take in a fleet that has run many jobs, few of them yours.

    python -m benchmarks.listing [JOBS] [ROUNDS]      (100,000 and 5)

The commands are whole processes, with their start, against a broker with 100 ended jobs and one
with JOBS, in turns; ten more are yours in both, and one in a thousand has failed.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.report import Table
from ftq_client.local.valkey import EmbeddedBroker
from ftq_shared import keys
from ftq_shared.broker import connect
from ftq_shared.spec import JobSpec
from ftq_shared.store import JobStore

COMMANDS = {
    "list": ("list",),
    "list -a --state failed": ("list", "-a", "--state", "failed"),
    "tail without an id": ("tail", "--no-follow"),
}
MINE = 10
SPEC = JobSpec(model="org/model", dataset="org/data")


def main() -> None:
    """Time the commands and print medians and ratios."""
    many, rounds = map(int, sys.argv[1:3] or ("100000", "5"))
    table = Table("seconds of wall clock")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        with EmbeddedBroker(root / "few") as few, EmbeddedBroker(root / "many") as full:
            brokers = {100: few.url, many: full.url}
            for count, url in brokers.items():
                fill(url, count)
            for _ in range(rounds):
                for name, command in COMMANDS.items():
                    for count, url in brokers.items():
                        table.add(f"{name}, {count}", timed(command, url, root))
    table.show()
    for name in COMMANDS:
        ratio = table.median(f"{name}, {many}") / table.median(f"{name}, 100")
        print(f"  {name}: {ratio:.2f} times as long with {many} jobs")


def fill(url: str, count: int) -> None:
    """Make so many jobs of others that have ended, older than ten of yours."""
    store = JobStore(connect(url))
    redis: Any = store.redis
    for number in range(MINE):
        job = f"ft-mine{number:04d}"
        store.submit(job, SPEC, client_key=job, owner="me", endpoint="")
    record = redis.hgetall(keys.job(job)) | {"owner": "somebody", "has_secrets": "0"}
    redis.zrem(keys.QUEUE, *(f"ft-mine{number:04d}" for number in range(1, MINE)))
    for start in range(0, count, 1000):
        pipe = redis.pipeline(transaction=False)
        for number in range(start, min(count, start + 1000)):
            job = f"ft-{number:08d}"
            state = "failed" if number % 1000 == 0 else "succeeded"
            ended = {"id": job, "state": state, "created_ms": str(1000 + number)}
            pipe.hset(keys.job(job), mapping=record | ended)
            pipe.zadd(keys.JOBS, {job: 1000 + number})
        pipe.execute()


def timed(command: tuple[str, ...], url: str, root: Path) -> float:
    """Run a command and return its seconds."""
    mine = {"FTQ_REDIS_URL": url, "FTQ_HOME": str(root / "home"), "FTQ_USER": "me"}
    env = {k: v for k, v in os.environ.items() if not k.startswith(("FTQ_", "HF_"))} | mine
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "ftq_client", *command], env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return time.monotonic() - started


if __name__ == "__main__":
    main()
