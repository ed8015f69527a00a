"""Examples become text, with the character ranges that are trained.

`plain` is prompt, newline, completion, eos, and nothing else; in a conversation that repeats.
`chat` is the tokenizer's own template; trained are the assistant's turns with their end-of-turn
token: by the template's `{% generation %}` marks where it has them, else by comparing the text
with and without each turn, else the last turn alone.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedTokenizerBase
from transformers.utils.chat_template_utils import render_jinja_template

from ftq_shared.spec import Task
from ftq_worker.data.cleaning import RowProblem, Rule
from ftq_worker.data.examples import Example
from ftq_worker.data.fields import Message
from ftq_worker.job.chat_templates import chosen_template

Span = tuple[int, int]  # character range, end not included
_GENERATION = re.compile(r"\{%-?\s*generation\b")


@dataclass(frozen=True)
class Rendered:
    """A text as the model sees it, and which of its characters are trained."""

    text: str
    trained: tuple[Span, ...]

    def trained_text(self) -> str:
        return "".join(self.text[start:end] for start, end in self.trained)


Renderer = Callable[[Example], Rendered]


def plain_renderer(task: Task, eos: str) -> Renderer:
    """Return the renderer of format plain; `eos` may be empty, which the sample check finds."""

    def text(example: Example) -> Rendered:
        whole = example.text + eos
        return Rendered(whole, ((0, len(whole)),))

    def conversation(example: Example) -> Rendered:
        parts: list[str] = []
        spans: list[Span] = []
        position = 0
        for message in example.messages:
            answer = message["role"] == "assistant"
            part = message["content"] + (eos if answer else "\n")
            if answer:
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
        self._template: str = chosen_template(tokenizer.chat_template, template) or ""
        self._variables: dict[str, str | list[str]] = dict(tokenizer.special_tokens_map)
        if date:
            # Some templates write today's date; a job that is prepared again must not change.
            self._variables["date_string"] = date
        self._marks = bool(_GENERATION.search(self._template))
        added = tokenizer.added_tokens_decoder.values()
        self._stops = tuple(str(token) for token in added)
        # Some tokens are made of the white space behind them as well (Phi's `<|end|>`).
        self._greedy = tuple(str(token) for token in added if token.rstrip)

    def __call__(self, example: Example) -> Rendered:
        """Return the rendered conversation with its trained ranges."""
        try:
            text, spans = self._spans(example.messages)
        except Exception as error:  # a template is a program of the model's author
            if isinstance(error, MemoryError):
                raise
            what = f"the chat template refuses it: {str(error)[:200] or type(error).__name__}"
            raise RowProblem(Rule.UNTRAINABLE, "messages", what) from error
        return Rendered(text, tuple(self._trim(text, span) for span in spans))

    def prompt(self, messages: list[Message]) -> str:
        """Return the text that an answer to `messages` follows."""
        return self._text(messages, add_generation_prompt=True)

    def answer(self, messages: list[Message], answer: str) -> str:
        """Return an answer as it stands behind `prompt(messages)`, end-of-turn included."""
        turn = {"role": "assistant", "content": answer}
        rendered = self(Example([*messages, turn]))
        return rendered.text[slice(*rendered.trained[-1])]

    def _spans(self, messages: list[Message]) -> tuple[str, list[Span]]:
        if self._marks:
            text, marks = self._render(messages, return_assistant_tokens_mask=True)
            return text, [(start, end) for start, end in marks]
        text = self._text(messages)
        answers = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
        spans = [self._span(text, messages, i) for i in answers]
        if all(spans):
            return text, [span for span in spans if span]
        # A template that writes earlier turns differently from the last one (Qwen 3 drops their
        # thoughts): only the last is what the model would have to say.
        if spans and spans[-1]:
            return text, [spans[-1]]
        raise ValueError("the answer is not found in the rendered text")

    def _span(self, text: str, messages: list[Message], turn: int) -> Span | None:
        """Return where a turn stands in the whole text; None when it is rendered differently."""
        before = self._text(messages[:turn], add_generation_prompt=True)
        last = turn + 1 == len(messages)
        after = text if last else self._text(messages[: turn + 1])
        if not (text.startswith(after) and after.startswith(before)):
            return None
        return len(before), len(after)

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
            conversations=[messages], chat_template=self._template, **options, **self._variables
        )
        return texts[0], marks[0] if marks else ()


def plain_choice(example: Example) -> tuple[str, str, str]:
    """Return prompt, chosen and rejected of format plain; the trainer adds the eos."""
    prompt = "".join(f"{message['content']}\n" for message in example.messages)
    return prompt, example.chosen, example.rejected


def chat_choice(renderer: ChatRenderer, example: Example) -> tuple[str, str, str]:
    """Return prompt, chosen and rejected as the chat template writes them."""
    return (
        renderer.prompt(example.messages),
        renderer.answer(example.messages, example.chosen),
        renderer.answer(example.messages, example.rejected),
    )
