"""A row of any layout becomes an `Example`: messages, a text, a text with its label, or a choice.

Everything that can be wrong with a row is found here and raised as RowProblem.
"""

import json
import string
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

from ftq_shared.errors import Refused
from ftq_shared.spec import Columns, Task
from ftq_worker.data.cleaning import RowProblem, Rule, key_of, normal
from ftq_worker.data.column_values import flag_of
from ftq_worker.data.columns import ColumnLayout, require_column
from ftq_worker.data.fields import Fields, Message, Template
from ftq_worker.data.layouts import COMPLETIONS, ROW_WEIGHTS
from ftq_worker.data.rows import Row

# What to do where the order of roles is broken, by the role that stands in the wrong place.
_ORDER = {
    "system": "a system message stands first; join it to that, or to the message behind it",
    "assistant": "join the two answers, or write what the user said between them",
    "tool": "a tool answers a call: write the assistant's message with tool_calls before it",
}
# Which role may stand behind which; None is the start. A chat template may be stricter.
_FOLLOWS = {
    None: {"system", "user", "assistant"},
    "system": {"user", "assistant"},
    "user": {"user", "assistant"},
    "assistant": {"user", "tool"},
    "tool": {"assistant", "tool", "user"},
}
# `default`: tool calls may hold dates where they come from parquet.
_JSON = json.JSONEncoder(default=str)


@dataclass(frozen=True)
class Example:
    """One row, independent of its layout. Which fields are filled depends on the task."""

    messages: list[Message] = field(default_factory=list)  # sft: all; preference: the context
    tools: list[Any] = field(default_factory=list)  # sft: what the chat template is given
    text: str = ""  # text and classification
    text_pair: str = ""  # classification of two texts: the second
    label: str = ""  # classification
    chosen: str = ""  # preference
    rejected: str = ""  # preference

    def to_json(self) -> str:
        """Return the example as JSON, empty fields left out."""
        return _JSON.encode({k: v for k, v in vars(self).items() if v})

    @classmethod
    def from_json(cls, text: str) -> "Example":
        return cls(**json.loads(text))

    def keys(self) -> tuple[int, int]:
        """Return the key of its texts, and the key of its prompt: of all that precedes the answer.

        Equal for examples with equal texts; the label does not count. A text without an answer is
        its own prompt.
        """
        turns = [[*map(normal, _texts(message))] for message in self.messages]
        tools = [_JSON.encode(self.tools)] if self.tools else []
        pair = [self.text_pair] if self.text_pair else []
        rest = [*map(normal, (*tools, self.text, *pair))]
        answered = self.messages and self.messages[-1]["role"] == "assistant" and not self.chosen
        asked = turns[:-1] if answered else turns
        answers = map(normal, (self.chosen, self.rejected))
        whole = key_of([*chain.from_iterable(turns), *rest, *answers])
        return whole, key_of([*chain.from_iterable(asked), *rest])


def _texts(message: Message) -> Iterator[str]:
    """Yield what tells a message from others."""
    yield message["role"]
    yield message.get("content") or ""
    if len(message) == 2:  # nearly all are
        return
    for name in sorted(message.keys() - {"role", "content"}):
        yield f"{name} {_JSON.encode(message[name])}"


@dataclass(frozen=True)
class Made:
    """What became of a row."""

    example: Example
    text: str = ""  # the example as JSON
    damaged: str = ""  # the field that control characters were taken from
    taken: Set[str] = frozenset()  # columns that it was made of
    cut: bool = False  # messages stood behind the last answer


def example_maker(
    layout: ColumnLayout,
    row_template: str | None,
    columns: Sequence[str],
    label_names: Mapping[str, list[str]],
) -> Callable[[Mapping[str, Any]], Made]:
    """Return the function that turns the values of a row into an Example.

    The function raises RowProblem. Raises Refused (`wrong_column`, `row_template`) for a template
    that names something that is not there.
    """
    template = parse_template(row_template, columns) if row_template else None
    build = _BUILDERS[layout.task]

    def make(values: Mapping[str, Any]) -> Made:
        fields = Fields(values, layout, template, label_names)
        example = build(fields, layout.columns)
        text = example.to_json()
        return Made(example, text, fields.damaged, fields.taken, fields.cut)

    return make


# What values that nobody has thought of make a library raise.
_STRANGE = (ValueError, TypeError, LookupError, ArithmeticError, AttributeError, RecursionError)


def make_example(row: Row, make: Callable[[Mapping[str, Any]], Made]) -> Made:
    """Return what `make` makes of a row; raises RowProblem: what it holds costs it alone."""
    if row.problem:
        raise RowProblem(Rule.UNREADABLE, "", row.problem)
    try:
        made = make(row.values)
        made.text.encode()
    except _STRANGE as error:
        raise RowProblem(Rule.UNREADABLE, "", f"cannot be used: {str(error)[:200]}") from error
    return made


def parse_template(template: str, columns: Sequence[str]) -> Template:
    """Return a template as (text, column) pairs; the last may have no column.

    Only plain column names stand in braces: no attributes, indexes, conversions or formats.
    """
    try:
        parsed = list(string.Formatter().parse(template))
    except ValueError as error:
        raise _bad_template(template, str(error)) from error
    pairs: Template = []
    for text, column, form, conversion in parsed:
        if form or conversion or column == "":
            raise _bad_template(template, "only column names stand in braces")
        if column is not None:
            require_column("data.row_template", column, columns, template)
        pairs.append((text, column))
    return pairs


def _bad_template(template: str, why: str) -> Refused:
    return Refused(
        f"data.row_template {template!r}: {why}",
        code="row_template",
        hint="write it like 'Q: {question}'; a brace that is meant as text is written twice",
        field="data.row_template",
    )


