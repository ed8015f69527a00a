"""Texts that are hardly what they seem: counted as rows are read, told before they are trained."""

import re
from collections.abc import Iterator, Mapping

from ftq_shared.spec import Task
from ftq_worker.data.examples import Made
from ftq_worker.data.formatted_text import MOST, mark_in, marked_words, mend

_NO_VALUES = frozenset({"nan", "none", "null", "n/a", "<noinput>", "<na>"})  # that are text
_ECHO = 20  # characters from which on an answer begins with its question by no chance
# UTF-8 that was read as cp1252: an umlaut, a dash, a quote.
_BROKEN = re.compile("[\u00c3\u00c2][\u0080-\u00bf]|\u00e2\u20ac")
_FEW = 10  # rows of which all answers may be the same


class OddTexts:
    """Counts of the odd texts in the rows of one split."""

    def __init__(self) -> None:
        self.rows = 0
        self.marked, self.mark = 0, ""  # rows with marks of a chat format, and the first of them
        self._no_values: dict[str, tuple[str, int]] = {}  # by column: the word, and rows with it
        self._broken = 0  # rows with letters that were read in a wrong encoding
        self._echoes = 0  # rows whose answer begins with the whole question
        self._answers: set[str] = set()  # of one message, two of them where they differ

    def add(self, values: Mapping[str, object], made: Made) -> None:
        """Count one row that an example was made of."""
        self.rows += 1
        if mark := mark_in(made.example):
            self.marked, self.mark = self.marked + 1, self.mark or mark
        for column in made.taken:
            value = values.get(column)
            if (
                isinstance(value, str)
                and len(value) < _ECHO
                and value.strip().lower() in _NO_VALUES
            ):
                word, rows = self._no_values.get(column, (value.strip(), 0))
                self._no_values[column] = (word, rows + 1)
        messages = made.example.messages
        self._broken += _is_broken(made.example.text) or any(
            _is_broken(message["content"]) for message in messages
        )
        if not messages:
            return
        answer = messages[-1]["content"] or str(messages[-1].get("tool_calls"))
        if len(self._answers) < 2:
            self._answers.add(answer)
        asked = messages[-2]["content"] if len(messages) > 1 else ""
        self._echoes += len(asked) >= _ECHO and answer.lstrip().startswith(asked.strip())

    def take_in(self, later: "OddTexts") -> None:
        """Count what was counted in the rows that follow."""
        self.rows += later.rows
        self.marked, self.mark = self.marked + later.marked, self.mark or later.mark
        self._broken += later._broken
        self._echoes += later._echoes
        self._answers |= later._answers  # two or more are all the same here: they differ
        for column, (word, rows) in later._no_values.items():
            known, before = self._no_values.get(column, (word, 0))
            self._no_values[column] = (known, before + rows)

    def warnings(self, task: Task, format_: str) -> Iterator[tuple[str, str]]:
        """Yield what is odd, and what to do about it."""
        if self.marked and format_ == "chat":
            yield marked_words(self.marked, self.rows, self.mark), mend(self.marked, self.rows)
        if self.marked > MOST * self.rows and task is Task.TEXT:
            yield (
                f"{self.marked:,} of {self.rows:,} texts hold turns of a chat, for example"
                f" {self.mark!r}: what is asked is trained like what is answered",
                "to learn the answers alone, give rows of messages, or of prompt and completion",
            )
        if self._broken:
            yield (
                f"{self._broken:,} of {self.rows:,} rows hold letters that were once read in a"
                " wrong encoding, like '\u00c3\u00bc' for '\u00fc'; they are trained as they are",
                "write the file again from its source, as UTF-8",
            )
        if self._echoes > MOST * self.rows:
            yield (
                f"{self._echoes:,} of {self.rows:,} answers begin with their whole question: the"
                " model learns to repeat it",
                "take the questions out of the answers",
            )
        if self.rows >= _FEW and len(self._answers) == 1 and task is Task.SFT:
            yield (
                f"all {self.rows:,} answers are the same: {min(self._answers)[:60]!r}; the model"
                " learns to say it whatever is asked",
                "look at the column with the answers",
            )
        if task is not Task.CLASSIFICATION:  # odd labels are told of by themselves
            for column, (word, rows) in self._no_values.items():
                yield (
                    f"column {column} holds the word {word!r} in {rows:,} rows, and it is trained"
                    " as such",
                    "where it means none, write the rows without it",
                )


def _is_broken(text: str) -> bool:
    if text.isascii():
        return False
    some = "\u00c3" in text or "\u00c2" in text or "\u00e2\u20ac" in text  # before the pattern
    return some and _BROKEN.search(text) is not None
