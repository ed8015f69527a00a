"""The prepare phase against a bare `datasets.map` and save: CPU, wall time, memory, silence.

    python -m benchmarks.preparing [ROWS] [ROUNDS]

ROWS (200,000) short questions with answers, made by a seed. All sides read the same JSON lines with
the same tokenizer, one after another, each in a process of its own and in the environment of a
worker: `ftq` in as many processes as there are cores, `bare` with as many (num_proc), `bare alone`
in one. The bare sides tokenize and save, mask nothing and look at nothing. Imports count on all
sides. CPU seconds and memory (PSS) are those of a process with all below it; the silence is the
longest time without an event, from the start of the phase to its end.
"""

import json
import os
import random
import sys
import tempfile
import threading
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import psutil

from benchmarks.report import Table
from ftq_shared.events import EventType
from ftq_worker.host.environment import clean_environment
from ftq_worker.host.linux import usable_cores

WORDS = ("apple", "river", "stone", "cloud", "seven", "winter", "letter", "garden")
LOOK_S = 0.5  # between two looks at the memory
SIDES = ("ftq", "bare", "bare alone")
SILENCE = "silence"  # the file where ftq leaves it


def main() -> None:
    """Print all sides, and how ftq compares."""
    rows, rounds = (int(word) for word in (sys.argv[1:] + ["200000", "3"][len(sys.argv) - 1 :]))
    tables = [Table("CPU seconds"), Table("seconds"), Table("peak PSS, MB")]
    silence = Table("longest silence, seconds")
    with tempfile.TemporaryDirectory(prefix="ftq-bench-") as folder:
        file = write_rows(Path(folder) / "rows.jsonl", rows)
        for number in range(rounds):
            for side in SIDES:
                scratch = Path(folder) / f"{side}{number}"
                scratch.mkdir()
                spent = measured([sys.executable, "-m", __spec__.name, side, file, str(scratch)])
                print(
                    f"{side}: {spent[0]:.1f} CPU s, {spent[1]:.1f} s, {spent[2]:.0f} MB", flush=True
                )
                for table, value in zip(tables, spent, strict=True):
                    table.add(side, value)
                if side == "ftq":
                    silence.add(side, float((scratch / SILENCE).read_text()))
    print(f"{rows:,} rows, {usable_cores()} cores")
    for table in tables:
        table.show()
        for side in SIDES[1:]:
            print(f"  ftq to {side}: {table.median('ftq') / table.median(side):.2f}")
    silence.show()


def write_rows(path: Path, rows: int) -> str:
    """Write questions that all differ."""
    draw = random.Random(1)
    with path.open("w") as file:
        for number in range(rows):
            words = draw.choices(WORDS, k=8)
            row = {"question": f"{number}: {' '.join(words)}?", "answer": " ".join(words[::-1])}
            file.write(json.dumps(row) + "\n")
    return str(path)


def measured(command: list[str]) -> tuple[float, float, float]:
    """Return CPU seconds, wall seconds and peak PSS in MB of a command and its children."""
    started, peak, over = time.monotonic(), 0.0, threading.Event()
    process = psutil.Popen(command, env=clean_environment(os.environ))

    def look() -> None:
        nonlocal peak
        while not over.wait(LOOK_S):
            peak = max(peak, _pss(process))

    thread = threading.Thread(target=look)
    thread.start()
    before = _spent()
    code = process.wait()
    over.set()
    thread.join()
    assert code == 0, command
    return _spent() - before, time.monotonic() - started, peak / 1e6


def _spent() -> float:
    import resource

    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _pss(process: psutil.Process) -> float:
    total = 0.0
    try:
        for one in (process, *process.children(recursive=True)):
            total += one.memory_full_info().pss
    except psutil.Error:  # it has just ended
        pass
    return total


def ftq(file: str, scratch: Path) -> None:
    """Prepare the rows as a job does, and leave how long it was silent."""
    from tests.support.data_jobs import job_maker, make_tokenizer

    from ftq_worker.job.context import Devices

    heard: list[float] = []

    def emit(type_: EventType, /, **data: object) -> None:
        heard.append(time.monotonic())

    job = job_maker(scratch)(Path(file), make_tokenizer())
    ctx = replace(job.ctx, emit=emit, devices=Devices(cpu_threads=usable_cores()))
    heard.append(time.monotonic())
    replace(job, ctx=ctx).run()
    heard.append(time.monotonic())
    gaps = (later - before for before, later in pairwise(heard))
    (scratch / SILENCE).write_text(str(max(gaps)))


def bare(file: str, scratch: Path, processes: int | None) -> None:
    """Tokenize and save, as the shortest script does."""
    from datasets import disable_progress_bars, load_dataset
    from tests.support.data_jobs import make_tokenizer

    disable_progress_bars()
    tokenizer = make_tokenizer()

    def encode(batch: dict[str, list[str]]) -> dict[str, list[list[int]]]:
        pairs = zip(batch["question"], batch["answer"], strict=True)
        ids = tokenizer([f"{question}\n{answer}</s>" for question, answer in pairs])["input_ids"]
        return {"input_ids": ids, "labels": ids}

    rows = load_dataset("json", data_files=file, split="train", cache_dir=str(scratch / "cache"))
    made = rows.map(encode, batched=True, remove_columns=rows.column_names, num_proc=processes)
    made.save_to_disk(str(scratch / "saved"))


if __name__ == "__main__":
    if len(sys.argv) == 4 and sys.argv[1] in SIDES:
        side, rows_file, folder = sys.argv[1], sys.argv[2], Path(sys.argv[3])
        if side == "ftq":
            ftq(rows_file, folder)
        else:
            bare(rows_file, folder, usable_cores() if side == "bare" else None)
    else:
        main()
