"""All figures of a card in one command: `python -m benchmarks.gpu [PART ...]`.

    --out DIR      where results.jsonl goes (build/gpu)
    --rehearse     try the kit on the CPU with tiny models; its figures mean nothing
    --limit S      start no further measurement after so many seconds (540)

PARTs: throughput, memory. Each measurement stands by itself: one that fails is told, kept in the
results, and the next one begins. The exit code is 1 if one failed.
"""

import argparse
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.gpu import child, memory, throughput
from benchmarks.gpu.card import Card, find_card, versions

# How a measurement is made and told, and what of.
Part = tuple[
    Callable[[Any, Card, Path], dict[str, Any]], Callable[[dict[str, Any]], str], Sequence[Any]
]


def parts_of(card: Card) -> dict[str, Part]:
    """Return what is measured on a card; on the CPU only what a rehearsal can do."""
    models = ("llama-3-8b", "qwen2.5-7b") if card.gpus else ("tiny",)
    cases = memory.CASES if card.gpus else memory.REHEARSED
    return {
        "throughput": (throughput.measure, throughput.words, models),
        "memory": (memory.measure, memory.words, cases),
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print and keep the figures; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART")
    parser.add_argument("--out", type=Path, default=Path("build/gpu"))
    parser.add_argument("--rehearse", action="store_true")
    parser.add_argument("--limit", type=float, default=540)
    args = parser.parse_args(argv)
    card = find_card(args.rehearse)
    parts = parts_of(card)
    if unknown := set(args.parts) - set(parts):
        parser.error(f"no such part: {', '.join(sorted(unknown))}; there are {', '.join(parts)}")
    args.out.mkdir(parents=True, exist_ok=True)
    results = args.out / "results.jsonl"
    _keep(results, {"part": "card", **asdict(card), "versions": versions()})
    print(f"{card.name}, {card.memory_gb:.0f} GB, {card.gpus} of them; {versions()}", flush=True)
    started, failed = time.monotonic(), 0
    scratch = Path(tempfile.mkdtemp(prefix="ftq-gpu-"))
    try:
        for part in args.parts or parts:
            measure, words, cases = parts[part]
            for case in cases:
                spent = time.monotonic() - started
                if spent > args.limit:
                    print(f"{part} {case}: left out after {spent:.0f} s", flush=True)
                    _keep(results, {"part": part, "case": str(case), "left_out": True})
                    continue
                made = partial(measure, case, card, scratch)
                failed += not _one(results, part, case, made, words)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return int(failed > 0)


def _one(
    results: Path,
    part: str,
    case: Any,
    measure: Callable[[], dict[str, Any]],
    words: Callable[[dict[str, Any]], str],
) -> bool:
    """Make one measurement; return whether it could be made."""
    started = time.monotonic()
    try:
        figures = measure()
    except (child.Failed, OSError) as error:
        print(f"{part} {case}: FAILED\n{error}", flush=True)
        _keep(results, {"part": part, "case": str(case), "failed": str(error)})
        return False
    seconds = round(time.monotonic() - started, 1)
    _keep(results, {"part": part, "seconds": seconds, **figures})
    print(f"{words(figures)}; took {seconds:.0f} s", flush=True)
    return True


def _keep(results: Path, figures: dict[str, Any]) -> None:
    with results.open("a") as file:
        file.write(json.dumps(figures) + "\n")


if __name__ == "__main__":
    raise SystemExit(main())
