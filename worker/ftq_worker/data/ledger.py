"""What of the rows nothing was made of: nobody has to think of a column for it to be named.

Whoever makes an example marks the columns and keys that it reads; the ledger counts the others that
hold something. Every row of a split is kept, or counted under the rule that took it away;
`assert_balance` says so.
"""

import re
import shlex
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ftq_shared.errors import Refused
from ftq_shared.spec import Columns, Task
from ftq_worker.data.cleaning import REASONS, Rule, Tally
from ftq_worker.data.column_values import text_in
from ftq_worker.data.examples import Example, Made
from ftq_worker.data.layouts import BESIDE
from ftq_worker.job.reports import Unused

_LOOKED_AT = 500  # rows whose texts are measured
LIMIT = 0.1  # share of the rows that one reason may take away, or an unused text may stand in
_NAMED = 1000  # columns that are counted each: of rows with ids for keys each has its own
_OTHERS = "all other columns"
_TOLD = 20  # names in a message
_WORDS = 4  # from which on a value is a sentence, not a name
_LENGTH = 0.5  # of the prompt; a shorter text beside it is a remark
_REPEATS = 0.9  # share of the rows in which a value must stand in the used text as well
_CHANCE = 20  # characters from which on a text stands in another one by no chance
_COPY = 0.2  # share of a rendered copy that is the text itself; the rest is its template
# Rules that take no text from training that is not there once more, or that judges the model.
_HARMLESS = frozenset(
    {Rule.BLANK, Rule.CONTROL_CHARACTERS, Rule.DUPLICATE, Rule.NEAR_DUPLICATE, Rule.HELD_OUT}
)
_MAP = "say in data.columns which part it plays"
_MEMBER = "key of messages"
_ANSWERED = "an answer behind them: there is nothing to learn from a question alone"
# Columns by whose names an answer, a label or a way to it stands in them.
_ANSWERS = re.compile(
    "answer|response|reject|chosen|label|solution|output|completion|target|distract|reason|cot|text"
)
# What an answer would lack without them.
_VITAL = ("tool_calls", "tools", "reasoning_content", "reasoning", "thinking")


@dataclass
class _Left:
    """One column, or one key of messages, that nothing was made of."""

    rows: int = 0  # in which it holds something
    measured: int = 0
    chars: int = 0
    words: int = 0
    repeats: int = 0  # its text stands in the used text as well

    @property
    def is_text(self) -> bool:
        """Whether it holds sentences, and not ids, names or figures."""
        return self.measured > 0 and self.words >= _WORDS * self.measured


class Ledger:
    """Counts what was not used in the rows of one split."""

    def __init__(self, known: Sequence[str] = ()) -> None:
        self._known = frozenset(known)  # columns that are used for something else, as for groups
        self._left: dict[str, _Left] = defaultdict(_Left)
        self._members: dict[str, int] = defaultdict(int)
        self._tools = 0  # rows with tools
        self._cut = 0  # rows with messages behind the last answer
        self._rows = 0
        self._prompt_chars = 0  # of the rows that are measured

    def add(self, values: Mapping[str, Any], made: Made) -> None:
        """Count one row that an example was made of."""
        self._rows += 1
        for member in made.members:
            self._members[member] += 1
        self._tools += bool(made.example.tools)
        self._cut += made.cut
        measured = self._rows <= _LOOKED_AT
        texts: list[str] | None = None
        if measured:
            self._prompt_chars += len(_prompt(made.example))
        for column, value in values.items():
            if column in made.taken or column in self._known or value in (None, "", [], {}):
                continue
            many = len(self._left) >= _NAMED and column not in self._left
            left = self._left[_OTHERS if many else column]
            left.rows += 1
            if measured:
                texts = _texts(made.example) if texts is None else texts
                _measure(left, text_in(value), texts)

    def unused(self, columns: Columns, task: Task, template: str | None = None) -> list[Unused]:
        """Return every column and key that was not used, the most frequent first.

        `template` is the chat template that reads the messages, '' where none does; None while
        that is not known: the keys of messages are not judged then.
        """
        found = [
            self._one(
                column,
                "column",
                left.rows,
                use=_use(column, columns, task) if left.is_text else "",
                weighs=self._weighs(left),
            )
            for column, left in self._left.items()
            if not self._repeats(left)
        ]
        found += self._unread(template) if template is not None else ()
        if self._cut:
            found.append(self._one("messages behind the last answer", "", self._cut, use=_ANSWERED))
        return sorted(found, key=lambda one: (-one["rows"], one["name"]))

    def _unread(self, template: str) -> Iterator[Unused]:
        members = {**self._members, "tools": self._tools}
        for name, rows in members.items():
            read = re.search(rf"\b{re.escape(name)}\b", template)
            if not rows or read or name == "content":
                continue
            yield self._one(
                name,
                _MEMBER if name != "tools" else "column",
                rows,
                use=f"data.chat_template, with a template that writes {name}",
                weighs=name in _VITAL and rows > LIMIT * self._rows,
            )

    def _one(self, name: str, kind: str, rows: int, *, use: str, weighs: bool = False) -> Unused:
        share = round(rows / self._rows, 4)
        return Unused(name=name, kind=kind, rows=rows, share=share, weighs=weighs, use=use)

    def _weighs(self, left: _Left) -> bool:
        """Return whether a column holds text of length beside a short prompt, in many rows."""
        if not left.measured or left.rows <= LIMIT * self._rows:
            return False
        prompt = self._prompt_chars / min(self._rows, _LOOKED_AT)
        return left.is_text and left.chars / left.measured >= _LENGTH * prompt

    @staticmethod
    def _repeats(left: _Left) -> bool:
        return left.measured > 0 and left.repeats >= _REPEATS * left.measured


