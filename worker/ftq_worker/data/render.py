"""Examples become text, with the character ranges that are trained.

`plain` is prompt, newline, completion, eos, and nothing else; in a conversation that repeats. A
newline or an eos that a text ends with is not written twice.
`chat` is the tokenizer's own template; trained are the assistant's turns with their end-of-turn
token: by the template's `{% generation %}` marks where it has them, else by comparing the text
with and without each turn, else the last turn alone.

Templates for reasoning models. TRL replaces those it knows by training templates that keep every
thought; here the model's own template decides, because it is what the model meets when it is used:
- Thoughts that it drops from earlier turns stay dropped. Where such a turn would read differently
  as the last one (Qwen 3), only the last answer is trained.
- The thoughts of the last answer are always kept: where the template drops even those (DeepSeek
  R1), the text goes on from the generation prompt as the row has it.
- Where a generation prompt opens a thought (`<think>`) and the row has none, the trained part
  begins at the last control token that both share; nothing is put in.

docs/training.md holds this beside TRL's own masks.
"""

import copy
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from transformers import PreTrainedTokenizerBase
from transformers.utils.chat_template_utils import render_jinja_template

from ftq_shared.spec import Task
from ftq_worker.data.chat_messages import as_seen, with_text_arguments
from ftq_worker.data.cleaning import RowProblem, Rule
from ftq_worker.data.examples import Example
from ftq_worker.data.fields import Message
from ftq_worker.job.chat_templates import chosen_template

Span = tuple[int, int]  # character range, end not included
Found = tuple[str, list[Span], int]  # a text, what is trained, how many answers are not
_THOUGHT, _THOUGHT_END = "<think>", "</think>"
_THOUGHT_KEYS = ("reasoning_content", "reasoning", "thinking")  # of a message, by different tools
# What to do about what templates refuse, by a word of the reasons that they give.
_MENDS = {
    "system": "write the words of the system into the first message of the user",
    "alternate": "join messages of one role that follow each other; for a conversation with tools,"
    " choose a model whose template takes them",
}
_GENERATION = re.compile(r"\{%-?\s*generation\b")


@dataclass(frozen=True)
class Rendered:
    """A text as the model sees it, and which of its characters are trained."""

    text: str
    trained: tuple[Span, ...]
    untrained_answers: int = 0  # that the template writes differently than it would at first
    lost_calls: int = 0  # answers whose calls of tools the template leaves out

    def trained_text(self) -> str:
        return "".join(self.text[start:end] for start, end in self.trained)


Renderer = Callable[[Example], Rendered]


def plain_renderer(task: Task, eos: str) -> Renderer:
    """Return the renderer of format plain; `eos` may be empty, which the sample check finds."""

    def ended(text: str) -> str:
        return text.rstrip() if eos and text.rstrip().endswith(eos) else text + eos

    def text(example: Example) -> Rendered:
        whole = ended(example.text)
        return Rendered(whole, ((0, len(whole)),))

    def conversation(example: Example) -> Rendered:
        parts: list[str] = []
        spans: list[Span] = []
        position = 0
        for message in example.messages:
            answer = message["role"] == "assistant"
            said = message["content"]
            part = ended(said) if answer else said + "\n" * (not said.endswith("\n"))
            if answer and message.get("learned", True):
                spans.append((position, position + len(part)))
            parts.append(part)
            position += len(part)
        return Rendered("".join(parts), tuple(spans))

    return text if task is Task.TEXT else conversation


