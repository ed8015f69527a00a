"""How the columns of a dataset are understood: names and a few rows in, a `ColumnLayout` out.

Imports nothing heavy, because the validate phase asks before anything is loaded. A new layout is
one line in `_PATTERNS`.
"""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ftq_shared.errors import Refused
from ftq_shared.spec import Columns, JobSpec, Task
from ftq_worker.job.auto import auto_rule

_TEXT = ("text", "sentence", "utterance", "review", "content", "query", "comment", "document")
_LABEL = ("label", "labels", "intent", "category", "class", "sentiment", "target")


@dataclass(frozen=True)
class ColumnLayout:
    """How the columns were understood."""

    name: str  # for people, for example question/answer
    task: Task  # never auto
    columns: Columns  # the column of every part that the layout needs
    reason: str  # how it was found


@dataclass(frozen=True)
class _Pattern:
    """One known layout: which names a part may have, and what its values must be."""

    name: str
    task: Task
    parts: Mapping[str, tuple[str, ...]]  # part of Columns -> names, the most usual one first
    lists: tuple[str, ...] = ()  # parts whose values are lists of messages


# The order decides where a dataset fits several.
_PATTERNS = (
    _Pattern(
        "prompt/chosen/rejected",
        Task.PREFERENCE,
        {"prompt": ("prompt", "question"), "chosen": ("chosen",), "rejected": ("rejected",)},
    ),
    _Pattern(
        "chosen/rejected",
        Task.PREFERENCE,
        {"chosen": ("chosen",), "rejected": ("rejected",)},
        lists=("chosen", "rejected"),
    ),
    _Pattern("messages", Task.SFT, {"messages": ("messages",)}, lists=("messages",)),
    _Pattern("conversations", Task.SFT, {"messages": ("conversations",)}, lists=("messages",)),
    _Pattern(
        "prompt/completion",
        Task.SFT,
        {"prompt": ("prompt",), "completion": ("completion", "response")},
    ),
    _Pattern(
        "question/answer",
        Task.SFT,
        {"prompt": ("question",), "completion": ("answer", "response")},
    ),
    _Pattern(
        "instruction/input/output",
        Task.SFT,
        {"prompt": ("instruction",), "completion": ("output", "response")},
    ),
    _Pattern(
        "input/output",
        Task.SFT,
        {"prompt": ("input", "query", "problem"), "completion": ("output", "response", "solution")},
    ),
    _Pattern("text/label", Task.CLASSIFICATION, {"text": _TEXT, "label": _LABEL}),
    _Pattern("text", Task.TEXT, {"text": _TEXT}),
)


@auto_rule("task", "follows from the shape of the columns")
def detect_layout(
    columns: Sequence[str], rows: Sequence[Mapping[str, Any]], spec: JobSpec
) -> ColumnLayout:
    """Return how `columns` are to be read; `rows` are a few sample rows, possibly none.

    Columns that the spec maps win, `spec.task` steers. Raises Refused with code `wrong_column`
    when the spec names a column that does not exist, `unknown_shape` when nothing fits.
    """
    mapped = mapped_parts(spec)
    for part, column in mapped.items():
        require_column(f"data.columns.{part}", column, columns)
    if spec.data.group_by:
        require_column("data.group_by", spec.data.group_by, columns)
    for pattern in _candidates(spec.task):
        found = _match(pattern, columns, rows, mapped, templated=bool(spec.data.row_template))
        if found is not None:
            return _layout(pattern, found, mapped, spec)
    raise _unknown_layout(columns, mapped, spec)


def mapped_parts(spec: JobSpec) -> dict[str, str]:
    """Return the columns that the spec maps, by part."""
    return {part: column for part, column in spec.data.columns if column is not None}


def require_column(field: str, column: str, columns: Sequence[str]) -> None:
    """Raise Refused (`wrong_column`) when a column that the spec names does not exist."""
    if column in columns:
        return
    nearest = difflib.get_close_matches(column, columns, n=3, cutoff=0.5)
    example = nearest[0] if nearest else (columns[0] if columns else "COLUMN")
    raise Refused(
        f"{field} is {column!r}, but the dataset has no such column; it has {_names(columns)}",
        code="wrong_column",
        hint=f"{_mapping({field: example})}",
        field=field,
        nearest=nearest,
    )


