"""Rows from plain text: one a line."""

import io
from collections.abc import Iterator
from pathlib import Path

from ftq_worker.data.rows import ROW_MAX, TOO_LONG, Row, has_surrogates, lines_of
from ftq_worker.data.text_encoding import open_text


def read_text(path: Path, first: int, cut: bool = False) -> Iterator[Row]:
    """Yield one row with the column `text` for each line that is not blank.

    Raises Refused (`bad_encoding`, `bad_file`). `cut` makes no difference.
    """
    number = first
    with io.TextIOWrapper(open_text(path), "utf-8", errors="surrogateescape") as file:
        for line, text in enumerate(lines_of(file, "\n"), start=1):
            if not text.strip():
                continue
            problem = "not UTF-8" if has_surrogates(text) else ""
            problem = TOO_LONG if len(text) > ROW_MAX else problem
            values = {} if problem else {"text": text.rstrip("\n")}
            yield Row(path.name, number, line, values, problem)
            number += 1
