"""What a job trains on, as `ftq preview --json` prints it: the form of the data report.

The worker's `report` makes it, from the tables that the rows were cleaned in; the client prints it,
and the page `report.html` of a job shows it. docs/preview.md documents every field; a test holds
the two together.
"""

from typing import Any, NotRequired, TypedDict

from ftq_shared.errors import ErrorJson

VERSION = 1


class Choice(TypedDict):
    """What a setting has come to."""

    value: Any  # as the field of the spec holds it
    reason: str  # why it is this one


class LeftOutRow(TypedDict):
    """A row that a cleaning rule met."""

    file: str  # its name, without folders
    row: int  # position in its split, from 0
    line: NotRequired[int]  # from 1; absent where the format has no lines
    field: NotRequired[str]  # absent where the whole row is meant
    what: str  # what is wrong with it


class RuleFacts(TypedDict):
    """What one cleaning rule did to a split."""

    rule: str  # its name
    reason: str  # what it means
    rows: int  # that it met
    rows_in: int  # before it
    rows_out: int  # after it; as many where it only repairs texts
    examples: list[LeftOutRow]  # a few of them


class SplitFacts(TypedDict):
    """One split that is read."""

    split: str  # its name
    role: str  # train, validation or test
    read: int  # rows
    kept: int  # rows that no rule took away
    whole: bool  # false where only its first rows were read
    rules: list[RuleFacts]  # of those that met a row, in the order in which rows meet them


class TokenFacts(TypedDict):
    """Lengths of the training rows that are kept, in tokens."""

    total: int  # of all rows together
    trained: int | None  # that the loss counts; None where rows have a label instead
    p50: int  # half of the rows are not longer
    p90: int  # 90 % of the rows are not longer
    p99: int  # 99 % of the rows are not longer
    max: int  # the longest row


class Histogram(TypedDict):
    """How many of those rows have a length from one edge up to the next."""

    edges: list[float]  # in tokens; one more than there are counts
    rows: list[int]  # from each edge up to the next


class LabelFacts(TypedDict):
    """One label of a classification."""

    label: str  # its name
    rows: int  # training rows that are kept


class UnusedFacts(TypedDict):
    """A column, or a key of messages, that nothing was made of."""

    name: str  # as the dataset has it
    kind: str  # column, key of messages, or '' for a part of conversations
    rows: int  # in which it holds something
    share: float  # of the rows that were read, 0 to 1
    use: str  # the setting that would use it; '' for ids, names, figures, and what is an answer


class UnreadFacts(TypedDict):
    """A file of the dataset that is not read."""

    name: str  # path below the dataset's folder
    reason: str  # why it is not read


class Warned(TypedDict):
    """Something to know about that stops nobody."""

    message: str  # what was found
    hint: str  # what to do; '' for nothing


class Piece(TypedDict):
    """A run of tokens of one kind, as text."""

    text: str  # as the tokens stand for it
    trained: bool  # whether the loss counts its tokens


class ReportRow(TypedDict):
    """One training row as the model sees it."""

    file: str  # its name, without folders
    row: int  # position in its split, from 0
    line: NotRequired[int]  # from 1
    tokens: int  # its length
    trained: int | None  # tokens that the loss counts; None where the row has a label instead
    label: NotRequired[str]  # what the model learns to say of it
    pieces: list[Piece]  # in order: together the text
    hidden: int  # characters in the middle of long pieces that are not shown


class DataReport(TypedDict):
    """What is trained, what is left out, and why."""

    v: int  # version of this form
    model: str  # as the spec names it
    dataset: str  # as the spec names it
    task: Choice  # sft, classification or text
    layout: str  # for example question/answer
    columns: dict[str, str]  # the column of every part that is used
    format: Choice  # chat or plain
    max_length: Choice  # tokens; longer rows are left out whole
    first_rows: int | None  # rows of each split that were read at most; None: all
    splits: list[SplitFacts]  # that are read
    sets: dict[str, int]  # rows of train, validation, golden; empty where not all rows were read
    tokens: TokenFacts  # how long the rows are
    lengths: Histogram  # the same, to be drawn
    labels: list[LabelFacts]  # the most frequent first; empty for other tasks
    unused: list[UnusedFacts]  # columns and keys
    unread_files: list[UnreadFacts]  # files of the dataset
    unused_splits: list[str]  # splits of the dataset
    warnings: list[Warned]  # what to know; empty in a job's own page, where they are events
    rows: list[ReportRow]  # a few, from beginning to end
    refusal: ErrorJson | None  # why such a job would be refused; None: it would go on
