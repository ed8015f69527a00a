"""What a row of a prepared set is, and how examples become such rows."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict, final

from ftq_worker.data.cleaning import RowProblem
from ftq_worker.data.examples import Example
from ftq_worker.data.render import Renderer
from ftq_worker.job.reports import Shown

IGNORED = -100  # the label of a token that the loss does not count


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
class Encoded:
    """What became of examples that follow one another."""

    batch: Any  # pyarrow record batch of those without a problem
    problems: dict[int, RowProblem]  # by place among the examples


@dataclass(frozen=True)
class Encoder:
    """How the examples of one job become records for training."""

    schema: Any  # pyarrow schema of the records
    encode: Callable[[Sequence[Example], Sequence[int]], Encoded]  # given their label numbers
    show: Callable[[Example], Shown]
    format: str  # chat or plain
    render: Renderer | None = None  # of texts that are trained in part: which characters are

    def records(
        self, examples: Sequence[Example], labels: Sequence[int]
    ) -> list[Record | RowProblem]:
        """Return a record for each example, or what is wrong with it."""
        made = self.encode(examples, labels)
        rows = iter(made.batch.to_pylist())
        return [made.problems.get(i) or next(rows) for i in range(len(examples))]
