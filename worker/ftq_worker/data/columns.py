"""How the columns of a dataset are understood: names and a few rows in, a `ColumnLayout` out.

Imports nothing heavy, because the validate phase asks before anything is loaded. The layouts
themselves are in `layouts`; where names alone could mean two tasks, values decide, or the person.
"""

import difflib
import json
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from ftq_shared.errors import Refused
from ftq_shared.spec import Columns, JobSpec, Task
from ftq_worker.data import task_doubts
from ftq_worker.data.column_values import (
    Rows,
    are_flags,
    are_sentences,
    are_yes_or_no,
    flag_of,
    may_be_messages,
    may_be_nested,
    nested_kind,
    values_of,
)
from ftq_worker.data.layouts import LABEL, PATTERNS, TRUE_OR_FALSE, VERDICTS, Pattern
from ftq_worker.job.auto import auto_rule

_ALIKE = 0.6  # of two names, by difflib; below that a guess is worse than none
_BESIDE = {
    "system",
    "context",
    "history",
    "reasoning",
    "tools",
    "text_pair",
}  # parts that complete no layout


@dataclass(frozen=True)
class ColumnLayout:
    """How the columns were understood."""

    name: str  # for people, for example question/answer
    task: Task  # never auto
    columns: Columns  # the column of every part that the layout needs
    reason: str  # how it was found


@auto_rule("task", "follows from the shape of the columns")
def detect_layout(columns: Sequence[str], rows: Rows, spec: JobSpec) -> ColumnLayout:
    """Return how `columns` are to be read; `rows` are a few sample rows, possibly none.

    Columns that the spec maps win, `spec.task` steers. Raises Refused with code `wrong_column`
    when the spec names a column that does not exist, `unknown_shape` when nothing fits, and what
    `task_doubts` raises where the values belong to another task than the names.
    """
    task_doubts.refuse_media(rows)
    mapped = mapped_parts(spec)
    label = _by_name(columns, LABEL)
    labels = values_of(rows, label) if label else []
    labelled = bool(labels) and not nested_kind(labels)
    if not (mapped or labelled) and spec.task in (Task.AUTO, Task.SFT):
        task_doubts.refuse_single_messages(columns, rows)
    for part, column in mapped.items():
        require_column(f"data.columns.{part}", column, columns)
    if spec.data.group_by:
        require_column("data.group_by", spec.data.group_by, columns)
    for pattern in _candidates(spec.task):
        found = _match(pattern, columns, rows, mapped, templated=bool(spec.data.row_template))
        if found is None or task_doubts.is_other_task(pattern, found, rows, spec.task):
            continue
        task_doubts.refuse_doubt(pattern, found, columns, rows, spec)
        return _layout(pattern, found | _verdict(pattern, found, columns, rows), mapped, spec)
    if spec.task is Task.SFT or mapped.keys() & {"prompt", "completion", "messages"}:
        _refuse_unclear_verdict(mapped, rows)
    raise _unknown_layout(columns, rows, mapped, spec)


def mapped_parts(spec: JobSpec) -> dict[str, str]:
    """Return the columns that the spec maps, by part."""
    return {part: column for part, column in spec.data.columns if column is not None}


def has_label(columns: Sequence[str], spec: JobSpec) -> bool:
    """Return whether some column is a label, by its name or the spec."""
    return spec.data.columns.label is not None or _by_name(columns, LABEL) is not None


def require_column(field: str, column: str, columns: Sequence[str], template: str = "") -> None:
    """Raise Refused (`wrong_column`) when a column that the spec names does not exist.

    `template` is the text of the field, where that is more than the column's name.
    """
    if column in columns:
        return
    nearest = difflib.get_close_matches(column, columns, n=3, cutoff=0.5)
    example = nearest[0] if nearest else (columns[0] if columns else "COLUMN")
    raise Refused(
        f"{field} is {column!r}, but the dataset has no such column; it has {_names(columns)}",
        code="wrong_column",
        hint=_mapping({field: template.replace(f"{{{column}}}", f"{{{example}}}") or example}),
        field=field,
        nearest=nearest,
    )