def _conversation(fields: Fields, messages: list[Message], column: str) -> list[Message]:
    """Return the messages up to the last answer that is learned.

    What stands behind it would be read by the model and never trained. Raises RowProblem when
    nothing would be learned, or the order of the messages is broken.
    """
    previous: str | None = None
    for i, message in enumerate(messages):
        if message["role"] not in _FOLLOWS[previous]:
            where = f"follows {previous}" if previous else "comes first"
            what, mend = f"{message['role']} {where}", _ORDER.get(message["role"], "")
            raise RowProblem(Rule.CONVERSATION, f"{column}[{i}].role", what, mend)
        previous = message["role"]
    answers = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
    if not answers:
        mend = "write the assistant's answer as its last message"
        others = [name for name in COMPLETIONS if isinstance(fields.values.get(name), str)]
        if others and column not in (
            fields.layout.columns.prompt,
            fields.layout.columns.completion,
        ):
            mend += f"; where it stands in {others[0]}: --set data.columns.prompt={column}"
            mend += f" --set data.columns.completion={others[0]}"
        raise RowProblem(Rule.CONVERSATION, column, "has no message of the assistant", mend)
    learned = [i for i in answers if messages[i].get("learned", True)]
    if not learned:
        what = "all its answers are marked as not to be learned"
        raise RowProblem(Rule.UNTRAINABLE, column, what)
    kept = messages[: learned[-1] + 1]
    fields.cut = len(messages) > len(kept)
    return kept


def _sft(fields: Fields, columns: Columns) -> Example:
    if columns.label and not _is_good(fields, columns.label):
        what = f"is {fields.values[columns.label]!r}: its answer is not to be learned"
        raise RowProblem(Rule.BAD_ANSWER, columns.label, what)
    system = fields.optional(columns.system)
    opening = [{"role": "system", "content": system}] if system else []
    tools = fields.tools(columns.tools)
    if columns.messages:
        turns = fields.messages(columns.messages)
        if turns and turns[0]["role"] == "system" and system in ("", turns[0]["content"]):
            opening = []
        whole = _conversation(fields, opening + turns, columns.messages)
        return Example(whole, tools or fields.message_tools)
    assert columns.completion is not None  # detect_layout fills it
    opening += fields.history(columns.history)
    if columns.prompt and fields.holds_messages(columns.prompt):
        asked = [_unlearned(message) for message in fields.messages(columns.prompt)]
    else:
        asked = [_question(fields, columns)]
    answers = _answers(fields, columns.completion, called=bool(tools))
    if thoughts := fields.optional(columns.reasoning):
        answers[0] = answers[0] | {"reasoning_content": thoughts}
    whole = opening + asked + answers
    return Example(_conversation(fields, whole, columns.completion), tools)


def _answers(fields: Fields, column: str, *, called: bool) -> list[Message]:
    """Return what is answered: calls of tools where there are some, messages, or a text."""
    if called and (calls := fields.calls(column)):
        return [{"role": "assistant", "content": "", "tool_calls": calls}]
    if fields.holds_messages(column):
        return fields.messages(column)
    return [{"role": "assistant", "content": fields.text(column)}]


def _question(fields: Fields, columns: Columns) -> Message:
    prompt, more = fields.prompt(columns.prompt), fields.optional(columns.context)
    return {"role": "user", "content": f"{prompt}\n{more}" if more else prompt}


def _unlearned(message: Message) -> Message:
    """Return a message of the prompt: its answers are read, not learned."""
    return message | {"learned": False} if message["role"] == "assistant" else message


def _is_good(fields: Fields, column: str) -> bool:
    """Return what a row says of its answer; no weight is a weight of one."""
    if not fields.given(column):
        if column.lower() in ROW_WEIGHTS:
            return True
        raise RowProblem(Rule.MISSING, column, "does not say whether the answer is a good one")
    value = flag_of(fields.values[column])
    if value is None:
        what = f"is {str(fields.values[column])!r}; an answer is learned (1) or not (0)"
        raise RowProblem(Rule.WRONG_TYPE, column, what)
    return value


def _preference(fields: Fields, columns: Columns) -> Example:
    assert columns.chosen is not None  # detect_layout fills both
    assert columns.rejected is not None
    if not fields.holds_messages(columns.chosen):
        context = fields.messages(columns.messages) if columns.messages else []
        if columns.prompt or fields.template:
            context = [{"role": "user", "content": fields.prompt(columns.prompt)}]
        chosen, rejected = fields.text(columns.chosen), fields.text(columns.rejected)
        return Example(context, chosen=chosen, rejected=rejected)
    good = _conversation(fields, fields.messages(columns.chosen), columns.chosen)
    bad = _conversation(fields, fields.messages(columns.rejected), columns.rejected)
    context = good[:-1]
    if not context and columns.prompt:
        context = [{"role": "user", "content": fields.prompt(columns.prompt)}]
    return Example(context, chosen=good[-1]["content"], rejected=bad[-1]["content"])


def _classification(fields: Fields, columns: Columns) -> Example:
    assert columns.label is not None  # detect_layout fills it
    pair = fields.text(columns.text_pair) if columns.text_pair else ""
    text, label = fields.prompt(columns.text), fields.label(columns.label)
    return Example(text=text, text_pair=pair, label=label)


def _text(fields: Fields, columns: Columns) -> Example:
    if columns.text and not fields.template and not fields.optional(columns.text):
        raise RowProblem(Rule.BLANK, columns.text, "holds nothing")
    return Example(text=fields.prompt(columns.text))


_BUILDERS: dict[Task, Callable[[Fields, Columns], Example]] = {
    Task.SFT: _sft,
    Task.PREFERENCE: _preference,
    Task.CLASSIFICATION: _classification,
    Task.TEXT: _text,
}
