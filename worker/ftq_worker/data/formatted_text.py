"""Texts with the marks of a chat format: a chat template would write its own around them."""

import re

from ftq_shared.errors import Refused
from ftq_worker.data.examples import Example

MOST = 0.5  # share of the rows from which on it is the format of the dataset, and no chance
# As chat templates and prompt formats write them: ChatML, Llama 2 and 3, Gemma, Phi and Zephyr,
# DeepSeek, Alpaca and Guanaco, Vicuna; and the ends of texts.
_MARK = re.compile(
    r"<\|im_(?:start|end)\|>(?:system|user|assistant)?"
    r"|\[/?INST\]|<</?SYS>>"
    r"|<\|(?:begin_of_text|start_header_id|eot_id|end_of_text|endoftext)\|>"
    r"|<(?:start|end)_of_turn>"
    r"|<\|(?:system|user|assistant|end)\|>"
    r"|<｜(?:User|Assistant|end▁of▁sentence)｜>"  # noqa: RUF001 - as DeepSeek writes them
    r"|^###+ ?(?:Instruction|Response|Human|Assistant|User):"
    r"|\A\s*(?:Human|USER): |(?:Assistant|ASSISTANT):\s*\Z"
    r"|\A\s*(?:<s>|<bos>)|(?:</s>|<eos>)\s*\Z",
    re.MULTILINE,
)
# One of these stands in every mark; looking for them is quick.
_PARTS = (
    "<|", "INST]", "SYS>>", "_of_turn>", "<｜", "###", "Human:", "USER:",  # noqa: RUF001
    "ssistant:", "SSISTANT:", "<s>", "</s>", "<bos>", "<eos>",
)  # fmt: skip


def mark_in(example: Example) -> str:
    """Return the first mark of a chat format in what people and model say, '' for none."""
    for message in example.messages:
        text = message.get("content") or ""
        if message["role"] == "tool" or not any(part in text for part in _PARTS):
            continue
        if found := _MARK.search(text):
            return found[0].strip()
    return ""


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
