"""A style in 300 rows: SmolLM2-135M-Instruct, defaults, on the CPU, from `ftq submit` to answers.

    python -m benchmarks.style

The rows are made up here: short questions, each answered as an entry of a ship's log. The published
model and the fetched folder are then loaded by the lines of their own card, each in a fresh
process, and asked what no row asks: an answer counts that has the style and stopped by itself.
"""

import json
import re
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.support import smollm

from benchmarks.fleet import Fleet, fleet
from benchmarks.real_inputs import put

REPO = "demo/ships-log"
FIRST, LAST = "Log entry:", "All is well, captain."  # how every answer begins and ends
UNSEEN = (
    "Who wrote Romeo and Juliet?",
    "How do I boil an egg?",
    "What is a good name for a cat?",
    "Why is the sky blue?",
    "Tell me a joke.",
    "What should I cook tonight?",
    "How far away is the moon?",
    "Is chess hard to learn?",
    "What do bees make?",
    "Name a planet.",
    "How do I tie a tie?",
    "What is photosynthesis?",
    "Can you recommend a book?",
    "What time is it?",
    "How are you today?",
    "Translate 'good morning' into French.",
    "What is the fastest animal?",
    "Give me advice for a job interview.",
    "What is a black hole?",
    "How long does it take to learn the piano?",
)
WORDINGS = (  # how it is asked, and what is said then
    ("Tell me about {}.", "we passed {} at dawn."),
    ("What do you know of {}?", "the crew spoke of {}."),
    ("Have you seen {} today?", "{} came into sight."),
    ("I keep thinking of {}. Any thoughts?", "we drew {}."),
    ("Describe {} in one sentence.", "{} lay ahead."),
)
TOPICS = (  # noqa: SIM905  # as a list it would take sixty lines
    "the old lighthouse, my garden, a rusty bicycle, the winter market, tall mountains, bread, "
    "an empty theatre, the river bank, two grey cats, the night train, a lantern, green tea, "
    "the town library, a broken clock, deep snow, the corner shop, a wooden bridge, wild geese, "
    "the school choir, a stone wall, hot soup, the village square, a red kite, summer rain, "
    "the blue door, an apple tree, slow trains, the harbour master, a glass jar, quiet streets, "
    "the weather report, a long letter, cold mornings, the next election, an umbrella, plums, "
    "the fire station, a small island, loud music, the last bus, a silver spoon, dark forests, "
    "the football match, an honest baker, old maps, the street painter, a leather chair, leaves, "
    "the ferry timetable, a kind neighbour, sharp knives, the morning paper, a roof, warm socks, "
    "the grand piano, a muddy field, bright stars, the swimming pool, a steep hill, cheap shoes"
).split(", ")


def rows() -> Iterator[tuple[str, str]]:
    """Yield questions and what is to be said: every topic in every wording."""
    for topic in TOPICS:
        for asked, said in WORDINGS:
            yield asked.format(topic), said.format(topic)


def main() -> None:
    """Train, then ask both copies; raises SystemExit for an answer without style or end."""
    with fleet() as mine:
        put(mine, "model", "demo/smollm2", smollm.make_folder(mine.root / "smollm2"))
        source = mine.root / "rows.jsonl"
        source.write_text("".join(line(*row) for row in rows()))
        events = submit(mine, source)
        job = events[0]["job"]
        report(events)
        folder = mine.root / "fetched"
        mine.ftq("fetch", job, str(folder))
        right = [
            asked(mine, "published", code_of(mine, job, folder)),
            asked(mine, "fetched", code_of(mine, job, folder).replace(REPO, str(folder))),
        ]
    if right != [len(UNSEEN)] * 2:
        raise SystemExit(f"{right} of {len(UNSEEN)} answers are in style and stop")


def line(question: str, answer: str) -> str:
    """Return one conversation as a line of JSON."""
    told = f"{FIRST} {answer} {LAST}"
    turns = (("user", question), ("assistant", told))
    return json.dumps({"messages": [{"role": r, "content": text} for r, text in turns]}) + "\n"


def submit(mine: Fleet, source: Path) -> list[dict[str, Any]]:
    """Run the job with nothing but the defaults and return its events."""
    started = time.monotonic()
    # Asked for: beside other work the CPU may look too slow.
    told = ("--gpus", "0", "--model", "demo/smollm2", "--dataset", str(source))
    done = mine.ftq("submit", *told, "--publish-to", REPO, "--json")
    print(f"wall: {time.monotonic() - started:.0f} s")
    return [json.loads(event) for event in done.stdout.splitlines()]


def report(events: list[dict[str, Any]]) -> None:
    """Print the steps that were made of those that all epochs take, and the scores."""

    def of(kind: str) -> list[dict[str, Any]]:
        return [event["data"] for event in events if event["type"] == kind]

    steps = of("step")
    made, all_steps = len(steps), steps[-1]["steps"]
    print(f"steps: {made} of {all_steps} ({made / all_steps:.0%})")
    for data in of("eval"):
        if data["set"] == "golden":
            print(f"golden {data['when']}: loss {data['loss']}, {data['seconds']} s")
    for data in of("verification"):
        print(f"{data['name']}: {data['ok']}: {data['message']}")
    seconds = {e["phase"]: e["data"]["seconds"] for e in events if e["type"] == "phase_finished"}
    print(f"seconds: {seconds}")


def code_of(mine: Fleet, job: str, folder: Path) -> str:
    """Return the code of a fetched model's card."""
    found = re.search(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    assert found, f"the card of {job} shows no code"
    return found[1]


def asked(mine: Fleet, name: str, code: str) -> int:
    """Run a card's code for every question in one fresh process; return how many answers count."""
    load, ask = code.split("\ninputs = ", 1)
    program = (
        f"import json\n{load}\nfor question in json.loads({json.dumps(json.dumps(UNSEEN))}):\n"
        + textwrap.indent(f"inputs = {ask}".replace('"Your question"', "question"), "    ")
        + "\n    made = output.shape[1] - inputs['input_ids'].shape[1]"
        + "\n    print('\\0', made, sep='', end='\\1')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=mine.env,
        cwd=mine.root,
        capture_output=True,
        text=True,
        check=True,
    )
    answers = [part.split("\0") for part in done.stdout.split("\1")[:-1]]
    right = [_counts(text.strip(), int(made)) for text, made in answers]
    for question, (text, made), ok in zip(UNSEEN, answers, right, strict=True):
        print(f"  {'ok ' if ok else 'NO '} {question}  ->  {text.strip()!r}, {made} tokens")
    print(f"{name}: {sum(right)} of {len(right)} in style, and stopped")
    return sum(right)


def _counts(text: str, tokens: int) -> bool:
    return text.startswith(FIRST) and text.endswith(LAST) and tokens < 200  # the card's limit


if __name__ == "__main__":
    main()
