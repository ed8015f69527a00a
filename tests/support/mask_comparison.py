"""What ftq trains of a conversation beside what TRL trains of it, token by token.

TRL's mask is that of `assistant_only_loss`: `apply_chat_template` with
`return_assistant_tokens_mask` on the marked template. A difference that is none of `Difference`
raises AssertionError.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from itertools import groupby
from typing import Any

from jinja2 import TemplateError

from ftq_shared.spec import JobSpec, Task
from ftq_worker.data.chat_messages import as_seen
from ftq_worker.data.cleaning import RowProblem
from ftq_worker.data.columns import detect_layout
from ftq_worker.data.examples import Example, example_maker
from ftq_worker.data.records import IGNORED
from ftq_worker.data.render import ChatRenderer
from ftq_worker.data.tokenizing import make_encoder
from tests.support.chat_templates import STYLES, tokenizer_of

_WORDS = ["the", "river", "Öre", "3 km", "isn't", "it?", "日本", "🙂", "a\nnew", "line,", "e\u0301"]
_WORDS += ["<b>", "{{ x }}", "\u00a0", "שלום", "</", "<think", "|>"]
_BLANKS = ["", "", "", "", " ", "\n", "\n\n", "  \n\n", "\t"]
_TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Says it.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}


class Difference(StrEnum):
    """Why a conversation is trained otherwise than TRL would."""

    AFTER = "the line break behind an end of turn"
    OPENING = "what the prompt of the answer writes"
    CLOSING = "a token behind the end of the conversation"
    BORDER = "a token that reaches over the beginning of an answer"
    WEIGHT = "answers of weight 0"
    EARLIER = "earlier answers, where the template drops their thoughts"
    THOUGHTS = "thoughts in a field of their own"
    BOTH_REFUSE = "the template refuses it, in both"


@dataclass(frozen=True)
class Masked:
    """The tokens of a conversation, and which of them are trained."""

    ids: list[int]
    trained: list[bool]

    def runs(self) -> Iterator[tuple[int, int]]:
        """Yield the range of each run of trained tokens."""
        for trained, run in groupby(range(len(self.ids)), lambda at: self.trained[at]):
            places = list(run)
            if trained:
                yield places[0], places[-1] + 1


def random_row(seed: int, tools: bool) -> dict[str, Any]:
    """Return a row as people have them: thoughts, weights, blanks, and perhaps tools."""
    pick = random.Random(seed)
    row: dict[str, Any] = {"messages": []}
    messages = row["messages"]
    if pick.random() < 0.3:
        messages.append({"role": "system", "content": _text(pick)})
    calls, thinks = tools and pick.random() < 0.3, pick.choice(["no", "no", "content", "field"])
    if calls:
        row["tools"] = [_TOOL]
    turns = pick.randrange(1, 5)
    for turn in range(turns):
        messages.append({"role": "user", "content": _text(pick)})
        if calls and pick.random() < 0.6:
            call = {"name": "weather", "arguments": {"city": _text(pick)}}
            asked = {"role": "assistant", "content": pick.choice(["", _text(pick)])}
            messages.append(asked | {"tool_calls": [{"type": "function", "function": call}]})
            messages.append({"role": "tool", "content": _text(pick)})
        answer = {"role": "assistant", "content": _text(pick)}
        if thinks == "content" and pick.random() < 0.8:
            answer["content"] = f"<think>\n{_text(pick)}\n</think>\n\n{answer['content']}"
        elif thinks == "field" and pick.random() < 0.8:
            answer["reasoning_content"] = _text(pick)
        if turn < turns - 1 and pick.random() < 0.15:
            answer["weight"] = 0
        messages.append(answer)
    return row


def _text(pick: random.Random) -> str:
    words = " ".join(pick.choices(_WORDS, k=pick.randrange(1, 9)))
    return f"{pick.choice(_BLANKS)}{words.strip() or 'word'}{pick.choice(_BLANKS)}"


class Comparison:
    """ftq and TRL on one model's template."""

    def __init__(self, name: str) -> None:
        self.style = STYLES[name]
        self.tokenizer = tokenizer_of(self.style)
        self.spec = JobSpec.model_validate({"model": "some/model", "dataset": "./rows.jsonl"})
        self._encoder = make_encoder(self.tokenizer, Task.SFT, "chat", self.spec)
        self._renderer = ChatRenderer(self.tokenizer, None)
        # With any other template, calls of tools are refused.
        self.writes_calls = "<tool_call>" in self.style.template

    def differences(self, row: dict[str, Any]) -> set[Difference]:
        """Return what differs between the two; nothing where all tokens and labels are equal."""
        layout = detect_layout(list(row), [row], self.spec)
        example = example_maker(layout, None, list(row), {})(row).example
        (record,) = self._encoder.records([example], [-1])
        try:
            theirs = self._of_trl([as_seen(m) for m in example.messages], example.tools)
        except TemplateError:
            theirs = None
        if theirs is None or isinstance(record, RowProblem):
            assert theirs is None, f"ftq alone refuses it: {record}"
            assert isinstance(record, RowProblem), "TRL alone refuses it"
            return {Difference.BOTH_REFUSE}
        ours = Masked(record["input_ids"], [label != IGNORED for label in record["labels"]])
        if ours.ids != theirs.ids:
            self._check_text(self.tokenizer.decode(ours.ids), example)
        found = set(self._compared(ours, theirs, example))
        assert found or ours == theirs
        return found

    def _check_text(self, text: str, example: Example) -> None:
        """Raise AssertionError where a text is not what the model meets when it is used."""
        messages = [as_seen(message) for message in example.messages]
        tools = example.tools or None
        own = self.tokenizer.apply_chat_template(messages, tools=tools, tokenize=False)
        prompt = self._renderer.prompt(example.messages[:-1], example.tools)
        assert text == own or text.startswith(prompt), "a text that the template does not write"

    def _of_trl(self, messages: list[Any], tools: list[Any]) -> Masked:
        found = self.tokenizer.apply_chat_template(
            messages,
            tools=tools or None,
            chat_template=self.style.marked,
            return_dict=True,
            return_assistant_tokens_mask=True,
        )
        return Masked(found["input_ids"], [bool(mark) for mark in found["assistant_masks"]])

    def _compared(self, ours: Masked, theirs: Masked, example: Example) -> Iterator[Difference]:
        answers = [at for at, m in enumerate(example.messages) if m["role"] == "assistant"]
        marked = [self._text(theirs, run) for run in theirs.runs()]
        assert len(marked) == len(answers), "TRL marks each answer once"
        learned = [
            (at, text)
            for at, text in zip(answers, marked, strict=True)
            if example.messages[at].get("learned", True)
        ]
        if len(learned) < len(answers):
            yield Difference.WEIGHT
        texts = [self._text(ours, run) for run in ours.runs()]
        if len(texts) < len(learned):
            assert len(texts) == 1
            assert self._renderer(example).untrained_answers == len(answers) - 1
            yield Difference.EARLIER
            learned = learned[-1:]
        for text, (at, other) in zip(texts, learned, strict=True):
            yield from self._of_answer(text, other, at, example)

    def _of_answer(self, ours: str, theirs: str, at: int, example: Example) -> Iterator[Difference]:
        """Yield what makes TRL's text of an answer ours; raises AssertionError for the rest."""
        if self.style.greedy and theirs.endswith(self.style.eos):
            theirs = theirs.removesuffix(self.style.eos)
            yield Difference.CLOSING
        if theirs == f"{theirs.rstrip()}\n" and ours.endswith(self.style.end):
            theirs = theirs[:-1]
            yield Difference.AFTER
        prompt = self._renderer.prompt(example.messages[:at], example.tools)
        if ours != theirs and _reaches_over(theirs.removesuffix(ours), prompt):
            theirs = ours
            yield Difference.BORDER
        if ours != theirs and (opening := _opening(theirs, prompt)):
            theirs = theirs.removeprefix(opening)
            yield Difference.OPENING
            if opening[-1].isspace() and theirs.removesuffix(ours).isspace():
                theirs = ours
                yield Difference.BORDER
        last, thoughts = at == len(example.messages) - 1, "</think>"
        if ours != theirs and not last and theirs.endswith(ours):
            assert theirs.removesuffix(ours).rstrip().endswith(thoughts)
            theirs = ours
            yield Difference.EARLIER
        field = example.messages[at].get("reasoning_content", "").strip()
        if ours != theirs and last and field:
            assert ours.startswith(f"{field}\n{thoughts}\n\n")
            ours, theirs = ours.partition(f"{thoughts}\n\n")[2], theirs.lstrip()
            yield Difference.THOUGHTS
        assert ours == theirs, f"not explained: {ours!r} is {theirs!r} for TRL"

    def _text(self, masked: Masked, run: tuple[int, int]) -> str:
        return self.tokenizer.decode(masked.ids[slice(*run)])


def _opening(theirs: str, prompt: str) -> str:
    """Return what of the beginning of TRL's text the prompt has written, a thought begun."""
    ends = (prompt, prompt.removesuffix("<think>\n"))
    parts = (theirs[:end] for end in range(len(theirs), 0, -1))
    return next((part for part in parts if any(end.endswith(part) for end in ends)), "")


def _reaches_over(more: str, prompt: str) -> bool:
    """Return whether `more` is one token of the end of the prompt and of what follows it.

    Blanks, or a control token that takes the blanks behind it (Phi).
    """
    if more.isspace():
        return prompt[-1:].isspace() and not prompt.endswith(more)
    return bool(more) and prompt.rstrip().endswith(more)
