"""A seeded flood of damaged datasets through the real validate and prepare, in a child of its own.

    python -m tests.support.fuzz_data SEED FIRST COUNT [FOLDER]

runs some of them by hand and leaves their files. A child that dies, or is silent for too long, is a
fault of the dataset that it is at; another child goes on behind it.
"""

import json
import os
import queue
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HANG_S = 30.0  # of computing, for one dataset
_SILENT_S = 3 * HANG_S  # of waiting; other work may share the cores
GROWTH_MB = 500  # that one small dataset may take at its peak, above what the libraries take
_LIMIT = 6 << 30  # bytes of data that the child may have: the machine is not its own
_ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Flood:
    """What became of all datasets."""

    faults: list[str] = field(default_factory=list)
    ends: Counter[str] = field(default_factory=Counter)  # `prepared`, or the code of a refusal
    slowest_s: float = 0.0
    grown_mb: int = 0
    rows: int = 0  # that were read, kept and dropped

    def add(self, end: dict[str, Any]) -> None:
        self.faults += end["faults"]
        self.ends[end["end"]] += 1
        self.slowest_s = max(self.slowest_s, end["seconds"])
        self.grown_mb = max(self.grown_mb, end["grown_mb"])
        self.rows += end["rows"]

    def __str__(self) -> str:
        ends = ", ".join(f"{end} {count}" for end, count in self.ends.most_common())
        return (
            f"{self.ends.total()} datasets, {self.rows:,} rows, {len(self.faults)} faults; slowest"
            f" {self.slowest_s:.1f} s, most memory {self.grown_mb} MB; {ends}"
        )


def run(seed: int, count: int, folder: Path) -> Flood:
    """Send the datasets 0 to `count` of a seed through both phases."""
    flood, first = Flood(), 0
    while first < count:
        first = _one_child(flood, seed, first, count, folder)
    return flood


def _one_child(flood: Flood, seed: int, first: int, count: int, folder: Path) -> int:
    """Run one child as far as it comes; returns the number to go on with."""
    read, write = os.pipe()
    log = folder / f"child-{first}.log"
    with log.open("wb") as out:
        child = subprocess.Popen(
            [sys.executable, "-m", __name__, f"{seed}", f"{first}", f"{count - first}",
             f"{folder}", f"{write}"],
            pass_fds=[write], stdout=out, stderr=out, cwd=_ROOT,
        )  # fmt: skip
    os.close(write)
    at = first
    try:
        for line in _lines(read):
            if "begins" in line:
                at = line["begins"]
            else:
                flood.add(line)
                at += 1
    finally:
        child.kill()
        child.wait()
    if at < count:
        why = f"ended with {child.returncode}, or was silent for {_SILENT_S:.0f} s"
        last = log.read_text(errors="replace")[-600:]
        flood.faults.append(f"seed {seed}, number {at}: the child {why}: {last}")
        return at + 1
    return at


def _lines(read: int) -> Iterator[dict[str, Any]]:
    """Yield what the child says, until it ends or is silent for too long."""
    said: queue.Queue[str | None] = queue.Queue()

    def pump() -> None:
        with os.fdopen(read) as file:
            for line in file:
                said.put(line)
        said.put(None)

    threading.Thread(target=pump, daemon=True).start()
    try:
        while (line := said.get(timeout=_SILENT_S)) is not None:
            yield json.loads(line)
    except queue.Empty:
        return


# -- in the child


def main(seed: int, first: int, count: int, folder: Path, fd: int | None) -> None:
    """Run some datasets and say of each how it ended."""
    resource.setrlimit(resource.RLIMIT_DATA, (_LIMIT, _LIMIT))
    import torch

    torch.set_num_threads(1)
    base = _base(folder / "base")
    out = os.fdopen(fd, "w", buffering=1) if fd is not None else sys.stdout
    for number in range(first, first + count):
        print(json.dumps({"begins": number}), file=out, flush=True)
        end = _one(seed, number, folder, base)
        print(json.dumps(end), file=out, flush=True)
        if fd is not None:
            shutil.rmtree(folder / str(number), ignore_errors=True)


def _base(folder: Path) -> Path:
    """Return a tiny model whose chat template writes tools."""
    from transformers import AutoTokenizer

    from ftq_worker.demo import assets
    from tests.support import fuzz_rows

    if not (folder / "done").exists():
        texts = [json.dumps(make(n)) for make in fuzz_rows.LAYOUTS.values() for n in range(4)]
        assets.save_base(folder, texts, hidden_size=16)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        tokenizer.chat_template = _TEMPLATE
        tokenizer.save_pretrained(folder)
        (folder / "done").touch()
    return folder


_TEMPLATE = (
    "{% if tools %}{{ 'tools: ' + (tools | tojson) + eos_token }}{% endif %}{% for m in messages %}"
    "{{ m.role + ': ' }}{% if m.tool_calls %}{{ m.tool_calls | tojson }}{% endif %}"
    "{{ (m.content or '') + eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
)


def _one(seed: int, number: int, folder: Path, base: Path) -> dict[str, Any]:
    """Send one dataset through both phases; returns how it ended, and every fault."""
    from ftq_shared.errors import FtqError
    from tests.support.fuzz_cases import make_case
    from tests.support.fuzz_verdict import Job, faults_of_end, faults_of_refusal

    case = make_case(seed, number, folder / str(number))
    before, started = _peak_mb(reset=True), time.process_time()
    job = Job(case, base)
    try:
        job.run()
        end, faults = "prepared", faults_of_end(job)
    except FtqError as error:
        end, faults = error.code, faults_of_refusal(job, error)
    except Exception as error:  # what no phase may let out
        last = traceback.extract_tb(error.__traceback__)[-1]
        end = "crash"
        faults = [f"{type(error).__name__}: {error!s:.300} at {last.filename}:{last.lineno}"]
        traceback.print_exc()
    seconds, grown = time.process_time() - started, _peak_mb() - before
    faults += [f"took {seconds:.0f} s of computing"] * (seconds > HANG_S)
    faults += [f"took {grown} MB"] * (grown > GROWTH_MB)
    return {
        "end": end,
        "seconds": round(seconds, 2),
        "grown_mb": grown,
        "rows": job.rows_read,
        "faults": [f"seed {seed}, {case}: {end}: {fault}" for fault in faults],
    }


def _peak_mb(*, reset: bool = False) -> int:
    """Return the most memory that the process has had at a time, since the last reset."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    found = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())
    assert found
    return int(found[1]) // 1024


if __name__ == "__main__":
    words = sys.argv[1:]
    at = Path(words[3]) if len(words) > 3 else Path(tempfile.mkdtemp(prefix="fuzz-"))
    main(*map(int, words[:3]), at, int(words[4]) if len(words) > 4 else None)
