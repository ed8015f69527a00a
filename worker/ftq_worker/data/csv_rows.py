"""Rows from CSV and its kin, read strictly: what does not fit the header is told with its line.

A quote that is not closed swallows the rows behind it. So an error of quoting costs one row only
where the line that holds it is whole by itself; else reading ends there.
"""

import csv
import io
import re
import shlex
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ftq_shared.errors import Refused
from ftq_shared.redaction import one_line
from ftq_shared.sources import compression, data_suffix
from ftq_worker.data.json_values import parse_line
from ftq_worker.data.rows import ROW_MAX, TOO_LONG, Row, has_surrogates, lines_of
from ftq_worker.data.text_encoding import foreign_encoding, open_text

_FIELD_LIMIT = ROW_MAX  # characters in one field; more means a quote was never closed
_DELIMITERS = ",;\t|"
_SAMPLE = 1 << 18  # characters that tell the delimiter
_SAMPLE_ROWS = 200
_SWALLOWED = 20  # lines of one field that all look like rows
_EXCEL = re.compile(r'"?sep=(.)"?\r?\n')  # Excel's own first line
_NUMBER = re.compile(r"[-+]?\d+(?:[.,]\d+)?")
_LONG_NAME = 100  # characters; no column is called so
_COLUMNS_MAX = 10_000
_QUOTES = 'within quotes a quote is written twice (""), and what opens with one ends with one'


@dataclass(frozen=True)
class _Dialect:
    """How a file separates its fields."""

    delimiter: str = ","
    blanks: bool = False  # blanks behind a delimiter are no part of the value
    skip: int = 0  # lines before the header

    def rows(self, lines: Iterator[str], *, strict: bool = True) -> Any:
        return csv.reader(
            lines, delimiter=self.delimiter, skipinitialspace=self.blanks, strict=strict
        )


def read_csv(path: Path, first: int, cut: bool = False) -> Iterator[Row]:
    """Yield one row for each record behind the header.

    Raises Refused: `bad_file` for a header that names no columns, `bad_row` where a quote is never
    closed, `bad_encoding`. `cut`: the file is the beginning of a longer one.
    """
    csv.field_size_limit(_FIELD_LIMIT)
    with _open(path) as file:
        sample = file.read(_SAMPLE)
    _refuse_json(path, sample)
    dialect = _dialect(sample, tabs=data_suffix(path.name) == ".tsv")
    with _open(path) as file:
        records = iter(_Records(file, path, dialect, cut))
        header = next((record for record in records if any(record[1:])), None)
        if header is None:
            return
        if header[2]:
            raise _bad(path, header[0], header[2])
        names = _names(header[1], path, header[0])
        number = first
        for line, fields, problem in records:
            if not problem:
                if not fields or (len(fields) == 1 < len(names) and not fields[0].strip()):
                    continue  # a blank line is no row
                problem = _problem(fields, names)
            values = {} if problem else dict(zip(names, fields, strict=True))
            yield Row(path.name, number, line, values, problem)
            number += 1


def doubts_of(path: Path) -> str:
    """Return why a file's first row is hardly its header, "" when it may well be.

    Raises Refused as `read_csv` does for what stands in its first rows.
    """
    csv.field_size_limit(_FIELD_LIMIT)
    with _open(path) as file:
        sample = file.read(_SAMPLE)
    dialect = _dialect(sample, tabs=data_suffix(path.name) == ".tsv")
    rows = _sampled(sample, dialect)
    if len(rows) < 2:
        return ""
    header, others = rows[0], rows[1:]
    for at, name in enumerate(field.strip() for field in header):
        if _NUMBER.fullmatch(name):
            return f"its field {at + 1} is the number {name}"
        if len(name) > _LONG_NAME:
            return f"its field {at + 1} has {len(name):,} characters"
        if name and sum(row[at : at + 1] == [name] for row in others) > 1:
            return f"its field {at + 1}, {name!r}, stands in that column again"
    return ""


def _open(path: Path) -> io.TextIOWrapper:
    # Bytes that are not UTF-8 come through as surrogates, so that only their row is lost.
    return io.TextIOWrapper(open_text(path), "utf-8", errors="surrogateescape", newline="")


def _refuse_json(path: Path, sample: str) -> None:
    start = sample.lstrip().partition("\n")[0].encode("utf-8", "surrogateescape")
    if start.startswith(b"{") and not parse_line(start)[1]:
        packed = compression(path.name)
        name = path.name.removesuffix(packed).rpartition(".")[0]
        raise Refused(
            f"{path.name} holds JSON, one object a line, not separated fields",
            code="bad_file",
            hint=f"rename it: `mv {shlex.quote(path.name)} {shlex.quote(f'{name}.jsonl{packed}')}`",
            file=path.name,
            line=1,
        )


