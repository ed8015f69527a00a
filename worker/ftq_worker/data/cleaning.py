"""The cleaning rules: what each one means, a count for every rule, and the text repairs.

A row meets the rules in the order of `Rule` and is counted under the first one that it breaks.
"""

import hashlib
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum

from ftq_shared.errors import Refused
from ftq_shared.events import EventType
from ftq_worker.data.rows import Row
from ftq_worker.job.context import Emit
from ftq_worker.job.reports import RowExample, RuleCount

EXAMPLES = 3  # rows that are shown per rule


class Rule(StrEnum):
    """Why a row leaves the training rows (or, for control characters, is changed)."""

    UNREADABLE = "unreadable"
    MISSING = "missing"
    BLANK = "blank"
    EMPTY = "empty"
    WRONG_TYPE = "wrong_type"
    CONVERSATION = "conversation"
    BAD_ANSWER = "bad_answer"
    CONTROL_CHARACTERS = "control_characters"
    DUPLICATE = "duplicate"
    CONFLICT = "conflicting_label"
    UNTRAINABLE = "untrainable"
    TOO_LONG = "too_long"
    NEAR_DUPLICATE = "near_duplicate"
    HELD_OUT = "held_out"


REASONS = {
    Rule.UNREADABLE: "the row is broken in its file",
    Rule.MISSING: "a column that is needed is absent or null",
    Rule.BLANK: "a row of plain text that holds nothing, as between paragraphs",
    Rule.EMPTY: "a text that is needed has nothing but white space",
    Rule.WRONG_TYPE: "a value is neither text nor a number, or not the kind that is needed",
    Rule.CONVERSATION: "a message lacks role or content, nobody answers, or roles do not alternate",
    Rule.BAD_ANSWER: "the row itself says that its answer is a bad one (label false, weight 0)",
    Rule.CONTROL_CHARACTERS: "control characters and broken code points are taken out of the text",
    Rule.DUPLICATE: "equal rows, but for white space and Unicode form; the first one stays",
    Rule.CONFLICT: "equal texts with another label; the first one stays",
    Rule.UNTRAINABLE: "the chat template refuses the row, or no token of it would be trained",
    Rule.TOO_LONG: "longer than train.max_length; a row is dropped whole, never cut",
    Rule.NEAR_DUPLICATE: "nearly equal to a validation or golden row; with data.dedupe near, to an"
    " earlier row with the same label as well",
    Rule.HELD_OUT: "part of the validation or golden set, equal to a row of it, or of its group",
}

# What `data.on_bad_row: fail` means: the rules that a broken row breaks.
BAD_ROW = frozenset({Rule.UNREADABLE, Rule.MISSING, Rule.EMPTY, Rule.WRONG_TYPE, Rule.CONVERSATION})


class RowProblem(Exception):
    """Raised while a row is read: it breaks a rule."""

    def __init__(self, rule: Rule, field_name: str, what: str, mend: str = "") -> None:
        whole = f"{what}; {mend}" if mend else what
        super().__init__(whole)
        self.rule, self.field, self.what = rule, field_name, whole
        self.bare, self.mend = what, mend  # the parts of `what`: the trouble, and what to do


@dataclass
class _Count:
    rows: int = 0
    examples: list[RowExample] = field(default_factory=list)


