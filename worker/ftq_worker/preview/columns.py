"""What nothing would be made of in a person's first rows: told before a job is submitted.

    python -m ftq_worker.preview.columns

A ColumnsRequest comes on standard input, a ColumnsAnswer goes to standard output. No library but
pydantic is imported: it runs where the client alone is installed, in the time of a glance.
"""

import json
import sys

from ftq_shared.data_report import UnusedFacts
from ftq_shared.errors import FtqError
from ftq_shared.preview_messages import ColumnsAnswer, ColumnsRequest
from ftq_shared.spec import JobSpec
from ftq_worker.data.cleaning import RowProblem
from ftq_worker.data.columns import detect_layout
from ftq_worker.data.examples import example_maker
from ftq_worker.data.ledger import Ledger, refuse_unused


def answer(request: ColumnsRequest) -> ColumnsAnswer:
    """Return what is not used of the rows, and what validate will refuse, as far as they tell.

    Keys of messages are not judged: whether a chat template reads them is not known here.
    """
    spec = JobSpec.model_validate(request["spec"])
    rows = request["rows"]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    unused: list[UnusedFacts] = []
    try:
        layout = detect_layout(columns, rows, spec)
        ledger = Ledger([spec.data.group_by] if spec.data.group_by else [])
        make = example_maker(layout, spec.data.row_template, columns, {})
        for row in rows:
            try:
                ledger.add(row, make(row))
            except RowProblem:
                continue  # such rows are counted in validate, which reads them with their places
        found = ledger.unused(layout.columns, layout.task)
        unused = [
            UnusedFacts(
                name=one["name"],
                kind=one["kind"],
                rows=one["rows"],
                share=one["share"],
                use=one["use"],
            )
            for one in found
        ]
        if "unused_columns" not in spec.data.allow and spec.data.row_template is None:
            refuse_unused(found)
    except FtqError as error:
        return ColumnsAnswer(unused=unused, refusal=error.info().to_json())
    return ColumnsAnswer(unused=unused, refusal=None)


def main() -> None:
    """Answer one request."""
    json.dump(answer(json.load(sys.stdin)), sys.stdout)


if __name__ == "__main__":
    main()
