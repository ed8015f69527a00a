"""A file of rows by name: what `ftq replay --rows-out` writes and `ftq retry --without-rows` reads.

One JSON object a line. `file` and `row` say which row is meant, as the data report names it; the
rest is for whoever reads the file and decides which lines to delete.
"""

import difflib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from ftq_shared.errors import UsageError
from ftq_shared.redaction import escape_json
from ftq_shared.row_refs import ROWS_MAX, RowRef

# What a line may hold. `job` is that of the row: rows of another job are other rows.
KEYS = (
    *("job", "step", "file", "row", "line", "tokens", "trained", "label"),
    *("loss", "grad_norm", "nonfinite", "text"),
)
_TOLD = 5  # lines with an error that are named
_EXAMPLE = '{"file":"rows.jsonl","row":12}'


def write_rows(path: Path, job: str, rows: Iterable[Mapping[str, object]]) -> None:
    """Write the rows of a job. Raises UsageError where the file is there or cannot be written."""
    try:
        with path.open("x", encoding="utf-8") as file:
            for row in rows:
                line = {"job": job, **{key: row[key] for key in KEYS if key in row}}
                text = json.dumps(line, ensure_ascii=False, separators=(",", ":"))
                file.write(escape_json(text) + "\n")
    except OSError as error:
        raise cannot_write(path, error) from error


def check_new(path: Path) -> None:
    """Raise UsageError where a file is there, as it may be somebody's data, or cannot be made."""
    try:
        path.open("x").close()
        path.unlink()
    except OSError as error:
        raise cannot_write(path, error) from error


def cannot_write(path: Path, error: OSError) -> UsageError:
    """Return the error for a file that is not written."""
    return UsageError(
        f"--rows-out {path}: {error.strerror}",
        code="not_written",
        hint="give another name; nothing is written over",
        file=str(path),
    )


def read_rows(path: Path, job: str) -> list[RowRef]:
    """Return the rows that a file names, in order.

    Raises UsageError for a file that cannot be read, names no row, or names rows of another job;
    all lines that are wrong are told together.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")  # a text may hold other breaks
    except OSError as error:
        raise _bad(path, f"{error.strerror}", code="unreadable_file") from error
    except UnicodeDecodeError as error:
        raise _bad(
            path, f"is no UTF-8 text (byte {error.start})", code="unreadable_file"
        ) from error
    found: list[RowRef] = []
    wrong: list[tuple[int, str]] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            found.append(_read(line, job))
        except ValueError as error:
            wrong.append((number, str(error)))
    if wrong:
        named = "; ".join(f"line {number}: {why}" for number, why in wrong[:_TOLD])
        more = f"; and {len(wrong) - _TOLD} more lines" if len(wrong) > _TOLD else ""
        raise _bad(path, f"{named}{more}", line=wrong[0][0])
    rows = list(dict.fromkeys(found))
    if not rows:
        raise _bad(path, "names no row: every line was deleted", code="no_rows")
    if len(rows) > ROWS_MAX:
        raise _bad(path, f"names {len(rows):,} rows; at most {ROWS_MAX:,} can be left out by name")
    return rows


def _read(line: str, job: str) -> RowRef:
    """Return the row of one line. Raises ValueError with what is wrong."""
    try:
        raw = json.loads(line)
    except (ValueError, RecursionError):
        raise ValueError(f"no JSON object: {line.strip()[:40]!r}") from None
    if not isinstance(raw, dict):
        raise ValueError(f"no JSON object: {line.strip()[:40]!r}")
    if unknown := [key for key in raw if key not in KEYS]:
        near = difflib.get_close_matches(unknown[0], KEYS, n=1)
        meant = f"; did you mean {near[0]}?" if near else ""
        raise ValueError(f"an unknown key {unknown[0][:40]!r}{meant}")
    file, row = raw.get("file"), raw.get("row")
    if not isinstance(file, str) or not file:
        raise ValueError("no file is named (file: its name, as text)")
    if type(row) is not int or row < 0:
        raise ValueError(f"row is {row!r:.40}, and not a whole number from 0")
    if raw.get("job", job) != job:
        raise ValueError(f"a row of another job, {raw['job']!r:.40}; this one is {job}")
    return RowRef(file, row)


def _bad(path: Path, what: str, *, code: str = "bad_row_file", line: int = 0) -> UsageError:
    where = f"--without-rows {path}"
    hint = (
        f"one row a line, such as {_EXAMPLE}; `ftq replay JOB --step N --rows-out FILE` writes it:"
        " delete the lines of rows that stay"
    )
    if line:
        return UsageError(f"{where}: {what}", code=code, hint=hint, file=str(path), line=line)
    return UsageError(f"{where}: {what}", code=code, hint=hint, file=str(path))