class _Records:
    """Yields line, fields and problem of each record; `line` is where it begins, from 1."""

    def __init__(self, file: io.TextIOWrapper, path: Path, dialect: _Dialect, cut: bool) -> None:
        self._path, self._dialect, self._cut = path, dialect, cut
        self._last, self._ended = "", False
        self._skipped = sum(len(file.readline()) > 0 for _ in range(dialect.skip))
        self._reader = dialect.rows(self._lines(file))

    def __iter__(self) -> Iterator[tuple[int, list[str], str]]:
        reader, before, width = self._reader, 0, 0
        while True:
            line, problem = before + 1 + self._skipped, ""
            try:
                fields: list[str] | None = next(reader, None)
            except csv.Error as error:
                if self._ended and self._cut:
                    return
                fields, problem = [], self._broken(line, before, one_line(error))
            if fields is None:
                return
            width = width or len(fields)
            if reader.line_num - before > _SWALLOWED and width > 1:
                self._refuse_swallowed(line, fields, width)
            before = reader.line_num
            yield line, fields, problem

    def _lines(self, file: io.TextIOWrapper) -> Iterator[str]:
        for self._last in lines_of(file, "\n"):
            if len(self._last) > ROW_MAX:
                raise _bad(self._path, self._reader.line_num + self._skipped + 1, TOO_LONG)
            yield self._last
        self._ended = True

    def _broken(self, line: int, before: int, what: str) -> str:
        """Return what is wrong with one line; raises Refused where more than that is lost."""
        last = self._reader.line_num + self._skipped
        if self._ended:
            raise _bad(self._path, line, f"a quote is opened here and never closed: {_to(last)}")
        if self._reader.line_num - before > 1:
            raise _bad(
                self._path, line, f"a quote is opened here and not closed before line {last}"
            )
        if self._last.count('"') % 2 or "limit" in what:
            raise _bad(self._path, line, f"its quotes do not match: {what}")
        return f"a quote stands within a quoted field ({what})"

    def _refuse_swallowed(self, line: int, fields: list[str], width: int) -> None:
        """Raise Refused for a field whose lines are rows: its quote closes far behind its end."""
        for field in fields:
            inner = field.split("\n")[1:-1]
            commas = [text.count(self._dialect.delimiter) for text in inner]
            if len(inner) >= _SWALLOWED and set(commas) == {width - 1}:
                what = f"a quote is opened here and closed {len(inner) + 1:,} lines later, and each"
                raise _bad(self._path, line, f"{what} of these lines looks like a row")


def _to(last: int) -> str:
    return f"the rest of the file, to line {last:,}, is one field"


def _bad(path: Path, line: int, what: str) -> Refused:
    return Refused(
        f"{path.name}, line {line}: {what}",
        code="bad_row",
        hint=f"look at the quotes of line {line}: {_QUOTES}",
        file=path.name,
        line=line,
    )


def _names(fields: list[str], path: Path, line: int) -> list[str]:
    """Return the columns of a header. Raises Refused (`bad_file`, `bad_encoding`, `bad_row`)."""
    if any(has_surrogates(field) for field in fields):
        raw = ",".join(fields).encode("utf-8", "surrogateescape")
        raise foreign_encoding(path, raw, line)
    if len(fields) > _COLUMNS_MAX:
        raise Refused(
            f"{path.name}, line {line}: the header names {len(fields):,} columns; up to"
            f" {_COLUMNS_MAX:,} are read",
            code="bad_file",
            hint="look whether rows and columns changed places, or a line end is missing; give the"
            " columns that are meant",
            file=path.name,
            line=line,
        )
    # As pandas and `datasets` name them: most of them are an index that pandas has written.
    names = [field.strip() or f"Unnamed: {at}" for at, field in enumerate(fields)]
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        places = " and ".join(str(at + 1) for at, name in enumerate(names) if name == twice[0])
        raise Refused(
            f"{path.name}, line {line}: the header names the column {twice[0]!r} more than once"
            f" (fields {places})",
            code="bad_file",
            hint="rename one of them; where the file has no header, write one as its first line",
            file=path.name,
            line=line,
            field=twice[0],
        )
    return names


def _problem(fields: list[str], names: list[str]) -> str:
    if len(fields) != len(names):
        return f"has {len(fields)} fields, the header has {len(names)}"
    whole = "".join(fields)
    if len(whole) > ROW_MAX:
        return TOO_LONG
    if not has_surrogates(whole):
        return ""
    found = zip(names, fields, strict=True)
    return f"not UTF-8 in {next(name for name, field in found if has_surrogates(field))}"


def _dialect(sample: str, *, tabs: bool) -> _Dialect:
    """Return how a file separates its fields: so that most rows have as many as the header.

    A comma where nothing separates the header, a tab in a .tsv file whose header has one.
    """
    skip = 0
    if excel := _EXCEL.match(sample):
        sample, skip = sample[excel.end() :], 1
    marks = excel[1] if excel else "\t" if tabs and "\t" in sample.partition("\n")[0] else ""
    found = [_Dialect(mark, skip=skip) for mark in marks or _DELIMITERS]
    best = max(found, key=lambda dialect: _fit(sample, dialect))  # the first of equal ones
    if _fit(sample, best)[0] < 2:
        return _Dialect(marks or ",", skip=skip)
    with_blanks = _Dialect(best.delimiter, blanks=True, skip=skip)
    header = next(iter(_sampled(sample, best)), [])
    blank = any(name.startswith(" ") for name in header[1:])
    return with_blanks if blank or _fit(sample, with_blanks) > _fit(sample, best) else best


def _fit(sample: str, dialect: _Dialect) -> tuple[int, float, int]:
    """Return how well a dialect fits: fields at all, the share of rows that fit, the fields."""
    rows = _sampled(sample, dialect)
    if not rows:
        return 0, 0.0, 0
    width = len(rows[0])
    share = sum(len(row) == width for row in rows) / len(rows)
    return min(width, 2), share, width


def _sampled(sample: str, dialect: _Dialect) -> list[list[str]]:
    """Return the first records of a sample; the one that its end may have cut is left out."""
    rows: list[list[str]] = []
    if dialect.skip and _EXCEL.match(sample):
        sample = sample.partition("\n")[2]
    try:
        for row in dialect.rows(iter(io.StringIO(sample, newline="")), strict=False):
            if row:
                rows.append(row)
            if len(rows) > _SAMPLE_ROWS:
                break
    except csv.Error:
        return rows
    return rows[:-1] if len(sample) == _SAMPLE and len(rows) > 1 else rows
