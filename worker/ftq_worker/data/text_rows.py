"""Rows from plain text: one a line."""

import io
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from ftq_worker.data.json_values import parse_line
from ftq_worker.data.rows import ROW_MAX, TOO_LONG, Row, has_surrogates, lines_of
from ftq_worker.data.text_encoding import open_text

_LOOKED_AT = 20  # lines that tell whether a file is a table after all


def doubts_of(path: Path) -> str:
    """Return why the lines of a file are hardly texts, with what to do; "" when they may well be.

    Raises Refused as `read_text` does.
    """
    lines = [
        str(row.values["text"]) for row in islice(read_text(path, 0), _LOOKED_AT) if row.values
    ]
    if not lines:
        return ""
    if all(line.lstrip().startswith("{") and not parse_line(line.encode())[1] for line in lines):
        return "each is a JSON object; rename it to .jsonl to have its columns"
    tabs = {line.count("\t") for line in lines}
    if len(lines) > 1 and len(tabs) == 1 and tabs != {0}:
        return f"each has {tabs.pop() + 1} fields apart by tabs; rename it to .tsv to have columns"
    return ""


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
