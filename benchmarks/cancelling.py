"""From `cancel` to `cancelled`, at random moments of all phases.

    python -m benchmarks.cancelling [TINY] [REAL]

TINY jobs (170) train the demo's model, a whole job of about 10 s; REAL ones (30) are SmolLM2-135M,
whose loading, scoring and steps take long. A job that ends before its moment is drawn again. The
seed is printed; FTQ_BENCH_SEED takes it again.
"""

import json
import os
import random
import secrets
import sys
import time
from collections import Counter

from tests.support import smollm

from benchmarks.fleet import Fleet, fleet
from benchmarks.real_inputs import put
from benchmarks.report import Table
from benchmarks.silence import ROWS, row
from ftq_client.client import Client
from ftq_worker.demo import assets

LONGEST_S = {"tiny": 4.0, "real": 80.0}  # of a random moment, after the submit


def main() -> None:
    """Cancel jobs of both kinds and print the times."""
    tiny, real = map(int, sys.argv[1:3] or ("170", "30"))
    seed = int(os.environ.get("FTQ_BENCH_SEED") or secrets.randbelow(2**32))
    draw, table = random.Random(seed), Table("seconds from cancel to cancelled")
    where: Counter[str] = Counter()
    with fleet() as mine:
        specs = {"tiny": tiny_job(), "real": real_job(mine)}
        kinds = ["tiny"] * tiny + ["real"] * real
        draw.shuffle(kinds)
        client = mine.client()
        for kind in kinds:
            seconds = None
            while seconds is None:  # a job that had ended before is drawn again
                after_s = draw.uniform(0, LONGEST_S[kind])
                seconds, at = cancel_one(client, specs[kind], after_s)
                where[at] += 1
            table.add(kind, seconds)
    table.show()
    every = sorted(value for values in table.samples.values() for value in values)
    p99 = every[min(len(every) - 1, int(0.99 * len(every)))]
    print(f"  all: p50 {every[len(every) // 2]:.2f}, p99 {p99:.2f}, longest {every[-1]:.2f}")
    print(f"  cancelled in: {dict(where)}; FTQ_BENCH_SEED={seed}")


def tiny_job() -> dict[str, object]:
    """Return the spec of a whole short job; the demo's model and dataset are on the Hub."""
    train = {"method": "full", "max_steps": 40}
    return {"model": assets.MODEL, "dataset": assets.DATASET, "train": train}


def real_job(mine: Fleet) -> dict[str, object]:
    """Return the spec of a slow job."""
    put(mine, "model", "demo/smollm2", smollm.make_folder(mine.root / "smollm2"))
    folder = mine.root / "rows"
    folder.mkdir()
    lines = [json.dumps(row(number)) for number in range(ROWS)]
    (folder / "train.jsonl").write_text("\n".join(lines) + "\n")
    put(mine, "dataset", "demo/sums", folder)
    return {"model": "demo/smollm2", "dataset": "demo/sums", "train": {"max_steps": 5}}


def cancel_one(client: Client, spec: dict[str, object], after_s: float) -> tuple[float | None, str]:
    """Return how long it took, None for a job that had ended, and the phase it was in."""
    job = client.submit({**spec, "resources": {"gpus": "0"}})
    time.sleep(after_s)
    phase = str(client.get(job).phase)
    started = time.monotonic()
    client.cancel(job)
    record = client.wait(job, timeout_s=120)
    seconds = time.monotonic() - started
    return (seconds, phase) if record.state == "cancelled" else (None, f"{record.state}")


if __name__ == "__main__":
    main()
