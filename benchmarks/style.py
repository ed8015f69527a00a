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

ROWS = 300
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
CAPITALS = (
    "France Paris, Spain Madrid, Italy Rome, Japan Tokyo, Egypt Cairo, Peru Lima, Norway Oslo, "
    "Cuba Havana, Kenya Nairobi, Greece Athens, Poland Warsaw, Chile Santiago, Canada Ottawa, "
    "Austria Vienna, Ireland Dublin, Sweden Stockholm, Finland Helsinki, Portugal Lisbon, "
    "Hungary Budapest, Turkey Ankara, China Beijing, Russia Moscow, Iran Tehran, Iraq Baghdad, "
    "Nepal Kathmandu, Thailand Bangkok, Vietnam Hanoi, Ghana Accra, Qatar Doha, Jordan Amman"
)
OPPOSITES = (
    "hot cold, big small, fast slow, old young, high low, light dark, wet dry, full empty, "
    "rich poor, hard soft, loud quiet, early late, near far, open closed, strong weak, fat thin, "
    "sweet sour, true false, clean dirty, deep shallow, happy sad, first last, left right, in out, "
    "day night, summer winter, begin end, give take, buy sell, push pull"
)
YOUNG = (
    "dog puppy, cat kitten, cow calf, horse foal, sheep lamb, goat kid, pig piglet, bear cub, "
    "lion cub, deer fawn, duck duckling, goose gosling, hen chick, swan cygnet, frog tadpole, "
    "owl owlet, kangaroo joey, seal pup, rabbit kit, eagle eaglet"
)


def pairs(text: str) -> list[list[str]]:
    """Return the pairs of words of a list."""
    return [pair.split() for pair in text.split(", ")]


def rows() -> Iterator[tuple[str, str]]:
    """Yield questions and what is to be said: 80 facts in two wordings, and sums."""
    for country, city in pairs(CAPITALS):
        yield f"What is the capital of {country}?", f"the capital of {country} is {city}."
        yield f"Which city governs {country}?", f"{country} is governed from {city}."
    for word, other in pairs(OPPOSITES):
        yield f"What is the opposite of {word}?", f"the opposite of {word} is {other}."
        yield f"Give me a word that means the reverse of {word}.", f"that word is {other}."
    for animal, young in pairs(YOUNG):
        yield f"What is a young {animal} called?", f"a young {animal} is called a {young}."
        yield f"I saw a baby {animal}. What is its name?", f"a {young}, child of a {animal}."
    for n in range(70):
        one, two = 3 * n % 47 + 2, 7 * n % 31 + 1
        yield f"What is {one} plus {two}?", f"{one} plus {two} makes {one + two}."
        yield f"Add {two + 9} to {one}.", f"the sum is {one + two + 9}."


def main() -> None:
    """Train, then ask both copies; exits 1 where an answer lacks the style or does not stop."""
    with fleet() as mine:
        put(mine, "model", "demo/smollm2", smollm.make_folder(mine.root / "smollm2"))
        source = mine.root / "rows.jsonl"
        source.write_text("".join(line(*row) for row in list(rows())[:ROWS]))
        events = submit(mine, source)
        job = events[0]["job"]
        report(events)
        folder = mine.root / "fetched"
        mine.ftq("fetch", job, str(folder))
        right = [
            asked(mine, "published", code_of(mine, job, folder)),
            asked(mine, "fetched", code_of(mine, job, folder).replace(REPO, str(folder))),
        ]
    sys.exit(0 if right == [len(UNSEEN)] * 2 else 1)


def line(question: str, answer: str) -> str:
    """Return one conversation as a line of JSON."""
    told = f"{FIRST} {answer} {LAST}"
    turns = (("user", question), ("assistant", told))
    return json.dumps({"messages": [{"role": r, "content": text} for r, text in turns]}) + "\n"


def submit(mine: Fleet, source: Path) -> list[dict[str, Any]]:
    """Run the job with nothing but the defaults and return its events."""
    started = time.monotonic()
    told = ("--model", "demo/smollm2", "--dataset", str(source), "--publish-to", REPO)
    done = mine.ftq("submit", *told, "--json")
    print(f"wall: {time.monotonic() - started:.0f} s")
    return [json.loads(event) for event in done.stdout.splitlines()]


def report(events: list[dict[str, Any]]) -> None:
    """Print the steps that were made of those that all epochs take, and the scores."""
    of = lambda kind: [e["data"] for e in events if e["type"] == kind]  # noqa: E731
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