def _candidates(task: Task) -> Iterator[_Pattern]:
    return (p for p in _PATTERNS if task in (Task.AUTO, p.task))


def _match(
    pattern: _Pattern,
    columns: Sequence[str],
    rows: Sequence[Mapping[str, Any]],
    mapped: Mapping[str, str],
    *,
    templated: bool,
) -> dict[str, str] | None:
    """Return the column of every part of `pattern`, or None when it does not fit."""
    if mapped.keys() - pattern.parts.keys() - {"system"}:
        return None
    found: dict[str, str] = {}
    for part, names in pattern.parts.items():
        column = mapped.get(part) or _by_name(columns, names)
        if column is None and templated and part in ("prompt", "text"):
            continue  # the template builds this part
        if column is None or not _fits(rows, column, is_list=part in pattern.lists):
            return None
        found[part] = column
    return found


def _by_name(columns: Sequence[str], names: Sequence[str]) -> str | None:
    """Return the first column that has one of `names`, upper and lower case alike."""
    lower = {column.lower(): column for column in reversed(columns)}
    return next((lower[name] for name in names if name in lower), None)


def _fits(rows: Sequence[Mapping[str, Any]], column: str, *, is_list: bool) -> bool:
    """Return whether the values of a column may be lists of messages, where they must be."""
    if not is_list:
        return True
    values = [row.get(column) for row in rows if row.get(column) is not None]
    return not values or any(isinstance(value, list | tuple) for value in values)


def _layout(
    pattern: _Pattern, found: dict[str, str], mapped: Mapping[str, str], spec: JobSpec
) -> ColumnLayout:
    system = {"system": mapped["system"]} if "system" in mapped else {}
    where = "mapped by the spec" if mapped else "recognised by name"
    if spec.data.row_template:
        where += ", with data.row_template"
    listed = ", ".join(f"{part}={column}" for part, column in (found | system).items())
    return ColumnLayout(
        pattern.name, pattern.task, Columns(**(found | system)), f"columns {where}: {listed}"
    )


def _unknown_layout(columns: Sequence[str], mapped: Mapping[str, str], spec: JobSpec) -> Refused:
    """Say what is missing: the rest of a mapping, or a mapping at all."""
    parts = _nearest_pattern(spec.task, mapped)
    missing = {part: names for part, names in parts.items() if part not in mapped}
    free = [column for column in columns if column not in mapped.values()]
    guesses = {f"data.columns.{part}": _guess(names, free) for part, names in missing.items()}
    task = "" if spec.task is Task.AUTO else f" for task {spec.task}"
    given = f" together with {_names(list(mapped))}" if mapped else ""
    return Refused(
        f"the columns {_names(columns)} fit no known shape{task}{given}",
        code="unknown_shape",
        hint=f"say which column plays which part, for example {_mapping(guesses)}",
        field="data.columns",
    )


def _nearest_pattern(task: Task, mapped: Mapping[str, str]) -> Mapping[str, tuple[str, ...]]:
    """Return the parts to ask for: of the first layout that has all parts that are mapped."""
    plain = [p.parts for p in _candidates(task) if not p.lists]
    usual = [p for p in plain if "prompt" in p and "completion" in p] + plain
    fitting = [p for p in usual if not mapped.keys() - p.keys() - {"system"}]
    return (fitting or usual or [p.parts for p in _PATTERNS])[0]


def _guess(names: Sequence[str], columns: list[str]) -> str:
    """Take the free column whose name comes nearest out of `columns`, or the next one."""
    if not columns:
        return "COLUMN"
    scored = [
        (max(difflib.SequenceMatcher(None, column.lower(), name).ratio() for name in names), column)
        for column in columns
    ]
    best, column = max(scored, key=lambda pair: pair[0])
    chosen = column if best >= 0.5 else columns[0]
    columns.remove(chosen)
    return chosen


def _mapping(fields: Mapping[str, str]) -> str:
    """Return how to write a mapping: as flags, and as YAML."""
    flags = " ".join(f"--set {field}={column}" for field, column in fields.items())
    parts = ", ".join(f"{f.removeprefix('data.columns.')}: {c}" for f, c in fields.items())
    if not all(field.startswith("data.columns.") for field in fields):
        return flags
    return f"{flags}   (YAML: data: {{columns: {{{parts}}}}})"


def _names(columns: Sequence[str]) -> str:
    return ", ".join(columns) or "no columns"
