"""What of the rows nothing was made of: nobody has to think of a column for it to be named.

Whoever makes an example marks the columns and keys that it reads; the ledger counts the others that
hold something. Every row of a split is kept, or counted under the rule that took it away;
`assert_balance` says so.
"""

import re
import shlex
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ftq_shared.errors import Refused
from ftq_shared.spec import Columns, Task
from ftq_worker.data.cleaning import REASONS, RowProblem, Rule, Tally
from ftq_worker.data.column_values import text_in
from ftq_worker.data.examples import Example, Made
from ftq_worker.data.layouts import BESIDE
from ftq_worker.data.odd_texts import OddTexts
from ftq_worker.job.reports import Unused

LOOKED_AT = 500  # rows whose texts are measured
LIMIT = 0.1  # share of the rows that one reason may take away, or an unused text may stand in
_NAMED = 1000  # columns that are counted each: of rows with ids for keys each has its own
_OTHERS = "all other columns"
_TOLD = 20  # names in a message
_WORDS = 4  # from which on a value is a sentence, not a name
_LENGTH = 0.5  # of the prompt; a shorter text beside it is a remark
_REPEATS = 0.9  # share of the rows in which a value must stand in the used text as well
_CHANCE = 20  # characters from which on a text stands in another one by no chance
_SOME = 50  # characters by which values are told apart
_TRIED = 5  # rows that are rendered with and without a key
_COPY = 0.2  # share of a rendered copy that is the text itself; the rest is its template
# Rules that take no text from training that is not there once more, or that judges the model.
_HARMLESS = frozenset(
    {Rule.BLANK, Rule.CONTROL_CHARACTERS, Rule.DUPLICATE, Rule.NEAR_DUPLICATE, Rule.HELD_OUT}
)
_MAP = "say in data.columns which part it plays"
_NESTED = "write its texts into a column of their own, and map that"
_JUDGED = "leave out the rows that should not be learned, or write 0 into a column weight"
_WEIGHT = 'write "weight": 0 into the answers that should not be learned'
_MEMBER = "key of messages"
_ANSWERED = "write an answer behind them; a question alone teaches nothing"
# Columns by whose names an answer, a label or a way to it stands in them.
_ANSWERS = re.compile(
    "answer|response|reject|chosen|label|solution|output|completion|target|distract|reason|cot|(?<!con)text"
)
_READ_BY_FTQ = frozenset({"role", "content", "learned"})
# Columns by whose names a verdict on the answer stands in them.
_JUDGES = re.compile(
    r"(?:^|_)(?:score|rating|reward|quality|grade|verdict|correct|correctness|verified|valid"
    r"|accepted|passed|helpfulness|weight)s?(?:$|_)"
)
_VERDICT = "verdict column"
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
    nested: bool = False  # it holds lists or objects
    some: list[str] = field(default_factory=list)  # the first two values that differ

    def take_in(self, later: "_Left") -> None:
        """Count what was counted in the rows that follow."""
        self.rows += later.rows
        self.measured += later.measured
        self.chars += later.chars
        self.words += later.words
        self.repeats += later.repeats
        self.nested = self.nested or later.nested
        for value in later.some:
            self.meet(value)

    def meet(self, value: str) -> None:
        if len(self.some) < 2 and value not in self.some:
            self.some.append(value)

    @property
    def is_text(self) -> bool:
        """Whether it holds sentences, and not ids, names or figures."""
        return self.measured > 0 and self.words >= _WORDS * self.measured

    def judges(self, column: str) -> bool:
        """Return whether it may say which answers are good: by its name, and as it varies."""
        named = bool(_JUDGES.search(column.lower()))
        return named and len(self.some) > 1 and not self.is_text


@dataclass
class _Key:
    """One key of the messages of a role, or the tools beside them, that only a template reads."""

    rows: int = 0
    examples: list[Example] = field(default_factory=list)  # the first _TRIED of them