class Tally:
    """Counts what every rule did to the rows of one split, with a few examples of each."""

    def __init__(self) -> None:
        self.read = 0  # rows seen
        self._counts = {rule: _Count() for rule in Rule}

    def add(self, rule: Rule, row: Row, field_name: str = "", what: str = "") -> None:
        self.count(rule, 1, [row_example(row, field_name, what or REASONS[rule])])

    def count(self, rule: Rule, rows: int, examples: Iterable[RowExample] = ()) -> None:
        counted = self._counts[rule]
        counted.rows += rows
        counted.examples.extend(list(examples)[: EXAMPLES - len(counted.examples)])

    def take_in(self, later: "Tally") -> None:
        """Count what happened to the rows that follow."""
        self.read += later.read
        for rule, counted in later._counts.items():
            self.count(rule, counted.rows, counted.examples)

    def dropped(self, rule: Rule) -> int:
        """Return how many rows a rule took away."""
        return 0 if rule is Rule.CONTROL_CHARACTERS else self._counts[rule].rows

    def changed(self, rule: Rule) -> int:
        """Return how many rows a rule touched."""
        return self._counts[rule].rows

    def examples(self) -> list[RowExample]:
        """Return a few examples over all rules."""
        return [e for count in self._counts.values() for e in count.examples][:EXAMPLES]

    def example_words(self, rule: Rule) -> str:
        """Return the first row that a rule met, in words."""
        return "; ".join(map(_words, self._counts[rule].examples[:1]))

    def left(self) -> int:
        return self.read - sum(self.dropped(rule) for rule in Rule)

    def report(self) -> list[RuleCount]:
        """Return a count for every rule, in order: rows_in of one is rows_out of the last."""
        counts: list[RuleCount] = []
        rows = self.read
        for rule, count in self._counts.items():
            rows_in, rows = rows, rows - self.dropped(rule)
            counts.append(
                {
                    "rule": str(rule),
                    "rows_in": rows_in,
                    "rows_out": rows,
                    "reason": REASONS[rule],
                    "examples": count.examples,
                }
            )
        return counts

    def emit(self, emit: Emit, rules: Iterable[Rule]) -> None:
        wanted = {str(rule) for rule in rules}
        for entry in self.report():
            if entry["rule"] in wanted:
                emit(EventType.CLEANING, **entry)

    def summary(self) -> str:
        """Return the counts in words: `unreadable 3, empty 1`."""
        used = [f"{rule} {self.dropped(rule)}" for rule in Rule if self.dropped(rule)]
        return ", ".join(used) or "nothing was dropped"


def row_example(row: Row, field_name: str, what: str) -> RowExample:
    """Return one row as a cleaning event shows it."""
    example: RowExample = {"file": row.file, "row": row.number, "what": what}
    if row.line is not None:
        example["line"] = row.line
    if field_name:
        example["field"] = field_name
    return example


def bad_row(row: Row, problem: RowProblem) -> Refused:
    """Return the error that ends the job under `data.on_bad_row: fail`."""
    line = f", line {row.line}" if row.line is not None else f", row {row.number}"
    named = f"{problem.field}: " if problem.field else ""
    where = row.where()
    if problem.field:
        where["field"] = problem.field
    return Refused(
        f"{row.file}{line}: {named}{problem.what}",
        code="bad_row",
        hint="mend the row, or --set data.on_bad_row=drop to leave such rows out",
        **where,
    )


def empty_dataset(split: str, tally: Tally) -> Refused:
    """Return the error for a split of which cleaning left nothing."""
    if not tally.read:
        return Refused(
            f"split {split!r} has no rows",
            code="empty_dataset",
            hint="check data.split and the files",
        )
    examples = "; ".join(_words(example) for example in tally.examples())
    return Refused(
        f"nothing is left of the {tally.read:,} rows of split {split!r}: {tally.summary()}",
        code="empty_dataset",
        hint=f"for example {examples}" if examples else "look at the columns",
    )


def _words(example: RowExample) -> str:
    line = f" line {example['line']}" if "line" in example else f" row {example['row']}"
    named = f" {example['field']}" if "field" in example else ""
    return f"{example['file']}{line}{named}: {example['what']}"


# C0 and C1 without tab, line feed and carriage return; and half surrogate pairs, which no
# tokenizer and no Arrow file takes.
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_SURROGATE = re.compile("[\ud800-\udfff]")


def scrub(text: str) -> str:
    """Return the text without control characters; broken code points become U+FFFD."""
    return _SURROGATE.sub("\ufffd", _CONTROL.sub("", text))


def normal(text: str) -> str:
    """Return a text that is the same for texts equal but for white space and Unicode form."""
    composed = text if text.isascii() else unicodedata.normalize("NFC", text)
    return " ".join(composed.split())


def key_of(texts: Iterable[str]) -> int:
    """Return 64 bits that are equal for equal texts, which are `normal`.

    Two different texts among ten million share a key with probability 3e-6.
    """
    return int.from_bytes(hashlib.blake2b("\x1f".join(texts).encode(), digest_size=8).digest())
