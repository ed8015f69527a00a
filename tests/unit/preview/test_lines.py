"""A report on a terminal: nothing is wider than it, and nothing in the rows can steer it."""

from pathlib import Path

import pytest
from tests.support.data_jobs import qa, write_jsonl
from tests.unit.preview.conftest import MakeLook

from ftq_client.commands.preview import preview
from ftq_client.view.data_report import report_lines
from ftq_client.view.lines import ASCII, UNICODE, Style, text_of, width_of
from ftq_shared.preview_messages import FIRST_ROWS
from ftq_worker.report.page import to_html


@pytest.mark.parametrize("width", [40, 80, 120])
def test_lines_fit_the_terminal_and_cannot_steer_it(
    tmp_path: Path, look: MakeLook, width: int
) -> None:
    rows = [
        {"question": f"\x1b[2J{'漢字' * 15} {i}", "answer": f"{'a' * 250}\u202e\r\n\tdone {i}"}
        for i in range(40)
    ]
    file = write_jsonl(tmp_path / "rows.jsonl", [*rows, "{broken " + "x" * 200])
    report = look(file, data={"allow": ["dropped_rows"]}, train={"max_length": 512})
    lines = report_lines(report, width=width, glyphs=UNICODE, marks=True)
    assert max(width_of(line) for line in lines) <= width
    text = "\n".join(map(text_of, lines))
    assert not set("\x1b\u202e\r\t") & set(text)


def test_what_is_trained_is_bright_or_in_brackets(tmp_path: Path, look: MakeLook) -> None:
    report = look(write_jsonl(tmp_path / "rows.jsonl", qa(40)))
    coloured = report_lines(report, width=80, glyphs=ASCII, marks=False)
    bright = [text for line in coloured for text, style in line if style is Style.GOOD]
    assert bright[0] == "It is 0.<|im_end|>"
    dim = [text for line in coloured for text, style in line if style is Style.DIM]
    assert any("What is 0 plus 0?" in text for text in dim)
    plain = "\n".join(text_of(x) for x in report_lines(report, width=80, glyphs=ASCII, marks=True))
    assert "[[It is 0.<|im_end|>]]" in plain


def test_a_setting_that_would_use_a_column_can_be_copied(tmp_path: Path, look: MakeLook) -> None:
    rows = [{**row, "a column with quite a long name of its own": f"n{i} and more words to read"}
            for i, row in enumerate(qa(40))]  # fmt: skip
    report = look(write_jsonl(tmp_path / "rows.jsonl", rows))
    text = "\n".join(text_of(x) for x in report_lines(report, width=40, glyphs=ASCII, marks=True))
    assert report["unused"][0]["use"] in text


def test_help_and_page_tell_how_many_rows_are_read() -> None:
    page = (Path(__file__).parents[3] / "docs" / "preview.md").read_text()
    assert f"up to {FIRST_ROWS:,} rows of each split" in page
    assert f"up to {FIRST_ROWS:,} rows of each split" in (preview.help or "")


def test_what_no_setting_would_use_promises_none(tmp_path: Path, look: MakeLook) -> None:
    rows = [row | {"web_id": n} for n, row in enumerate(qa(20))]
    report = look(write_jsonl(tmp_path / "rows.jsonl", rows))
    (unused,) = report["unused"]
    assert (unused["name"], unused["use"]) == ("web_id", "")
    text = "\n".join(map(text_of, report_lines(report, width=80, glyphs=ASCII, marks=True)))
    assert "column web_id  in 100% of the rows\n" in text
    assert "to use it" not in text
    assert "<code></code>" not in to_html(report).decode()


def test_a_secret_of_a_row_is_not_shown(tmp_path: Path, look: MakeLook) -> None:
    secret = f"hf_{'a1B2' * 9}"
    rows = [row | {"answer": f"{row['answer']} {secret}"} for row in qa(20)]
    report = look(write_jsonl(tmp_path / "rows.jsonl", rows))
    assert secret not in str(report)
    assert "[hidden]" in str(report["rows"])
    assert secret not in to_html(report).decode()
