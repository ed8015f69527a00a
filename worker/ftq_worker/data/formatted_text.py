"""Texts with the marks of a chat format: a chat template would write its own around them."""

import re

from ftq_shared.errors import Refused
from ftq_worker.data.examples import Example

MOST = 0.5  # share of the rows from which on it is the format of the dataset, and no chance
# As chat templates and prompt formats write their turns: ChatML, Llama 2 and 3, Gemma, Phi and
# Zephyr, DeepSeek, Alpaca and Guanaco. Each pattern begins with what is looked for first.
_TURNS = {
    part: re.compile(pattern)
    for part, pattern in {
        "<|": r"<\|(?:im_start\|>(?:system|user|assistant)?|im_end\|>|start_header_id\|>|eot_id\|>"
        r"|(?:system|user|assistant|end)\|>)",
        "[INST]": r"\[INST\]",
        "_of_turn>": r"<(?:start|end)_of_turn>",
        "<\uff5c": "<\uff5c(?:User|Assistant)\uff5c>",
        "###": r"###+ ?(?:Instruction|Response|Human|Assistant|User):",
    }.items()
}
# With what a text begins or ends that somebody has put together for a model.
_STARTS = ("<s>", "<bos>", "<|begin_of_text|>", "Human: ", "USER: ")
_ENDS = ("</s>", "<eos>", "<|endoftext|>", "<|end_of_text|>", "Assistant:", "ASSISTANT:", "\n###")


def turn_in(text: str) -> str:
    """Return the first mark of a turn of a chat, '' for none."""
    for part, pattern in _TURNS.items():
        if part in text and (match := pattern.search(text)):
            return match[0]
    return ""


def mark_in(example: Example) -> str:
    """Return the first mark of a chat format in what people and model say, '' for none."""
    for message in example.messages:
        text = (message.get("content") or "").strip()
        if message["role"] == "tool":
            continue
        if text.startswith(_STARTS):
            return next(part for part in _STARTS if text.startswith(part)).strip()
        if text.endswith(_ENDS):
            return next(part for part in _ENDS if text.endswith(part)).strip()
        if found := turn_in(text):
            return found
    return turn_in(example.text)


def marked_words(marked: int, rows: int, mark: str) -> str:
    """Return how many rows are formatted already."""
    return (
        f"{marked:,} of {rows:,} rows hold marks of a chat format, for example {mark!r}, and the"
        " chat template writes its own around them"
    )


def mend(marked: int, rows: int) -> str:
    """Return what to do about it."""
    if marked > MOST * rows:
        return (
            "--set data.format=plain trains the texts as they are; with plain words in the rows the"
            " chat template writes the marks"
        )
    return "take the marks out of these rows, unless the rows are about such formats"


def refuse_marked(marked: int, rows: int, mark: str) -> None:
    """Raise Refused (`formatted_text`) where the marks stand in most of the rows."""
    if marked > MOST * rows:
        raise Refused(
            marked_words(marked, rows, mark),
            code="formatted_text",
            hint=f"{mend(marked, rows)}; to go on like this: --set data.allow=formatted_text",
            field="data.format",
        )
