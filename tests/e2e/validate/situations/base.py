"""What a situation is, and what many of them are made of."""

import json
from dataclasses import dataclass, field
from typing import Any

CHAT = (
    "{% if tools %}TOOLS {{ tools | tojson }}\n{% endif %}{% for m in messages %}<|im_start|>"
    "{{ m['role'] }}\n{{ m['content'] }}{% for c in m['tool_calls'] or [] %}CALL "
    "{{ c['function']['name'] }} {{ c['function']['arguments'] | tojson }}{% endfor %}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LEAVES_OUT = (
    "{% for m in messages %}{% if m['role'] != 'system' %}<|im_start|>{{ m['role'] }}\n"
    "{{ m['content'] }}<|im_end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
ROWS = 40
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
LONG = "A page of text that says what the town is called and which river runs through it."


@dataclass(frozen=True)
class Situation:
    """What a person brings, and what must come of it."""

    name: str
    rows: Any = None  # one row (numbered with @ in its texts), a list of rows, or none
    files: dict[str, Any] = field(default_factory=dict)  # instead of rows
    spec: dict[str, Any] = field(default_factory=dict)
    encoder: bool = False
    chat: Any = None  # the decoder's chat template where it is not CHAT
    used: tuple[str, ...] = ()
    trained: tuple[str, ...] = ()
    unseen: tuple[str, ...] = ()  # in no text that the model sees
    unlearned: tuple[str, ...] = ()
    told: str = ""  # in a warning or a check
    code: str = ""  # of the refusal
    words: str = ""  # in it, or in its hint


def user(text: str = "q @") -> dict[str, Any]:
    return {"role": "user", "content": text}


def gpt(text: str | None = "a @", **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": text, **more}


def numbered(row: Any, number: int) -> Any:
    """Return a row with each @ in its texts replaced by the number."""
    return json.loads(json.dumps(row).replace("@", str(number)))


CALL = [{"id": "c@", "type": "function", "function": {"name": "weather", "arguments": "{}"}}]
PAIR = {"text": "alpha @", "label": "x"}


def labelled(label: Any, **more: Any) -> list[dict[str, Any]]:
    return [{"text": f"alpha {n}", "label": label(n), **more} for n in range(ROWS)]


def lines(*rows: str) -> str:
    return "".join(f"{row}\n" for row in rows)


CSV = lines("question,answer", *(f"q {n},a {n}" for n in range(ROWS)))
JSONL = lines(*(json.dumps({"question": f"q {n}", "answer": f"a {n}"}) for n in range(ROWS)))
