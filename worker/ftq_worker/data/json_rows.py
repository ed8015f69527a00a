"""Rows from JSON in the shapes that people have; what a file holds counts, not how it is called.

One object a line; a list of objects; an object with one list of objects in it; objects over several
lines, one after another. What holds columns in the place of rows is refused in words.
"""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ftq_shared.errors import Refused
from ftq_shared.sources import data_suffix
from ftq_worker.data.json_document import JsonDocument
from ftq_worker.data.json_values import is_cut, parse_line
from ftq_worker.data.rows import ROW_MAX, Row, UnreadRow, lines_of
from ftq_worker.data.text_encoding import open_text

_TURNS = ({"role"}, {"from", "value"})  # keys of the turns of a conversation: no rows of their own
_LISTED = 5  # names in a message


def read_json(path: Path, first: int, cut: bool = False) -> Iterator[Row | UnreadRow]:
    """Yield the rows of a JSON text; lines are not taken apart.

    `cut`: the file is the beginning of a longer one. Raises Refused (`bad_file`, `bad_row`,
    `bad_encoding`).
    """
    by_lines = data_suffix(path.name) in (".jsonl", ".ndjson")
    match _shape_of(path, by_lines, cut):
        case "lines":
            return read_lines(path, first)
        case "list":
            return read_array(path, first)
    return _read_objects(path, first, by_lines, cut)


def _shape_of(path: Path, by_lines: bool, cut: bool) -> Literal["lines", "list", "objects"]:
    """Return what a file holds, from its first lines."""
    with open_text(path) as file:
        filled = (line for line in lines_of(file, b"\n") if line.strip())
        start, second = next(filled, b"").strip(), next(filled, None)
    _, problem = parse_line(start)
    unread = problem.startswith("not JSON:") or len(start) > ROW_MAX
    if start.startswith(b"["):
        return "list" if unread or second is None else "lines"
    if not start.startswith(b"{"):
        return "lines"
    if not unread:
        return "lines" if second is not None else "objects"
    if second is None:
        several = b"}{" in start.replace(b" ", b"")
        return "objects" if cut or several or len(start) > ROW_MAX else "lines"
    follows = not parse_line(second)[1]  # the second line is a row: the first is one that is broken
    return "lines" if not is_cut(start) or (by_lines and follows) else "objects"


def read_lines(path: Path, first: int) -> Iterator[UnreadRow]:
    """Yield one row for each line that is not blank."""
    number = first
    with open_text(path) as file:
        for line, raw in enumerate(lines_of(file, b"\n"), start=1):
            if not raw.isspace():
                yield UnreadRow(path.name, number, line, raw)
                number += 1


def read_row(row: Row | UnreadRow) -> Row:
    """Return a row with its values, or with what is wrong with its line."""
    if isinstance(row, Row):
        return row
    values, problem = parse_line(row.json)
    return Row(row.file, row.number, row.line, values, problem)


def read_array(path: Path, first: int) -> Iterator[Row]:
    """Yield the elements of a list. Raises Refused (`bad_row`) at a broken place."""
    with _open(path) as file:
        document = JsonDocument(file.read, path.name)
        for number, (line, value, problem) in enumerate(document.elements(), start=first):
            yield Row(path.name, number, line, {} if problem else value, problem)
        document.end()


def _open(path: Path) -> io.TextIOWrapper:
    return io.TextIOWrapper(open_text(path), "utf-8", errors="surrogateescape", newline="")


@dataclass
class _Member:
    """One key of an object, and what its value is as far as it was read."""

    key: str
    kind: Literal["rows", "turns", "list", "object", "other"]
    count: int = 0  # of elements or keys
    first: str = ""  # key of an object


def _read_objects(path: Path, first: int, by_lines: bool, cut: bool) -> Iterator[Row]:
    """Yield the rows of one object, or of several that follow one another."""
    members: list[_Member] = []
    alone = True
    with _open(path) as file:
        document = JsonDocument(file.read, path.name)
        try:
            _scan(document, members)
            alone = document.peek() != "{"
        except Refused:
            if not (cut and document.ended):
                raise
    inner = _inner_list(path.name, members, by_lines) if alone else ""
    with _open(path) as file:
        document = JsonDocument(file.read, path.name)
        found = _elements_of(document, inner) if inner else _sequence(document)
        for number, (line, value, problem) in enumerate(found, start=first):
            yield Row(path.name, number, line, {} if problem else value, problem)


def _scan(document: JsonDocument, members: list[_Member]) -> None:
    """Add what an object consists of to `members`; they stay where it is broken."""
    for key in document.members():
        start = document.peek()
        member = _Member(key, "list" if start == "[" else "object" if start == "{" else "other")
        members.append(member)
        if member.kind == "list":
            for _, value, problem in document.elements():
                member.count += 1
                if member.count == 1 and not problem:
                    turn = any(keys <= value.keys() for keys in _TURNS)
                    member.kind = "turns" if turn else "rows"
        elif member.kind == "object":
            for name in document.members():
                member.first = member.first or name
                member.count += 1
                document.value()
        else:
            document.value()


def _inner_list(name: str, members: list[_Member], by_lines: bool) -> str:
    """Return the key of the list that holds an object's rows, "" when the object is a row.

    An object in a file of lines is a row, unless the list is all that it holds. Raises Refused
    (`bad_file`) for columns in the place of rows, and for several lists of rows.
    """
    kinds = [member.kind for member in members]
    lists = [member for member in members if member.kind == "rows"]
    if "turns" in kinds or not members:
        return ""
    if len(lists) == 1 and (len(members) == 1 or not by_lines):
        return lists[0].key
    if len(lists) > 1 and not by_lines:
        found = ", ".join(f"{one.key} ({one.count:,})" for one in lists[:_LISTED])
        raise _no_rows(
            name,
            f"holds {len(lists)} lists of rows: {found}",
            f"write each to a file of its own, for example `jq -c '.{lists[0].key}[]' {name}"
            f" > {lists[0].key}.jsonl`",
        )
    if _holds_columns(members, by_lines):
        raise _no_rows(
            name,
            f"holds columns, not rows: {', '.join(one.key for one in members[:_LISTED])}",
            "write one object a row; with pandas: `df.to_json('rows.jsonl', orient='records',"
            " lines=True)`",
        )
    return ""


def _holds_columns(members: list[_Member], by_lines: bool) -> bool:
    """Return whether an object is a table by its columns, as `DataFrame.to_json` writes it."""
    kinds, counts = {one.kind for one in members}, {one.count for one in members}
    if kinds == {"object"}:
        return len(counts) == 1 and all(one.first.isdecimal() for one in members)
    if {"columns", "data"} <= {one.key for one in members}:  # orient="split"
        return "rows" not in kinds
    return not by_lines and kinds == {"list"} and len(counts) == 1 and len(members) > 1


def _no_rows(name: str, what: str, hint: str) -> Refused:
    return Refused(f"{name} {what}", code="bad_file", hint=hint, file=name)


def _elements_of(document: JsonDocument, key: str) -> Iterator[tuple[int, Any, str]]:
    """Yield the elements of an object's list."""
    for name in document.members():
        if name == key:
            yield from document.elements()
        elif document.peek() == "[":
            for _ in document.elements():
                pass
        else:
            document.value()
    document.end()


def _sequence(document: JsonDocument) -> Iterator[tuple[int, Any, str]]:
    while document.peek():
        yield document.row()
