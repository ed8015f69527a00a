"""The layouts that are known by their column names. A new one is one entry in `PATTERNS`."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from ftq_shared.spec import Task

Names = tuple[str, ...]  # of a part, the most usual one first

_TEXT: Names = (
    "text", "sentence", "utterance", "review", "content", "query", "comment", "document",
    "comment_text", "tweet", "body",
)  # fmt: skip
LABEL: Names = (
    "label", "labels", "intent", "category", "class", "sentiment", "target", "emotion", "topic",
    "rating", "stars", "score", "similarity_score",
)  # fmt: skip
_SYSTEM: Names = ("system", "system_prompt")
_REASONING: Names = (
    "reasoning", "reasoning_content", "thinking", "complex_cot", "cot", "chain_of_thought",
)  # fmt: skip
_TOOLS: Names = ("tools", "functions")
_CONVERSATION: Names = ("messages", "conversations", "conversation")

# What may stand beside a prompt, or beside a conversation.
BESIDE: dict[str, Names] = {
    "system": _SYSTEM,
    "context": ("context", "passage"),
    "history": ("history",),
    "reasoning": _REASONING,
    "tools": _TOOLS,
}
_BESIDE_CONVERSATION: dict[str, Names] = {"system": _SYSTEM, "tools": _TOOLS}

# Columns that say of a row's answer whether it is to be learned, where all their values are yes or
# no: some of them as true and false alone, because 0 and 1 may be a label to find.
ROW_WEIGHTS: Names = ("weight", "loss_weight", "sample_weight")
VERDICTS: Names = (
    *ROW_WEIGHTS, "is_correct", "correct", "is_good", "is_accepted", "accepted",
)  # fmt: skip
TRUE_OR_FALSE: Names = ("label", "kto_tag")

# Two texts that are classified together: the first and the second.
_PAIRS = (
    ("sentence1", "sentence2"),
    ("sentence_1", "sentence_2"),
    ("sentence_a", "sentence_b"),
    ("premise", "hypothesis"),
    ("question1", "question2"),
    ("text1", "text2"),
    ("text_a", "text_b"),
    ("question", "sentence"),
    ("question", "passage"),
    ("query", "document"),
    ("query", "passage"),
    ("claim", "evidence"),
)


@dataclass(frozen=True)
class Pattern:
    """One known layout: which names a part may have, and what its values must be."""

    name: str  # for people, for example question/answer
    task: Task
    parts: Mapping[str, Names]  # part of Columns -> its names
    lists: Names = ()  # parts whose values are lists of messages
    optional: Mapping[str, Names] = field(default_factory=dict)  # parts that need not be there


def _sft(name: str, prompt: Names, completion: Names, **optional: Names) -> Pattern:
    parts = {"prompt": prompt, "completion": completion}
    return Pattern(name, Task.SFT, parts, optional=BESIDE | optional)


def _pair(first: str, second: str) -> Pattern:
    parts = {"text": (first,), "text_pair": (second,), "label": LABEL}
    return Pattern(f"{first}/{second}/label", Task.CLASSIFICATION, parts)


_CHOICE: dict[str, Names] = {
    "chosen": ("chosen", "chosen_messages"),
    "rejected": ("rejected", "rejected_messages"),
}

# In which an answer stands that a list of messages lacks.
COMPLETIONS: Names = ("completion", "response", "answer", "output", "solution")

# The order decides where a dataset fits several.
PATTERNS = (
    Pattern(
        "prompt/chosen/rejected",
        Task.PREFERENCE,
        {"prompt": ("prompt", "question", "instruction", "input", "query"), **_CHOICE},
        optional={"system": _SYSTEM},
    ),
    Pattern(
        "messages/chosen/rejected",
        Task.PREFERENCE,
        {"messages": _CONVERSATION, **_CHOICE},
        lists=("messages",),
        optional={"system": _SYSTEM},
    ),
    Pattern("chosen/rejected", Task.PREFERENCE, _CHOICE),
    Pattern(
        "messages",
        Task.SFT,
        {"messages": ("messages",)},
        lists=("messages",),
        optional=_BESIDE_CONVERSATION,
    ),
    Pattern(
        "conversations",
        Task.SFT,
        {"messages": _CONVERSATION},
        lists=("messages",),
        optional=_BESIDE_CONVERSATION,
    ),
    _sft("prompt/completion", ("prompt",), ("completion", "response")),
    _sft("question/answer", ("question",), ("answer", "response")),
    _sft(
        "instruction/input/output",
        ("instruction",),
        ("output", "response", "answer"),
        context=("input", "context"),
    ),
    Pattern(
        "query/tools/answers",
        Task.SFT,
        {"prompt": ("query", "question"), "tools": _TOOLS, "completion": ("answers",)},
        optional={"system": _SYSTEM},
    ),
    _sft("input/output", ("input", "query", "problem"), ("output", "response", "solution")),
    _sft(
        "document/summary",
        ("document", "article", "dialogue", "text", "source"),
        ("summary", "highlights", "abstract"),
    ),
    _sft("source/target", ("source", "input", "inputs"), ("target", "targets")),
    *(_pair(first, second) for first, second in _PAIRS),
    Pattern("text/label", Task.CLASSIFICATION, {"text": _TEXT, "label": LABEL}),
    _sft("text/target", ("text", "sentence", "query"), ("target", "label")),
    Pattern("text", Task.TEXT, {"text": _TEXT}),
)
