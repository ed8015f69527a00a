"""Text becomes tokens, with a label for every token that is trained and -100 for all others.

TRL 1.16 takes a dataset that has `input_ids` and `labels` as it is: it renders nothing, adds no
eos and builds no mask; it cuts rows to `max_length` (no effect here, longer rows are gone) and
drops rows without any label (none here). `length` is for grouping by length.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypedDict, final

from transformers import PreTrainedTokenizerBase

from ftq_shared.errors import Refused
from ftq_shared.spec import JobSpec, Task
from ftq_worker.data import arrow
from ftq_worker.data.cleaning import RowProblem, Rule
from ftq_worker.data.examples import Example
from ftq_worker.data.render import (
    ChatRenderer,
    Rendered,
    Renderer,
    Span,
    chat_choice,
    plain_choice,
    plain_renderer,
)
from ftq_worker.job.auto import auto_rule
from ftq_worker.job.reports import Shown

IGNORED = -100  # the label of a token that the loss does not count
_SHOWN = 2000  # characters of a text that people see


@final
class SequenceRecord(TypedDict):
    """A row of text for training; its schema is `arrow.SEQUENCES`."""

    input_ids: list[int]
    labels: list[int]  # as many; IGNORED where the loss does not count
    length: int  # in tokens, for grouping


@final
class ClassRecord(TypedDict):
    """A text with the id of its label; its schema is `arrow.CLASSES`."""

    input_ids: list[int]
    label: int
    length: int


@final
class ChoiceRecord(TypedDict):
    """A prompt with a better and a worse answer; its schema is `arrow.CHOICES`."""

    prompt: str
    chosen: str
    rejected: str
    length: int


Record = SequenceRecord | ClassRecord | ChoiceRecord


@dataclass(frozen=True)
class Encoder:
    """How the examples of one job become records for training."""

    schema: Any  # pyarrow schema of the records
    # A batch of examples with their label numbers; a RowProblem in the place of a bad one.
    encode: Callable[[Sequence[Example], Sequence[int]], list[Record | RowProblem]]
    show: Callable[[Example], Shown]
    format: str  # chat or plain
    template: str = ""  # of the chat, '' where none reads the messages
    render: Renderer | None = None  # of texts that are trained in part: which characters are


def make_encoder(
    tokenizer: PreTrainedTokenizerBase, task: Task, format_: str, spec: JobSpec, date: str = ""
) -> Encoder:
    """Return the encoder for a task; `format_` is chat or plain; raises Refused."""
    if task is Task.CLASSIFICATION:
        return _classes(tokenizer)
    _require_offsets(tokenizer)
    chat = ChatRenderer(tokenizer, spec.data.chat_template, date) if format_ == "chat" else None
    if task is Task.PREFERENCE:
        return _choices(tokenizer, chat)
    eos = str(tokenizer.eos_token or "")
    renderer: Renderer = chat or plain_renderer(task, eos)
    # A chat template writes its own first token.
    start = [] if chat else leading_tokens(tokenizer)
    encoder = _sequences(tokenizer, renderer, start, format_)
    return replace(encoder, template=chat.template) if chat else encoder


def leading_tokens(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Return the tokens that this tokenizer puts in front of a text by itself (bos, or none)."""
    bare = tokenizer("a", add_special_tokens=False)["input_ids"]
    full = tokenizer("a", add_special_tokens=True)["input_ids"]
    for start in range(len(full) - len(bare) + 1):
        if full[start : start + len(bare)] == bare:
            return list(full[:start])
    return []


def check_eos(
    tokenizer: PreTrainedTokenizerBase, encoder: Encoder, sample: Sequence[Example]
) -> None:
    """Refuse (`no_eos`) when the trained part of a sample row does not end the turn.

    A model that is trained on such rows never learns to stop.
    """
    if encoder.schema is not arrow.SEQUENCES:
        return
    # Every control token may end a turn, not the eos alone.
    stops = {tokenizer.eos_token_id, *tokenizer.added_tokens_decoder}
    for record in encoder.encode(sample, [-1] * len(sample)):
        if isinstance(record, RowProblem) or "labels" not in record:
            continue
        last = next(label for label in reversed(record["labels"]) if label != IGNORED)
        if last not in stops:
            raise _no_eos(encoder.format, tokenizer.decode([last]))


def _no_eos(format_: str, last: str) -> Refused:
    hints = {
        "chat": "--set data.format=plain, or give a data.chat_template whose assistant turns end"
        " with the eos token (inside {% generation %} where it has that mark)",
        "plain": "the tokenizer has no usable eos token: choose another model, or one with a"
        " chat template",
    }
    return Refused(
        f"the trained part of a row ends with {last!r}, not with an end-of-turn token:"
        " the model would never learn to stop",
        code="no_eos",
        hint=hints[format_],
        field="data.format",
    )


def _require_offsets(tokenizer: PreTrainedTokenizerBase) -> None:
    if not tokenizer.is_fast:
        raise Refused(
            "the model has only a slow tokenizer, which cannot say where its tokens stand",
            code="slow_tokenizer",
            hint="choose a model that has a tokenizer.json",
        )


