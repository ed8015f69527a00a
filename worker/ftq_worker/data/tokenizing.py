"""Text becomes tokens, with a label for every token that is trained and -100 for all others.

TRL 1.16 takes a dataset that has `input_ids` and `labels` as it is: it renders nothing, adds no
eos and builds no mask; it cuts rows to `max_length` (no effect here, longer rows are gone) and
drops rows without any label (none here). `length` is for grouping by length.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa
from transformers import PreTrainedTokenizerBase

from ftq_shared.errors import Refused
from ftq_shared.spec import JobSpec, Task
from ftq_worker.data import arrow
from ftq_worker.data.cleaning import RowProblem, Rule
from ftq_worker.data.examples import Example
from ftq_worker.data.records import (
    IGNORED,
    ChoiceRecord,
    ClassRecord,
    Encoded,
    Encoder,
)
from ftq_worker.data.render import (
    ChatRenderer,
    Rendered,
    Renderer,
    chat_choice,
    plain_choice,
    plain_renderer,
)
from ftq_worker.data.token_checks import check_ids
from ftq_worker.data.token_spans import Ids, SpanTokenizer, Tokens
from ftq_worker.job.auto import auto_rule
from ftq_worker.job.chat_templates import chosen_template
from ftq_worker.job.reports import Shown

_SHOWN = 2000  # characters of a text that people see


def make_encoder(
    tokenizer: PreTrainedTokenizerBase,
    task: Task,
    format_: str,
    spec: JobSpec,
    date: str = "",
    vocab_size: int | None = None,
) -> Encoder:
    """Return the encoder for a task; `format_` is chat or plain; raises Refused.

    With `vocab_size`, the rows of the model's embedding, encoding raises Refused
    (`token_beyond_embedding`) for a row with a token that the model has no weights for.
    """
    encoder = _encoder(tokenizer, task, format_, spec, date)
    if vocab_size is None or task is Task.PREFERENCE:
        return encoder

    def encode(examples: Sequence[Example], labels: Sequence[int]) -> Encoded:
        made = encoder.encode(examples, labels)
        check_ids(tokenizer, made.batch["input_ids"].values.to_numpy(), vocab_size)
        return made

    return replace(encoder, encode=encode)


def _encoder(
    tokenizer: PreTrainedTokenizerBase, task: Task, format_: str, spec: JobSpec, date: str
) -> Encoder:
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
    return _sequences(tokenizer, renderer, start, format_)


def leading_tokens(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Return the tokens that this tokenizer puts in front of a text by itself (bos, or none)."""
    bare = tokenizer("a", add_special_tokens=False)["input_ids"]
    full = tokenizer("a", add_special_tokens=True)["input_ids"]
    for start in range(len(full) - len(bare) + 1):
        if full[start : start + len(bare)] == bare:
            return list(full[:start])
    return []


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
    tokenize = SpanTokenizer(tokenizer)

    def encode(examples: Sequence[Example], _: Sequence[int]) -> Encoded:
        rendered = {i: _attempt(renderer, example) for i, example in enumerate(examples)}
        problems = {i: one for i, one in rendered.items() if isinstance(one, RowProblem)}
        good = {i: one for i, one in rendered.items() if isinstance(one, Rendered)}
        whole = good.values()
        tokens = tokenize([one.text for one in whole], [one.trained for one in whole])
        trained = tokens.inside()
        counts = tokens.per_text(trained)
        labels = np.where(trained, tokens.ids, IGNORED).astype(np.int32)
        batch = _sequence_batch(tokens, labels, start)
        for i, count in zip(good, counts.tolist(), strict=True):
            if not count:
                what = "no token of it would be trained"
                problems[i] = RowProblem(Rule.UNTRAINABLE, "", what)
        return Encoded(batch if counts.all() else batch.filter(pa.array(counts > 0)), problems)

    def show(example: Example) -> Shown:
        rendered = renderer(example)
        return {"text": rendered.text[:_SHOWN], "trained": rendered.trained_text()[:_SHOWN]}

    return Encoder(arrow.SEQUENCES, encode, show, format_, render=renderer)


def _attempt(renderer: Renderer, example: Example) -> Rendered | RowProblem:
    try:
        return renderer(example)
    except RowProblem as problem:
        return problem


def _sequence_batch(tokens: Tokens, labels: Ids, start: list[int]) -> pa.RecordBatch:
    """Return tokens and labels as records; a text that does not begin with `start` gets it."""
    ids, ends = tokens.ids, tokens.ends
    if start:
        begins = ends[:-1]
        bare = np.array([ids[at : at + len(start)].tolist() != start for at in begins], dtype=bool)
        places = np.repeat(begins[bare], len(start))
        ids = np.insert(ids, places, np.tile(np.array(start, np.int32), int(bare.sum())))
        labels = np.insert(labels, places, IGNORED)
        ends = ends + len(start) * np.concatenate(([0], np.cumsum(bare)))
    lists = [arrow.list_array(ends, values) for values in (ids, labels)]
    return pa.RecordBatch.from_arrays([*lists, pa.array(np.diff(ends))], schema=arrow.SEQUENCES)


def _keeps_apart(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Return whether the tokenizer puts a token between two texts."""
    both = len(tokenizer("a", "b")["input_ids"])
    return both > len(tokenizer("a")["input_ids"]) + len(
        tokenizer("b", add_special_tokens=False)["input_ids"]
    )


def _classes(tokenizer: PreTrainedTokenizerBase) -> Encoder:
    apart = _keeps_apart(tokenizer)

    def encode(examples: Sequence[Example], labels: Sequence[int]) -> Encoded:
        paired = any(example.text_pair for example in examples)
        # A tokenizer that puts nothing between two texts would make one word of them.
        texts = [e.text if apart or not paired else f"{e.text}\n{e.text_pair}" for e in examples]
        pairs = [e.text_pair for e in examples] if paired and apart else None
        batch = tokenizer(texts, pairs, return_attention_mask=False, verbose=False)
        records: list[ClassRecord] = [
            {"input_ids": ids, "label": label, "length": len(ids)}
            for ids, label in zip(batch["input_ids"], labels, strict=True)
        ]
        return Encoded(arrow.batch_of(records, arrow.CLASSES), {})

    def show(example: Example) -> Shown:
        text = "\n".join(filter(None, (example.text, example.text_pair)))
        return {"text": text[:_SHOWN], "label": example.label[:_SHOWN]}

    return Encoder(arrow.CLASSES, encode, show, "plain")


def _choices(tokenizer: PreTrainedTokenizerBase, chat: ChatRenderer | None) -> Encoder:
    def render(example: Example) -> tuple[str, str, str]:
        return chat_choice(chat, example) if chat else plain_choice(example)

    def record(example: Example) -> ChoiceRecord | RowProblem:
        try:
            prompt, chosen, rejected = render(example)
        except RowProblem as problem:
            return problem
        pair = tokenizer([prompt + chosen, prompt + rejected], verbose=False)["input_ids"]
        length = max(len(ids) for ids in pair)
        return {"prompt": prompt, "chosen": chosen, "rejected": rejected, "length": length}

    def encode(examples: Sequence[Example], _: Sequence[int]) -> Encoded:
        made = dict(enumerate(map(record, examples)))
        problems = {i: one for i, one in made.items() if isinstance(one, RowProblem)}
        records = [one for one in made.values() if not isinstance(one, RowProblem)]
        return Encoded(arrow.batch_of(records, arrow.CHOICES), problems)

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
    templated = bool(chosen_template(tokenizer.chat_template, chat_template))
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
