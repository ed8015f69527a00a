"""Rows of every layout that ftq reads, and what may be wrong with them; seeded."""

import copy
import json
import math
import random
from collections.abc import Callable
from typing import Any

from tests.support import hostile

Row = dict[str, Any]
_THINGS = ("river", "bridge", "tower", "garden", "harbour", "valley", "mill", "square")
_PLACES = ("Lyon", "Porto", "Graz", "Turku", "Bari", "Ghent", "Zürich", "Łódź")


def _asked(n: int) -> str:
    return f"What is the {_THINGS[n % 8]} number {n} of {_PLACES[n // 8 % 8]} called?"


def _answer(n: int) -> str:
    return f"People there call it the {_PLACES[n % 8]} {_THINGS[n // 3 % 8]}, since {1500 + n}."


def _chat(n: int) -> list[Row]:
    turns = [
        {"role": "user", "content": _asked(n)},
        {"role": "assistant", "content": _answer(n)},
    ]
    return [{"role": "system", "content": "Be short."}, *turns] if n % 2 else turns


def _sharegpt(n: int) -> list[Row]:
    names = {"user": "human", "assistant": "gpt", "system": "system"}
    return [{"from": names[m["role"]], "value": m["content"]} for m in _chat(n)]


def _with_tools(n: int) -> Row:
    tool = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
    call = {"type": "function", "function": {"name": "look", "arguments": {"n": n}}}
    turns = [
        {"role": "user", "content": _asked(n)},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": json.dumps({"name": _answer(n)})},
        {"role": "assistant", "content": _answer(n)},
    ]
    return {"messages": turns, "tools": [tool]}


# One row by its number, for each layout.
LAYOUTS: dict[str, Callable[[int], Row]] = {
    "messages": lambda n: {"messages": _chat(n)},
    "messages as text": lambda n: {"messages": json.dumps(_chat(n))},
    "sharegpt": lambda n: {"conversations": _sharegpt(n)},
    "sharegpt with system": lambda n: {"system": f"Town {n}.", "conversations": _sharegpt(n)},
    "tools": _with_tools,
    "tools as text": lambda n: {key: json.dumps(part) for key, part in _with_tools(n).items()},
    "prompt": lambda n: {"prompt": _asked(n), "completion": _answer(n)},
    "question": lambda n: {"id": n, "question": _asked(n), "answer": _answer(n)},
    "prompt messages": lambda n: {"prompt": _chat(n)[:-1], "completion": _chat(n)[-1:]},
    "alpaca": lambda n: {
        "instruction": _asked(n),
        "input": f"It lies in region {n}." if n % 3 else "",
        "output": _answer(n),
        "system": "Be exact.",
        "history": [[_asked(n + 100), _answer(n + 100)]] if n % 4 == 0 else [],
    },
    "context": lambda n: {"context": f"Book {n}.", "question": _asked(n), "answer": _answer(n)},
    "summary": lambda n: {
        "document": " ".join(map(_answer, range(n, n + 4))),
        "summary": _asked(n),
    },
    "text": lambda n: {"text": f"{_asked(n)} {_answer(n)}"},
    "labels": lambda n: {"text": _answer(n), "label": ("old", "new", "none")[n % 3]},
    "numbered labels": lambda n: {"sentence": _asked(n), "label": n % 2},
    "flags": lambda n: {"review": _asked(n), "label": n % 2 == 0},
    "pairs": lambda n: {"premise": _asked(n), "hypothesis": _answer(n), "label": n % 3},
    "choice": lambda n: {"prompt": _asked(n), "chosen": _answer(n), "rejected": _answer(n + 1)},
    "choice of messages": lambda n: {"chosen": _chat(n), "rejected": _chat(n + 2)},
    "kto": lambda n: {"prompt": _asked(n), "completion": _answer(n), "label": n % 5 > 0},
}


def make_rows(chance: random.Random, layout: str, count: int) -> list[Row]:
    """Return rows of a layout, all different."""
    start = chance.randrange(1000)
    return [LAYOUTS[layout](start + n) for n in range(count)]


# -- what may be wrong with rows


ODD: list[Any] = [
    *hostile.VALUES,
    math.nan,
    -0.0,
    5,
    2**64,
    [None],
    {"": {"": None}},
    "\ufeff",
    "\u2028",
    " \t ",
    "<s></s><|im_end|>",
    "{{ 7*7 }}",
    [{"role": None, "content": None}],
    {"role": "user"},
    [["a"]],
    "[1, ",
]


