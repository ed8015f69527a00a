"""The page stands alone, and nothing that stands in the rows can do anything in it."""

from html.parser import HTMLParser
from pathlib import Path

from tests.support.data_jobs import MakeJob, qa, write_jsonl
from tests.unit.preview.conftest import MakeLook
from transformers import PreTrainedTokenizerFast

from ftq_shared.paths import JobPaths, write_atomic
from ftq_worker.report.left_out import add_left_out
from ftq_worker.report.page import to_html
from ftq_worker.report.plots import bars_plot, histogram_plot

EVIL = "<script src='https://evil.example/x.js'></script><img src=x onerror=alert(1)>"
VOID = {"meta"}
SHAPES = {"svg", "rect", "text", "line", "g", "title"}
TEXT = {"html", "head", "body", "style", "h1", "h2", "p", "pre", "mark", "span", "strong", "br"}
TABLE = {"table", "tr", "td", "th", "code"}


class Page(HTMLParser):
    """Collects the elements, their attributes and the text of a page."""

    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: set[str] = set()
        self.text = ""
        self.feed(page.decode())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data: str) -> None:
        self.text += data


def test_no_text_of_the_rows_becomes_an_element(tmp_path: Path, look: MakeLook) -> None:
    rows = [
        {"question": f"{EVIL} {i}", "answer": f"\x1b[31m{EVIL}\u202e", f"<b>{EVIL}": f"extra {i}"}
        for i in range(40)
    ]
    report = look(write_jsonl(tmp_path / "rows.jsonl", [*rows, "{" + EVIL]))
    page = Page(to_html(report))
    assert set(page.tags) <= VOID | SHAPES | TEXT | TABLE
    assert EVIL in page.text
    assert not {"src", "href", "onerror", "onload", "style"} & page.attributes
    assert "\x1b" not in page.text
    assert "\u202e" not in page.text
    assert page.tags.count("svg") == 2  # lengths, and the rows after each rule


def test_it_shows_what_is_trained_and_what_is_left_out(tmp_path: Path, look: MakeLook) -> None:
    report = look(write_jsonl(tmp_path / "rows.jsonl", [*qa(40), "{broken"]))
    html = to_html(report).decode()
    assert "<mark>It is 0.&lt;|im_end|&gt;</mark>" in html
    assert "rows.jsonl line 41" in html
    assert "prefers-color-scheme: dark" in html
    assert "default-src 'none'" in html


def test_each_job_leaves_its_page(
    tmp_path: Path, make_job: MakeJob, tokenizer: PreTrainedTokenizerFast
) -> None:
    job = make_job(write_jsonl(tmp_path / "rows.jsonl", qa(60)), tokenizer, max_positions=512)
    prepared = job.run()
    page = Page(job.ctx.paths.data_report.read_bytes())
    assert f"train {prepared.rows['train']:,}" in page.text
    assert page.tags.count("pre") == 20


def test_rows_left_out_by_name_are_added_once(tmp_path: Path, look: MakeLook) -> None:
    paths = JobPaths(tmp_path / "storage", "ft-aaaaaaaa")
    row = {"file": f"{EVIL}.csv", "row": 3, "from_step": 21}
    add_left_out(paths, [row])  # of an older version: there is no page
    assert not paths.data_report.exists()
    bare = to_html(look(write_jsonl(tmp_path / "rows.jsonl", qa(40))))
    write_atomic(paths.data_report, bare)
    for _ in range(2):
        add_left_out(paths, [row])
        page = Page(paths.data_report.read_bytes())
        assert page.text.count("Left out of training by name") == 1
        assert f"{EVIL}.csv321" in page.text
        assert set(page.tags) <= VOID | SHAPES | TEXT | TABLE
    add_left_out(paths, [])  # a training that started afresh, without the file
    assert paths.data_report.read_bytes() == bare


def test_plots_take_what_there_is() -> None:
    assert "<rect" in histogram_plot({"edges": [3.0, 4.0], "rows": [7]}, "t")
    assert "x&lt;y" in bars_plot([("x<y", 0)], "t")
    assert bars_plot([], "t").startswith("<svg")
