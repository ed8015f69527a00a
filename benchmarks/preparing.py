"""The prepare phase against a bare `datasets.map` and save: CPU seconds, wall time, memory.

    python -m benchmarks.preparing [ROWS] [ROUNDS]

ROWS (200,000) short questions with answers, made by a seed. Both sides read the same JSON lines
with the same tokenizer, on the cores that they use by themselves, each in a process of its own; the
bare side tokenizes and saves, masks nothing and looks at nothing. Imports count on both sides.
"""

import json
import random
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil

from benchmarks.report import Table

WORDS = ("apple", "river", "stone", "cloud", "seven", "winter", "letter", "garden")
LOOK_S = 0.2  # between two looks at the memory


def main() -> None:
    """Print both sides and their ratios."""
    rows, rounds = (int(word) for word in (sys.argv[1:] + ["200000", "3"][len(sys.argv) - 1 :]))
    cpu, wall, memory = Table("CPU seconds"), Table("seconds"), Table("peak PSS, MB")
    with tempfile.TemporaryDirectory(prefix="ftq-bench-") as folder:
        file = write_rows(Path(folder) / "rows.jsonl", rows)
        for number in range(rounds):
            for side in ("ftq", "bare"):
                scratch = Path(folder) / f"{side}{number}"
                spent = measured([sys.executable, "-m", __spec__.name, side, file, str(scratch)])
                for table, value in zip((cpu, wall, memory), spent, strict=True):
                    table.add(side, value)
    for table in (cpu, wall, memory):
        table.show()
        print(f"  ratio {table.median('ftq') / table.median('bare'):.2f}")


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
    process = psutil.Popen(command)

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
    """Prepare the rows as a job does, without events for anybody."""
    from tests.support.data_jobs import job_maker, make_tokenizer

    job_maker(scratch)(Path(file), make_tokenizer()).run()


def bare(file: str, scratch: Path) -> None:
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
    made = rows.map(encode, batched=True, remove_columns=rows.column_names)
    made.save_to_disk(str(scratch / "saved"))


if __name__ == "__main__":
    if len(sys.argv) == 4 and sys.argv[1] in ("ftq", "bare"):
        {"ftq": ftq, "bare": bare}[sys.argv[1]](sys.argv[2], Path(sys.argv[3]))
    else:
        main()