def _places(value: Any, found: list[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
    """Return every place within a row at which a value stands: its holder and its key."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in list(items):
        found.append((value, key))
        if isinstance(inner, dict | list):
            _places(inner, found)
    return found


def odd_value(chance: random.Random, rows: list[Row]) -> None:
    """Put something strange somewhere into some rows, at any depth."""
    for row in chance.choices(rows, k=chance.choice([1, 1, 3, len(rows)])):
        holder, key = chance.choice(_places(row, []) or [(row, "odd")])
        holder[key] = copy.deepcopy(chance.choice(ODD))


def odd_column(chance: random.Random, rows: list[Row]) -> None:
    """Put the same strange thing into one column of all rows."""
    columns = [name for name in _columns(rows) if not name.startswith("planted")]
    column, value = chance.choice(columns or ["odd"]), chance.choice(ODD)
    for row in rows:
        row[column] = copy.deepcopy(value)


def key_gone(chance: random.Random, rows: list[Row]) -> None:
    for row in chance.choices(rows, k=chance.choice([1, 5, len(rows)])):
        places = [(at, key) for at, key in _places(row, []) if isinstance(at, dict)]
        if places:
            at, key = chance.choice(places)
            at.pop(key, None)


def column_renamed(chance: random.Random, rows: list[Row]) -> None:
    old = chance.choice(_columns(rows))
    new = chance.choice(
        ["planted_name", f"{old} ", old.upper(), "label", "text", "", "input", "x" * 300]
    )
    for row in rows:
        if old in row:
            row[new] = row.pop(old)


def column_added(chance: random.Random, rows: list[Row]) -> None:
    """Add a column that no layout has, with texts of its own."""
    name = f"planted_{chance.randrange(100)}"
    for n, row in enumerate(rows):
        row[name] = f"zq{n}x{chance.randrange(10**9)}"


def columns_late(chance: random.Random, rows: list[Row]) -> None:
    """Let a column begin in the middle."""
    for row in rows[len(rows) // 2 :]:
        row["planted_late"] = f"zl{chance.randrange(10**9)}"


def doubled(chance: random.Random, rows: list[Row]) -> None:
    some = [json.loads(json.dumps(row)) for row in chance.choices(rows, k=len(rows))]
    rows.extend(some if chance.random() < 0.7 else some * 20)


def nearly_doubled(chance: random.Random, rows: list[Row]) -> None:
    rows.extend(json.loads(json.dumps(row).replace("since", "from about")) for row in rows[:9])


def few(chance: random.Random, rows: list[Row]) -> None:
    del rows[chance.choice([0, 1, 2, 3]) :]


def long_text(chance: random.Random, rows: list[Row]) -> None:
    row = chance.choice(rows)
    for key, value in row.items():
        if isinstance(value, str):
            row[key] = value * chance.choice([200, 3000])


def other_layout(chance: random.Random, rows: list[Row]) -> None:
    """Let some rows have the columns of another layout."""
    rows[: chance.randrange(1, 9)] = make_rows(chance, chance.choice(list(LAYOUTS)), 4)


def no_rows(chance: random.Random, rows: list[Row]) -> None:
    """Put what is no row among the rows."""
    for _ in range(chance.randrange(1, 6)):
        rows.insert(chance.randrange(len(rows) + 1), chance.choice([None, [], "x", 7, {}, [{}]]))  # type: ignore[arg-type]


def deep(chance: random.Random, rows: list[Row]) -> None:
    depth, inner = chance.choice([50, 300, 900]), {"a": "b"}
    for _ in range(depth):
        inner = {"a": inner} if chance.random() < 0.5 else [inner]  # type: ignore[dict-item, assignment]
    row = chance.choice(rows)
    row[chance.choice([*row, "deep"])] = inner


def _columns(rows: list[Row]) -> list[str]:
    return list(dict.fromkeys(column for row in rows for column in row)) or ["none"]


Mutator = Callable[[random.Random, list[Row]], None]
MUTATORS: tuple[Mutator, ...] = (
    odd_value,
    odd_value,
    odd_value,
    odd_column,
    key_gone,
    column_renamed,
    column_added,
    columns_late,
    doubled,
    nearly_doubled,
    few,
    long_text,
    other_layout,
    no_rows,
    deep,
)


def mutated(chance: random.Random, rows: list[Row]) -> list[str]:
    """Change rows in place; returns what was done."""
    done = []
    planted = [column_added] * (chance.random() < 0.3)
    for mutator in [*planted, *chance.choices(MUTATORS, k=chance.choice([0, 1, 1, 2]))]:
        if all(isinstance(row, dict) for row in rows) and rows:
            mutator(chance, rows)
            done.append(mutator.__name__)
    return done