class ChatRenderer:
    """Renders conversations with a chat template.

    Raises RowProblem (`untrainable`) for a row that the template refuses or whose answer cannot be
    found in the rendered text.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, template: str | None, date: str = ""
    ) -> None:
        known = tokenizer.chat_template
        self.template: str = chosen_template(known, template) or ""
        # With tools, transformers itself takes the template of this name, at inference as well.
        named = known if isinstance(known, dict) and template is None else {}
        self._for_tools: str = named.get("tool_use", self.template)
        self._variables: dict[str, Any] = dict(tokenizer.special_tokens_map)
        if date:
            # Some templates write today's date; a job that is prepared again must not change.
            self._variables["date_string"] = date
        self._marks = bool(_GENERATION.search(self.template))
        added = tokenizer.added_tokens_decoder.values()
        self._stops = tuple(str(token) for token in added)
        marks = {*self._stops, _THOUGHT} - {""}
        self._marks_pattern = "|".join(map(re.escape, sorted(marks, key=len, reverse=True)))
        # Some tokens are made of the white space behind them as well (Phi's `<|end|>`).
        self._greedy = tuple(str(token) for token in added if token.rstrip)

    def __call__(self, example: Example) -> Rendered:
        """Return the rendered conversation with its trained ranges."""
        given = self._with_tools(example.tools) if example.tools else self
        messages = [as_seen(message) for message in example.messages]
        try:
            (text, spans, left), lost = _best(messages, given._spans)
            if not all(message["content"].strip() for message in lost):
                raise ValueError("it does not write the calls (tool_calls) of an answer")
            spans = _learned(example.messages, spans)
        except Exception as error:  # a template is a program of the model's author
            if isinstance(error, MemoryError):
                raise
            said = str(error)[:200] or type(error).__name__
            what = f"the chat template refuses it: {said}"
            mend = next((mend for word, mend in _MENDS.items() if word in said.lower()), "")
            raise RowProblem(Rule.UNTRAINABLE, "messages", what, mend) from error
        return Rendered(text, tuple(self._trim(text, span) for span in spans), left, len(lost))

    def _with_tools(self, tools: list[Any]) -> Self:
        """Return a renderer that gives the template these tools as well."""
        given = copy.copy(self)
        given._variables = self._variables | {"tools": tools}
        given.template = self._for_tools
        given._marks = bool(_GENERATION.search(given.template))
        return given

    def prompt(self, messages: list[Message], tools: list[Any] | None = None) -> str:
        """Return the text that an answer to `messages` follows."""
        given = self._with_tools(tools) if tools else self
        seen = [as_seen(message) for message in messages]

        def asked(form: list[Message]) -> Found:
            return given._text(form, add_generation_prompt=True), [], 0

        return _best(seen, asked)[0][0]

    def answer(self, messages: list[Message], answer: str) -> str:
        """Return an answer as it stands behind `prompt(messages)`, end-of-turn included."""
        turn = {"role": "assistant", "content": answer}
        rendered = self(Example([*messages, turn]))
        return rendered.text[slice(*rendered.trained[-1])]

    def _spans(self, messages: list[Message]) -> Found:
        """Return the text, its trained ranges, and how many answers are not among them."""
        if self._marks:
            text, marks = self._render(messages, return_assistant_tokens_mask=True)
            return text, [(start, end) for start, end in marks], 0
        text = self._text(messages)
        answers = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
        spans = [self._span(text, messages, i) for i in answers]
        if not (spans and spans[-1]):
            raise ValueError("the answer is not found in the rendered text")
        text, last = self._with_thoughts(text, spans[-1], messages)
        if all(spans):
            return text, [*(span for span in spans[:-1] if span), last], 0
        return text, [last], len(spans) - 1

    def _span(self, text: str, messages: list[Message], turn: int) -> Span | None:
        """Return where a turn stands in the whole text; None when it is rendered differently."""
        end = self._end(text, messages[: turn + 1])
        if end is None:
            return None
        before = self._text(messages[:turn], add_generation_prompt=True)
        if text[:end].startswith(before):
            return len(before), end
        start = self._shared(self._text(messages[:turn]), before, text[:end])
        return (start, end) if start else None

    def _end(self, text: str, messages: list[Message]) -> int | None:
        """Return where the last of `messages` ends in the whole text; None where it is not there.

        What a template writes at the end of a conversation alone (Phi 3: `<|endoftext|>` behind
        its `<|end|>`) is no part of the turn.
        """
        alone = self._text(messages)
        going_on = text if text != alone else self._text(messages, add_generation_prompt=True)
        if going_on.startswith(alone):
            return len(alone)
        shared = _shared_length(alone, going_on)
        cut = max((at for at in self._cuts(alone) if at <= shared), default=0)
        closing = re.sub(self._marks_pattern, "", alone[cut:])
        ends = alone[:cut].rstrip().endswith(self._stops)
        if ends and not closing.strip() and text.startswith(alone[:cut]):
            return cut
        return len(alone) if text.startswith(alone) else None

    def _cuts(self, text: str) -> set[int]:
        """Return the places where a control token or a thought begins or ends."""
        return {at for match in re.finditer(self._marks_pattern, text) for at in match.span()}

    def _shared(self, history: str, before: str, after: str) -> int | None:
        """Return up to where an answer's opening is that of the generation prompt; None if nowhere.

        Cut at control tokens and thoughts: a part of a token is shared by accident.
        """
        if not (before.startswith(history) and after.startswith(history)):
            return None
        most = _shared_length(before, after) - len(history)
        cuts = self._cuts(before[len(history) :])
        return max((len(history) + cut for cut in cuts if 0 < cut <= most), default=None)

    def _with_thoughts(self, text: str, span: Span, messages: list[Message]) -> tuple[str, Span]:
        """Return text and range with the last answer's thoughts, where the template dropped them.

        Raises ValueError where they cannot be put back.
        """
        thoughts, answer = _thoughts(messages[-1])
        turn = text[slice(*span)]
        at = self._place(answer.strip(), turn)
        if not thoughts.strip() or thoughts.strip() in turn[:at] or "think" not in self.template:
            return text, span
        if at < 0 or not answer.strip():
            raise ValueError("it drops the thoughts of the answer")
        before = self._text(messages[:-1], add_generation_prompt=True)
        opening = "" if before.rstrip().endswith(_THOUGHT) else f"{_THOUGHT}\n"
        whole = before + opening + _said(messages[-1]) + turn[at + len(answer.strip()) :]
        return whole, (len(before), len(whole))

    def _place(self, answer: str, turn: str) -> int:
        """Return where an answer begins in its turn: at its end, else as early as can be."""
        body = turn.rstrip()
        stop = max((stop for stop in self._stops if body.endswith(stop)), key=len, default="")
        body = body.removesuffix(stop).rstrip()
        return len(body) - len(answer) if body.endswith(answer) else body.find(answer)

    def _trim(self, text: str, span: Span) -> Span:
        """Leave white space behind the end-of-turn token untrained: the model stops before it."""
        start, end = span
        cut = len(text[start:end].rstrip())
        answer = text[start : start + cut]
        if self._greedy and answer.endswith(self._greedy):
            return start, start + cut + len(text[start + cut :]) - len(text[start + cut :].lstrip())
        if answer.endswith(self._stops):
            return start, start + cut
        return span

    def _text(self, messages: list[Message], **options: Any) -> str:
        return self._render(messages, **options)[0]

    def _render(self, messages: list[Message], **options: Any) -> tuple[str, Sequence[Span]]:
        texts, marks = render_jinja_template(
            conversations=[messages], chat_template=self.template, **options, **self._variables
        )
        return texts[0], marks[0] if marks else ()


def _learned(messages: Sequence[Message], spans: Sequence[Span]) -> list[Span]:
    """Return the ranges of the answers that are to be learned; the last one always is.

    Raises ValueError where the template does not say which range is which answer's.
    """
    learned = [m.get("learned", True) for m in messages if m["role"] == "assistant"]
    if all(learned) or len(spans) == 1:
        return list(spans)
    if len(spans) != len(learned):
        raise ValueError("it does not say where the answers are that are not to be learned")
    return [span for span, wanted in zip(spans, learned, strict=True) if wanted]


def _best(
    messages: list[Message], render: Callable[[list[Message]], Found]
) -> tuple[Found, list[Message]]:
    """Return what the template makes of the first form whose calls it writes.

    Where it writes those of none, what it makes of the first form that it takes, and the answers
    whose calls are lost. Raises what the template raises of the first form.
    """
    problem: Exception | None = None
    best: tuple[Found, list[Message]] | None = None
    for form in _forms(messages):
        try:
            found = render(form)
        except Exception as error:  # a template is a program of the model's author
            problem = problem or error
            continue
        lost = _without_calls(messages, *found[:2])
        best = best if best and lost else (found, lost)
        if not lost:
            break
    if best is None:
        assert problem
        raise problem
    return best


def _forms(messages: list[Message]) -> list[list[Message]]:
    """Return a conversation in each form in which a template may want calls of tools.

    Some add the arguments to a text; some write calls only where there is no content at all.
    """
    if not any(message.get("tool_calls") for message in messages):
        return [messages]
    forms = [messages, [with_text_arguments(message) for message in messages]]
    return forms + [
        [
            m | {"content": None} if m.get("tool_calls") and not m["content"].strip() else m
            for m in form
        ]
        for form in forms
    ]


def _without_calls(messages: list[Message], text: str, spans: Sequence[Span]) -> list[Message]:
    """Return the answers whose calls do not stand in the text, each looked for in its own turn."""
    answers = [message for message in messages if message["role"] == "assistant"]
    turns = [text[start:end] for start, end in spans]
    if len(turns) != len(answers):
        turns = [text] * len(answers)
    return [
        answer
        for answer, turn in zip(answers, turns, strict=True)
        if any(str(name) not in turn for name in _called(answer))
    ]


def _called(message: Message) -> Iterator[Any]:
    """Yield the names of the tools that an answer calls."""
    for call in message.get("tool_calls") or ():
        if isinstance(call, Mapping):
            function = call.get("function")
            yield (function if isinstance(function, Mapping) else call).get("name", "")


def _shared_length(one: str, other: str) -> int:
    """Return how many characters two texts begin with alike."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((at for at, (a, b) in pairs if a != b), min(len(one), len(other)))