def _candidates(task: Task) -> Iterator[Pattern]:
    return (p for p in PATTERNS if task in (Task.AUTO, p.task))


def _match(
    pattern: Pattern,
    columns: Sequence[str],
    rows: Rows,
    mapped: Mapping[str, str],
    *,
    templated: bool,
) -> dict[str, str] | None:
    """Return the column of every part of `pattern`, or None when it does not fit."""
    if mapped.keys() - pattern.parts.keys() - _allowed_beside(pattern, mapped, rows):
        return None
    found: dict[str, str] = {}
    for part, names in pattern.parts.items():
        column = mapped.get(part) or _by_name(columns, names)
        if column is None and templated and part in ("prompt", "text"):
            continue  # the template builds this part
        if column is None or not _fits(rows, column, is_list=part in pattern.lists):
            return None
        found[part] = column
    for part, names in pattern.optional.items():
        column = mapped.get(part) or _beside(part, _by_name(columns, names), rows)
        # A template is the whole prompt; what it leaves out was left out on purpose.
        if column and column not in found.values() and not (templated and part == "context"):
            found[part] = column
    return found | {part: mapped[part] for part in mapped.keys() - found.keys()}


def _beside(part: str, column: str | None, rows: Rows) -> str | None:
    """Return a column found by its name, None where its values are not what that part holds.

    `history` may be the history of a patient, and `reasoning` whether there is some.
    """
    values = values_of(rows, column) if column else []
    if part in ("history", "tools") and not may_be_nested(values):
        return None
    return None if part == "reasoning" and values and not are_sentences(values) else column


def _allowed_beside(pattern: Pattern, mapped: Mapping[str, str], rows: Rows) -> set[str]:
    """Return the parts that a mapping may add to a layout's own."""
    allowed = {"system", *pattern.optional}
    if pattern.task is Task.CLASSIFICATION:
        allowed.add("text_pair")
    # Beside an answer a label says yes or no of it.
    said = values_of(rows, mapped["label"]) if "label" in mapped else []
    return allowed | {"label"} if pattern.task is Task.SFT and are_yes_or_no(said) else allowed


def _verdict(
    pattern: Pattern, found: Mapping[str, str], columns: Sequence[str], rows: Rows
) -> dict[str, str]:
    """Return the column that says of each answer whether it is to be learned, if there is one.

    KTO has such a label: Ethayarajh et al. 2024, https://arxiv.org/abs/2402.01306
    """
    if pattern.task is not Task.SFT or "label" in found:
        return {}
    free = [column for column in columns if column not in found.values()]
    column = _by_name(free, TRUE_OR_FALSE)
    if column and are_flags(values_of(rows, column)):
        return {"label": column}
    column = _by_name(free, VERDICTS)
    return {"label": column} if column and are_yes_or_no(values_of(rows, column)) else {}


def _refuse_unclear_verdict(mapped: Mapping[str, str], rows: Rows) -> None:
    """Raise Refused (`wrong_column`) for a label beside an answer that says neither yes nor no."""
    values = values_of(rows, mapped.get("label", ""))
    other = next((value for value in values if flag_of(value) is None), None)
    if other is None:
        return
    raise Refused(
        f"column {mapped['label']} is to say which answers are learned, but holds"
        f" {str(other)[:60]!r}",
        code="wrong_column",
        hint="it may hold true and false, or 1 and 0; --set data.columns.label=null learns every"
        " answer",
        field="data.columns.label",
    )


def _by_name(columns: Sequence[str], names: Sequence[str]) -> str | None:
    """Return the first column that has one of `names`, whatever its case and blanks around it."""
    lower = {column.strip().lower(): column for column in reversed(columns)}
    return next((lower[name] for name in names if name in lower), None)


def _fits(rows: Rows, column: str, *, is_list: bool) -> bool:
    """Return whether the values of a column may be lists of messages, where they must be."""
    return not is_list or may_be_messages(values_of(rows, column))


