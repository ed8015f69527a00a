"""Rows that a person left out of training by name, added to the job's report page.

Prepare writes the page; which rows a person leaves out is known once the training is done.
"""

from collections.abc import Sequence

from ftq_shared.paths import JobPaths, write_atomic
from ftq_worker.job.reports import LeftOutRow
from ftq_worker.report.plots import shown

_BEGIN, _END = "<!-- left out by name -->", "<!-- end of left out by name -->"
_LAST = "\n</body></html>"


def add_left_out(paths: JobPaths, rows: Sequence[LeftOutRow]) -> None:
    """Name the rows on the report page, in the place of those that it named before.

    A job without a page, of an older version, gets none.
    """
    try:
        page = paths.data_report.read_text(encoding="utf-8")
    except FileNotFoundError:
        return
    before, _, rest = page.partition(_BEGIN)
    page = before.rstrip("\n") + rest.partition(_END)[2] if rest else page
    head, last, _ = page.rpartition(_LAST)
    if not last:
        return
    section = f"\n{_section(rows)}" if rows else ""
    new = f"{head}{section}{_LAST}\n"
    if new != paths.data_report.read_text(encoding="utf-8"):
        write_atomic(paths.data_report, new)


def _section(rows: Sequence[LeftOutRow]) -> str:
    cells = "".join(
        f"<tr><td>{shown(row['file'])}</td><td class='n'>{row['row']:,}</td>"
        f"<td class='n'>{row['from_step']:,}</td></tr>"
        for row in rows
    )
    return (
        f"{_BEGIN}<h2>Left out of training by name</h2>"
        "<p>A person named these rows (<code>ftq retry --without-rows</code>); no step from the one"
        " given on has trained them.</p>"
        "<table><tr><th>file</th><th class='n'>row</th><th class='n'>from step</th></tr>"
        f"{cells}</table>{_END}"
    )