def _thoughts(message: Message) -> tuple[str, str]:
    """Return the thoughts of an answer, empty where it has none, and the rest of it."""
    content = str(message.get("content") or "")
    for key in _THOUGHT_KEYS:
        if isinstance(message.get(key), str):
            return message[key], content
    thoughts, _, answer = content.rpartition(_THOUGHT_END)
    return thoughts.strip().removeprefix(_THOUGHT), answer


def _said(message: Message) -> str:
    """Return an answer with its thoughts as a model would write it that has begun to think."""
    thoughts, answer = _thoughts(message)
    content = str(message.get("content") or "")
    if thoughts and _THOUGHT_END in content and content != answer:
        return content.strip().removeprefix(_THOUGHT).removeprefix("\n")
    return f"{thoughts.strip()}\n{_THOUGHT_END}\n\n{answer.strip()}"


def plain_choice(example: Example) -> tuple[str, str, str]:
    """Return prompt, chosen and rejected of format plain; the trainer adds the eos."""
    said = [str(message["content"]) for message in example.messages]
    prompt = "".join(text + "\n" * (not text.endswith("\n")) for text in said)
    return prompt, example.chosen, example.rejected


def chat_choice(renderer: ChatRenderer, example: Example) -> tuple[str, str, str]:
    """Return prompt, chosen and rejected as the chat template writes them."""
    return (
        renderer.prompt(example.messages),
        renderer.answer(example.messages, example.chosen),
        renderer.answer(example.messages, example.rejected),
    )