def _layout(
    pattern: Pattern, found: dict[str, str], mapped: Mapping[str, str], spec: JobSpec
) -> ColumnLayout:
    where = "mapped by the spec" if mapped else "recognised by name"
    if spec.data.row_template:
        where += ", with data.row_template"
    listed = ", ".join(f"{part}={column}" for part, column in found.items())
    return ColumnLayout(pattern.name, pattern.task, Columns(**found), f"columns {where}: {listed}")


def _unknown_layout(
    columns: Sequence[str], rows: Rows, mapped: Mapping[str, str], spec: JobSpec
) -> Refused:
    """Say what is missing: the rest of a mapping, or a mapping at all."""
    parts = _nearest_pattern(spec.task, mapped)
    missing = [part for part in parts if part not in mapped]
    nested = {column: kind for column in columns if (kind := nested_kind(values_of(rows, column)))}
    plain = [column for column in columns if column not in nested]
    free = [column for column in plain if column not in mapped.values()]
    guesses = {f"data.columns.{part}": _guess(_all_names(part), free) for part in missing}
    task = "" if spec.task is Task.AUTO else f" for task {spec.task}"
    given = f" together with {_names(list(mapped))}" if mapped else ""
    inside = "".join(f"; {column} holds {kind}" for column, kind in nested.items())
    hint = f"say which column plays which part, for example {_mapping(guesses)}"
    if len(plain) == 1 and len(missing) > 1 and not mapped and spec.task is Task.AUTO:
        text = shlex.quote(plain[0])
        hint = f"--set data.columns.text={text} trains it as plain text; to learn answers alone,"
        hint += " write what is asked and what is answered into two columns"
    elif nested and "COLUMN" in guesses.values():
        hint = "write the texts that are needed of it into columns of their own, such as prompt and"
        hint += " completion" if spec.task is not Task.CLASSIFICATION else " label"
    return Refused(
        f"the columns {_names(columns)} fit no known shape{task}{given}{inside}",
        code="unknown_shape",
        hint=hint,
        field="data.columns",
    )


def _nearest_pattern(task: Task, mapped: Mapping[str, str]) -> Mapping[str, tuple[str, ...]]:
    """Return the parts to ask for: of the first layout that has all parts that are mapped."""
    plain = [p.parts for p in _candidates(task) if not p.lists]
    usual = [p for p in plain if "prompt" in p and "completion" in p] + plain
    fitting = [p for p in usual if not mapped.keys() - p.keys() - _BESIDE]
    return (fitting or usual or [p.parts for p in PATTERNS])[0]


def _all_names(part: str) -> list[str]:
    """Return every name that a part has in some layout."""
    return [name for pattern in PATTERNS for name in pattern.parts.get(part, ())]


def _guess(names: Sequence[str], columns: list[str]) -> str:
    """Take the free column whose name comes nearest out of `columns`, or the next one."""
    if not columns:
        return "COLUMN"
    scored = [
        (max(difflib.SequenceMatcher(None, column.lower(), name).ratio() for name in names), column)
        for column in columns
    ]
    best, column = max(scored, key=lambda pair: pair[0])
    if best < _ALIKE:
        return "COLUMN"  # a wrong one that works when pasted would teach something else
    columns.remove(column)
    return column


def _mapping(fields: Mapping[str, str]) -> str:
    """Return how to write a mapping: as flags, and as YAML."""
    flags = " ".join(f"--set {field}={shlex.quote(value)}" for field, value in fields.items())
    parts = ", ".join(f"{f.removeprefix('data.columns.')}: {_yaml(c)}" for f, c in fields.items())
    if not all(field.startswith("data.columns.") for field in fields):
        return flags
    return f"{flags}   (YAML: data: {{columns: {{{parts}}}}})"


def _yaml(text: str) -> str:
    """Return text as YAML takes it inside braces."""
    return text if re.fullmatch(r"[A-Za-z_][\w.-]*", text) else json.dumps(text)


def _names(columns: Sequence[str]) -> str:
    return ", ".join(columns) or "no columns"