def _sequences(
    tokenizer: PreTrainedTokenizerBase, renderer: Renderer, start: list[int], format_: str
) -> Encoder:
    def encode(examples: Sequence[Example], _: Sequence[int]) -> list[Record | RowProblem]:
        rendered = [_attempt(renderer, example) for example in examples]
        tokens = _tokens(tokenizer, [r.text for r in rendered if isinstance(r, Rendered)])
        return [
            r if isinstance(r, RowProblem) else _sequence(start, *next(tokens), r.trained)
            for r in rendered
        ]

    def show(example: Example) -> Shown:
        rendered = renderer(example)
        return {"text": rendered.text[:_SHOWN], "trained": rendered.trained_text()[:_SHOWN]}

    return Encoder(arrow.SEQUENCES, encode, show, format_, render=renderer)


def _attempt(renderer: Renderer, example: Example) -> Rendered | RowProblem:
    try:
        return renderer(example)
    except RowProblem as problem:
        return problem


def _tokens(
    tokenizer: PreTrainedTokenizerBase, texts: list[str]
) -> Iterator[tuple[list[int], list[Span]]]:
    """Yield the tokens of each text, and the characters that each one stands for."""
    if not texts:
        return
    batch = tokenizer(
        texts,
        add_special_tokens=False,
        return_offsets_mapping=True,
        return_attention_mask=False,
        return_token_type_ids=False,
        verbose=False,  # no warning about long rows: they are counted and dropped
    )
    yield from zip(batch["input_ids"], batch["offset_mapping"], strict=True)


def _sequence(
    start: list[int], tokens: list[int], offsets: list[Span], trained: Sequence[Span]
) -> Record | RowProblem:
    """Return ids and labels; a token is trained when all its characters are.

    A token that reaches over the border cannot come out at inference, where the prompt is
    tokenized alone; it is not trained. Offsets ascend, so a range of characters is a range of
    tokens.
    """
    labels = [IGNORED] * len(tokens)
    for first, last in trained:
        low = bisect_left(offsets, (first,))
        high = bisect_left(offsets, (last,))
        while high > low and offsets[high - 1][1] > last:
            high -= 1
        labels[low:high] = tokens[low:high]
    if all(label == IGNORED for label in labels):
        return RowProblem(Rule.UNTRAINABLE, "", "no token of it would be trained")
    return {
        "input_ids": start + tokens,
        "labels": [IGNORED] * len(start) + labels,
        "length": len(start) + len(tokens),
    }


def _classes(tokenizer: PreTrainedTokenizerBase) -> Encoder:
    def encode(examples: Sequence[Example], labels: Sequence[int]) -> list[Record | RowProblem]:
        texts = [e.text for e in examples]
        pairs = [e.text_pair for e in examples] if any(e.text_pair for e in examples) else None
        batch = tokenizer(texts, pairs, return_attention_mask=False, verbose=False)
        return [
            {"input_ids": ids, "label": label, "length": len(ids)}
            for ids, label in zip(batch["input_ids"], labels, strict=True)
        ]

    def show(example: Example) -> Shown:
        text = "\n".join(filter(None, (example.text, example.text_pair)))
        return {"text": text[:_SHOWN], "label": example.label[:_SHOWN]}

    return Encoder(arrow.CLASSES, encode, show, "plain")


def _choices(tokenizer: PreTrainedTokenizerBase, chat: ChatRenderer | None) -> Encoder:
    def render(example: Example) -> tuple[str, str, str]:
        return chat_choice(chat, example) if chat else plain_choice(example)

    def record(example: Example) -> Record | RowProblem:
        try:
            prompt, chosen, rejected = render(example)
        except RowProblem as problem:
            return problem
        pair = tokenizer([prompt + chosen, prompt + rejected], verbose=False)["input_ids"]
        length = max(len(ids) for ids in pair)
        return {"prompt": prompt, "chosen": chosen, "rejected": rejected, "length": length}

    def encode(examples: Sequence[Example], _: Sequence[int]) -> list[Record | RowProblem]:
        return [record(example) for example in examples]

    def show(example: Example) -> Shown:
        prompt, chosen, rejected = render(example)
        text = f"{prompt}{chosen}\n--- rejected ---\n{rejected}"
        return {"text": text[:_SHOWN], "trained": chosen[:_SHOWN]}

    return Encoder(arrow.CHOICES, encode, show, "chat" if chat else "plain")


@auto_rule("data.format", "`chat` where the tokenizer has a template, else `plain`")
def choose_format(
    asked: str, tokenizer: PreTrainedTokenizerBase, chat_template: str | None
) -> tuple[str, str]:
    """Return chat or plain and the reason; raises Refused (`no_chat_template`)."""
    templated = bool(chat_template or tokenizer.chat_template)
    if asked == "chat" and not templated:
        raise Refused(
            "data.format is chat, but the tokenizer has no chat template",
            code="no_chat_template",
            hint="give data.chat_template, or --set data.format=plain",
            field="data.format",
        )
    if asked != "auto":
        return asked, "as asked for"
    if templated:
        where = "the spec gives" if chat_template else "the tokenizer has"
        return "chat", f"{where} a chat template"
    return "plain", "the tokenizer has no chat template: prompt, newline, completion, eos"
