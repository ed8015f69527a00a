"""Hostile texts of every kind that a reader of outside data may meet, and a seeded mixture of them.

One seed gives one sequence, so that a failure is repeated by its number.
"""

import functools
import json
import random
import tempfile
from pathlib import Path
from typing import Any

TRAVERSALS = [
    "../../../evil",
    "/etc/passwd",
    "ft-aaaaaaaa/../x",
    "ft-aaaaaaa\n",
    "ft-aaaaaaaa\x00",
    "..",
    ".",
    "a/b",
    "\n* * * * * root touch x\n/..",
]
NUMBERS = ["x", "-1", "1e999", "NaN", "9" * 25, "9" * 5000, " 1", "٣", "1.5", "0x10", "true"]
TEXTS = ["", "\x1b]0;PWN\x07", "\u202e", "\ud800", "\u0000", "x" * 3000, "[[[[", '"', "{}", "[]"]
DEEP = "[" * 100_000
VALUES: list[Any] = [
    None,
    True,
    -1,
    10**400,
    1e308,
    float("inf"),
    [],
    {},
    [[]],
    {"a": [1]},
    "\ud800",
]


def text(chance: random.Random) -> str:
    """Return one hostile text."""
    kinds = [TRAVERSALS, NUMBERS, TEXTS, [DEEP, json.dumps(value(chance))]]
    return str(chance.choice(chance.choice(kinds)))


def value(chance: random.Random, depth: int = 0) -> Any:
    """Return one hostile value as JSON or YAML may hold it."""
    if depth < 3 and chance.random() < 0.3:
        inner = [value(chance, depth + 1) for _ in range(chance.randrange(4))]
        return inner if chance.random() < 0.5 else {f"k{n}": it for n, it in enumerate(inner)}
    return chance.choice([*VALUES, *NUMBERS, *TEXTS, *TRAVERSALS])


_RECORD = {
    "v": "1",
    "state": "queued",
    "phase": "train",
    "spec": '{"model": "a/b", "dataset": "c/d"}',
    "error": '{"code": "x"}',
    "created_ms": "1700000000000",
    "owner": "me@here",
    "priority": "normal",
    "max_attempts": "3",
    **dict.fromkeys(("attempt", "version", "seq", "step", "steps", "loss", "eta_s"), "1"),
    **dict.fromkeys(("gpus", "inputs", "deaths"), "[]"),
    **dict.fromkeys(("token", "nonce", "host", "instance", "storage_id", "waiting", "name"), ""),
    **dict.fromkeys(("token_number", "beat", "cancel", "tries", "ordinal", "round"), "0"),
    **dict.fromkeys(("ended_ms", "exit_code", "last_token", "last_answer", "lock", "awaits"), ""),
    **dict.fromkeys(("gpu_request", "min_vram_gb", "max_runtime_s"), "0"),
}


def record_of(job: str, chance: random.Random) -> dict[str, str]:
    """Return a job's hash, most of it as it should be, one to three fields hostile or gone."""
    record = {"id": job, **_RECORD}
    if chance.random() < 0.3:
        record["state"] = chance.choice(["placed", "running", "failed", "succeeded"])
    for field in chance.sample(sorted(record), chance.randrange(1, 4)):
        if chance.random() < 0.1:
            del record[field]
        else:
            record[field] = text(chance)
    return record


@functools.cache
def scratch_file() -> Path:
    """Return a file for texts that are read from one."""
    return Path(tempfile.mkdtemp(prefix="hostile-")) / "text"