class Ledger:
    """Counts what was not used in the rows of one split."""

    def __init__(self, known: Sequence[str] = (), before: int = 0) -> None:
        self._known = frozenset(known)  # columns that are used for something else, as for groups
        self._before = before  # rows that another ledger has counted, which takes this one in
        self._left: dict[str, _Left] = defaultdict(_Left)
        self._keys: dict[tuple[str, str], _Key] = defaultdict(_Key)  # by role and key
        self.odd = OddTexts()
        self._cut = 0  # rows with messages behind the last answer
        self.rows = 0  # that an example was made of
        self._prompt_chars = 0  # of the rows that are measured

    def add(self, values: Mapping[str, Any], made: Made) -> None:
        """Count one row that an example was made of."""
        self.rows += 1
        for role_and_key in _keys(made.example):
            key = self._keys[role_and_key]
            key.rows += 1
            if len(key.examples) < _TRIED:
                key.examples.append(made.example)
        self.odd.add(values, made)
        self._cut += made.cut
        measured = self._before + self.rows <= LOOKED_AT
        texts: list[str] | None = None
        if measured:
            self._prompt_chars += len(_prompt(made.example))
        for column, value in values.items():
            if column in made.taken or column in self._known or value in (None, "", [], {}):
                continue
            left = self._column(column)
            left.rows += 1
            if measured:
                texts = _texts(made.example) if texts is None else texts
                _measure(left, text_in(value), texts)
            if len(left.some) < 2:
                left.meet(str(value)[:_SOME])
            left.nested = left.nested or isinstance(value, list | tuple | Mapping)

    def take_in(self, later: "Ledger") -> None:
        """Count what the ledger of the rows that follow has counted."""
        self.rows += later.rows
        self._cut += later._cut
        self._prompt_chars += later._prompt_chars
        self.odd.take_in(later.odd)
        for role_and_key, key in later._keys.items():
            mine = self._keys[role_and_key]
            mine.rows += key.rows
            mine.examples += key.examples[: _TRIED - len(mine.examples)]
        for column, left in later._left.items():
            self._column(column).take_in(left)

    def _column(self, name: str) -> _Left:
        """Return the counts of a column; beyond the first _NAMED all are counted as one."""
        many = len(self._left) >= _NAMED and name not in self._left
        return self._left[_OTHERS if many else name]

    def unused(
        self, columns: Columns, task: Task, render: Callable[[Example], object] | None = None
    ) -> list[Unused]:
        """Return every column and key that was not used, the most frequent first.

        `render` writes an example as the model sees it; None while that is not known: the keys of
        messages are not judged then.
        """
        found = []
        for column, left in self._left.items():
            judges = task is Task.SFT and left.judges(column)
            if judges or not self._repeats(left):
                kind = _VERDICT if judges else "column"
                use = _use(column, columns, task) if left.is_text else ""
                if use and left.nested:
                    use = _NESTED
                if judges and set(left.some) == {"True", "False"}:
                    use = _set("columns.label", column)
                if columns.label and column in (f"{columns.label}_text", f"{columns.label}_name"):
                    use = _set("columns.label", column)
                weighs = self._weighs(left) or (judges and left.rows > LIMIT * self.rows)
                found.append(self._one(column, kind, left.rows, use=use, weighs=weighs))
        found += self._unread(render) if render is not None else ()
        if self._cut:
            found.append(self._one("messages behind the last answer", "", self._cut, use=_ANSWERED))
        return sorted(found, key=lambda one: (-one["rows"], one["name"]))

    def _unread(self, render: Callable[[Example], object]) -> Iterator[Unused]:
        """Yield the keys without which each row that was tried reads the same."""
        names = [name for _, name in self._keys]
        for (role, name), key in self._keys.items():
            if any(_is_read(render, example, role, name) for example in key.examples):
                continue
            shown = name if names.count(name) == 1 else f"{name} of the {role}"
            many = key.rows > LIMIT * self.rows
            if role == "assistant" and _JUDGES.search(name.lower()):
                shown = f"{name} of messages"
                yield self._one(shown, _VERDICT, key.rows, use=_WEIGHT, weighs=many)
                continue
            yield self._one(
                shown,
                _MEMBER if role else "column",
                key.rows,
                use=f"data.chat_template, with a template that writes {name}",
                weighs=name in _VITAL and many,
            )

    def _one(self, name: str, kind: str, rows: int, *, use: str, weighs: bool = False) -> Unused:
        share = round(rows / self.rows, 4)
        return Unused(name=name, kind=kind, rows=rows, share=share, weighs=weighs, use=use)

    def _weighs(self, left: _Left) -> bool:
        """Return whether a column holds text of length beside a short prompt, in many rows."""
        if not left.measured or left.rows <= LIMIT * self.rows:
            return False
        prompt = self._prompt_chars / min(self.rows, LOOKED_AT)
        return left.is_text and left.chars / left.measured >= _LENGTH * prompt

    @staticmethod
    def _repeats(left: _Left) -> bool:
        return left.measured > 0 and left.repeats >= _REPEATS * left.measured