def _measure(left: _Left, text: str, used: Sequence[str]) -> None:
    left.measured += 1
    left.chars += len(text)
    left.words += len(text.split())
    left.repeats += _repeats(_normal(text), [_normal(piece) for piece in used if piece])


def _normal(text: str) -> str:
    return " ".join(text.split())


def _repeats(text: str, used: Sequence[str]) -> bool:
    """Return whether a text says nothing new: a part of what is used, or a rendered copy of it."""
    if text in used:
        return True
    enough = sum(map(len, used)) >= min(_CHANCE, _COPY * len(text))
    copied = enough and all(piece in text for piece in used)
    return copied or (len(text) >= _CHANCE and text in " ".join(used))


def _texts(example: Example) -> list[str]:
    contents = [message.get("content") or "" for message in example.messages]
    return [*contents, example.text, example.text_pair, example.chosen, example.rejected]


def _prompt(example: Example) -> str:
    """Return what the model is given to answer."""
    asked = [m["content"] for m in example.messages if m["role"] != "assistant"]
    return "".join([*asked, example.text, example.text_pair])


def _use(column: str, columns: Columns, task: Task) -> str:
    """Return the setting that would use a column, '' where it may give the answer away."""
    if _ANSWERS.search(column.lower()):
        return ""
    own = next((part for part, names in BESIDE.items() if column.lower() in names), "")
    if task is Task.SFT and own and getattr(columns, own) is None:
        return _set(f"columns.{own}", column)
    if task is Task.CLASSIFICATION and columns.text_pair is None:
        return _set("columns.text_pair", column)
    if columns.messages:
        return _set("columns.system", column)
    if task is Task.SFT and columns.context is None:
        return _set("columns.context", column)
    main = columns.prompt or columns.text or "COLUMN"
    return _set("row_template", f"{{{main}}} {{{column}}}")


def _set(field: str, value: str) -> str:
    return f"--set data.{field}={shlex.quote(value)}"


def unused_words(unused: Sequence[Unused]) -> str:
    """Return the names of what was not used, with their shares; of many the most frequent."""
    words = ", ".join(
        f"{'key of messages ' * (one['kind'] == _MEMBER)}{one['name']}"
        f" (in {one['share']:.0%} of the rows)"
        for one in unused[:_TOLD]
    )
    return words + (f" and {len(unused) - _TOLD:,} more" if len(unused) > _TOLD else "")


def refuse_unused(unused: Sequence[Unused]) -> None:
    """Raise Refused (`unused_columns`) for what weighs too much to be left out unasked."""
    heavy = [one for one in unused if one["weighs"]]
    if not heavy:
        return
    raise Refused(
        f"not used, though it holds text for most of what a row says: {unused_words(heavy)}",
        code="unused_columns",
        hint=f"to use it: {heavy[0]['use'] or _MAP}; to leave it out:"
        " --set data.allow=unused_columns",
        field="data.columns",
    )


def refuse_dropped(tally: Tally, split: str) -> None:
    """Raise Refused (`dropped_rows`) where one rule takes away more than LIMIT of the rows."""
    for rule in Rule:
        dropped = 0 if rule in _HARMLESS else tally.dropped(rule)
        if dropped <= LIMIT * tally.read:
            continue
        raise Refused(
            f"{dropped:,} of the {tally.read:,} rows of split {split}"
            f" ({dropped / tally.read:.0%}) would be left out: {rule}: {REASONS[rule]}"
            f"; for example {tally.example_words(rule)}",
            code="dropped_rows",
            hint=f"{_MENDS.get(rule, 'mend the rows')}; to go on without them:"
            " --set data.allow=dropped_rows",
        )


_MENDS = {
    Rule.TOO_LONG: "raise train.max_length where the model takes more, or cut the texts yourself",
    Rule.BAD_ANSWER: "only the good answers can be trained on",
    Rule.UNTRAINABLE: "look at data.chat_template and data.format",
    Rule.MISSING: "look at data.columns, or fill the column",
    Rule.CONFLICT: "decide which label is right",
}


def assert_balance(tally: Tally, kept: int) -> None:
    """Assert that every row that was read is kept, or counted under one rule."""
    left = tally.left()
    assert left == kept, f"{tally.read} rows read, {left} left by the rules, {kept} kept"
