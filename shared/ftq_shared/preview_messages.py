"""What `ftq preview` and the worker's code say to each other: one request, then lines of answer.

The request goes to the standard input of `python -m ftq_worker.preview` as one JSON object: so the
Hub token in it is seen by nobody. Each line of its standard output is one JSON object with one key:
`note` (words for people), and last `report` (a DataReport) or `error` (an ErrorJson).
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypedDict

from ftq_shared.data_report import DataReport, UnusedFacts
from ftq_shared.errors import ErrorJson

FIRST_ROWS = 5000  # of each split; more would take longer than a person waits for a look


class Answer(TypedDict, total=False):
    """One line of answer; one of the keys is there."""

    note: str
    report: DataReport
    error: ErrorJson


@dataclass(frozen=True)
class PreviewRequest:
    """What is to be looked at."""

    spec: dict[str, Any]  # a JobSpec as JSON, checked
    endpoint: str  # the Hub's URL
    rows: int  # that are shown
    folder: str  # scratch space, which whoever asks removes, whatever becomes of the answer
    model_folder: str = ""  # where the client's own model lies; '' for one that is elsewhere
    dataset_folder: str = ""  # where the client's own dataset lies, if it is a folder
    # The client's own files otherwise: where each lies, and its place among the job's inputs.
    files: Sequence[tuple[str, str]] = ()
    html: str = ""  # file that gets the page; '' for none
    token: str = field(default="", repr=False)  # for the Hub

    def to_json(self) -> str:
        return json.dumps(vars(self))

    @classmethod
    def from_json(cls, text: str) -> "PreviewRequest":
        fields = json.loads(text)
        return cls(**fields | {"files": tuple(map(tuple, fields["files"]))})


class ColumnsRequest(TypedDict):
    """What goes to `python -m ftq_worker.preview.columns`, as JSON on its standard input."""

    spec: dict[str, Any]  # a JobSpec as JSON, checked
    rows: Sequence[Mapping[str, Any]]  # the first ones


class ColumnsAnswer(TypedDict):
    """What it says of these rows, as JSON on its standard output."""

    unused: list[UnusedFacts]
    refusal: ErrorJson | None  # of validate, as far as these rows tell