def _keys(example: Example) -> set[tuple[str, str]]:
    """Return the keys of each role's messages that only a template reads; tools have no role."""
    keys = {
        (message["role"], key)
        for message in example.messages
        if len(message) > 2
        for key in message
        if key not in _READ_BY_FTQ
    }
    return keys | {("", "tools")} if example.tools else keys


def _is_read(render: Callable[[Example], object], example: Example, role: str, key: str) -> bool:
    """Return whether a row reads differently without a key; of a row that is refused, nobody knows.

    A template that holds the word need not write it: it may stand in a comment, or under an if.
    """
    if role:
        messages = [
            {k: v for k, v in message.items() if k != key or message["role"] != role}
            for message in example.messages
        ]
        bare = replace(example, messages=messages)
    else:
        bare = replace(example, tools=[])
    try:
        whole = render(example)
    except RowProblem:
        return True
    try:
        return render(bare) != whole
    except RowProblem:
        return True


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
    if task is Task.SFT and columns.system is None and column.lower() in BESIDE["system"]:
        return _set("columns.system", column)
    if task is Task.CLASSIFICATION and columns.text_pair is None:
        return _set("columns.text_pair", column)
    if columns.messages:
        return "" if columns.system else _set("columns.system", column)
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
    verdicts = [one for one in heavy if one["kind"] == _VERDICT]
    if len(verdicts) == len(heavy):
        found = "not used, though it may say which answers are wrong, and all are trained alike"
        use = verdicts[0]["use"] or _JUDGED
    else:
        found = "not used, though it holds text for most of what a row says"
        use = next(one for one in heavy if one["kind"] != _VERDICT)["use"] or _MAP
    raise Refused(
        f"{found}: {unused_words(heavy)}",
        code="unused_columns",
        hint=f"to use it: {use}; to leave it out: --set data.allow=unused_columns",
        field="data.columns",
    )


def refuse_dropped(tally: Tally, split: str, at_least: float | None = None) -> None:
    """Raise Refused (`dropped_rows`) where one rule takes away more than LIMIT of the rows.

    `at_least` is the limit for a tally of the first rows, in rows.
    """
    first = "" if at_least is None else "first "
    for rule in Rule:
        dropped = 0 if rule in _HARMLESS else tally.dropped(rule)
        if dropped <= (LIMIT * tally.read if at_least is None else at_least):
            continue
        raise Refused(
            f"{dropped:,} of the {first}{tally.read:,} rows of split {split}"
            f" ({dropped / tally.read:.0%}) would be left out: {rule}: {REASONS[rule]}"
            f"; for example {tally.example_words(rule)}",
            code="dropped_rows",
            hint=f"{MENDS.get(rule, 'mend the rows')}; to go on without them:"
            " --set data.allow=dropped_rows",
        )


MENDS = {
    Rule.TOO_LONG: "raise train.max_length where the model takes more, or cut the texts yourself",
    Rule.BAD_ANSWER: "only the good answers can be trained on",
    Rule.UNTRAINABLE: "change the rows as the template wants them, or give another one with"
    " data.chat_template",
    Rule.MISSING: "look at data.columns, or fill the column",
    Rule.EMPTY: "look at data.columns, or fill the column",
    Rule.CONFLICT: "decide which label is right",
}


def assert_balance(tally: Tally, kept: int) -> None:
    """Assert that every row that was read is kept, or counted under one rule."""
    left = tally.left()
    assert left == kept, f"{tally.read} rows read, {left} left by the rules, {kept} kept"
