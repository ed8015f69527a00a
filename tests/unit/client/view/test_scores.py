"""The golden scores of a job: figures always, colours only where they are a verdict."""

import pytest

from ftq_client.view.lines import ASCII, Style, text_of
from ftq_client.view.model import JobView
from ftq_client.view.summary import score_spans


@pytest.mark.parametrize(("rows", "judged"), [(29, False), (30, True)])
def test_few_rows_are_no_verdict(rows: int, judged: bool) -> None:
    view = JobView("ft-aaaaaaaa", before={"loss": 2.0, "rows": rows})
    view.after = {"loss": 1.0, "rows": rows}
    ((_, line),) = score_spans(view, ASCII)
    assert (f"on {rows} golden rows, too few rows to judge" in text_of(line)) is not judged
    assert any(style is Style.GOOD for _, style in line) is judged
