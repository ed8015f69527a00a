"""Where the names of columns could mean two tasks: the values decide, or the person is asked."""

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence

from ftq_shared.errors import Refused
from ftq_shared.spec import JobSpec, Task
from ftq_worker.data.chat_messages import CONTENT_KEYS, ROLE_KEYS, ROLES, key_of
from ftq_worker.data.column_values import (
    Rows,
    all_differ,
    are_fractions,
    are_lists,
    are_sentences,
    are_zero_or_one,
    is_list_of_one,
    media_column,
    media_part,
    values_of,
)
from ftq_worker.data.layouts import Pattern

_CHOICE = re.compile(r"[A-H]|\d")  # what names a choice
_CHOICES = re.compile(r"choices|options|endings|[a-h]|(?:option|choice|ending)[_ ]?(?:[a-h]|\d)")
_ID = re.compile(r"(^|_)(id|idx|index)$")


def refuse_media(rows: Rows) -> None:
    """Raise Refused (`not_text`) for rows with pictures, sound or film."""
    column = media_column(rows)
    kind = "" if column else next(filter(None, map(_media_in, rows)), "")
    if column or kind:
        what = f"column {column}" if column else f"messages with parts of type {kind}"
        raise Refused(
            f"the rows hold more than text: {what}; only text is trained on",
            code="not_text",
            hint="choose a dataset of text, or write one without these rows and columns",
            field="dataset",
        )


def _media_in(row: Mapping[str, object]) -> str:
    """Return the kind of the first part of a message that is no text."""
    for value in row.values():
        for item in value if isinstance(value, list | tuple) else ():
            if isinstance(item, Mapping) and (kind := media_part(item.get("content"))):
                return kind
    return ""


def refuse_single_messages(columns: Sequence[str], rows: Rows) -> None:
    """Raise Refused (`single_messages`) where each row is a message, or a tree of them."""
    by_name = {column.lower(): column for column in columns}
    role, content = key_of(by_name, ROLE_KEYS), key_of(by_name, (*CONTENT_KEYS, "message"))
    said = [str(value).lower() for value in values_of(rows, by_name[role])] if role else []
    single = bool(content and said) and all(value in ROLES for value in said)
    trees = [column for column in columns if any(map(_is_tree, values_of(rows, column)))]
    if not single and not trees:
        return
    what = f"column {trees[0]} holds trees of messages" if trees else "each row is one message"
    raise Refused(
        f"{what}, and no conversation: it would be torn from what it answers",
        code="single_messages",
        hint="write one row for each conversation, with a list of its messages in column messages;"
        " of a tree, one row for each path from its question to a last answer",
        field="dataset",
    )


def _is_tree(value: object) -> bool:
    return isinstance(value, Mapping) and isinstance(value.get("replies"), list | tuple)


def is_other_task(pattern: Pattern, found: Mapping[str, str], rows: Rows, asked: Task) -> bool:
    """Return whether what goes by the name of a label is a text that somebody wrote."""
    if pattern.task is not Task.CLASSIFICATION or asked is Task.CLASSIFICATION:
        return False
    values = values_of(rows, found["label"])
    return all_differ(values) and are_sentences(values)


def refuse_doubt(
    pattern: Pattern, found: Mapping[str, str], columns: Sequence[str], rows: Rows, spec: JobSpec
) -> None:
    """Raise Refused (`multi_label`, `regression`, `which_task`) where values fit another task."""
    free = [column for column in columns if column not in found.values()]
    if pattern.task is Task.CLASSIFICATION:
        _refuse_label(found["label"], rows, asked=spec.task is not Task.AUTO)
    elif pattern.task is Task.TEXT and spec.task is Task.AUTO:
        _refuse_flags(found.get("text"), free, rows)
    elif pattern.task is Task.SFT:
        if spec.task is Task.AUTO:
            _refuse_verdict(found, free, rows)
        if "unused_columns" not in spec.data.allow and spec.data.row_template is None:
            _refuse_choices(found, free, rows)


def _refuse_label(column: str, rows: Rows, *, asked: bool) -> None:
    values = values_of(rows, column)
    if are_lists([value for value in values if not is_list_of_one(value)]):
        raise _multi_label(f"the values of column {column} hold several labels each", column)
    if are_fractions(values):
        raise Refused(
            f"the values of column {column} are numbers with fractions, for example"
            f" {_example(values)}: that is regression, which this version does not train",
            code="regression",
            hint="write whole numbers or names into the column to train classes"
            + "; to train the texts alone: --set task=text" * (not asked),
            field="data.columns.label",
        )
    if all_differ(values) and not asked:
        raise _which_task(
            f"all values of column {column} differ ({len(values)} of the first {len(values)}"
            " rows): are they answers to write, or labels to tell apart?",
            ["task=sft"],
            ["task=classification"],
        )


def _refuse_flags(text: str | None, free: Sequence[str], rows: Rows) -> None:
    """Ask where a text stands beside columns of 0 and 1, which look like labels of it."""
    others = [column for column in free if not _ID.search(column.lower())]
    flags = [column for column in others if are_zero_or_one(_as_numbers(rows, column))]
    if not flags or text is None:
        return
    if len(flags) > 1:
        named = ", ".join(flags)
        raise _multi_label(f"beside column {text} stand several labels ({named})", flags[0], text)
    raise _which_task(
        f"column {text} is a text, and {flags[0]} looks like its label: is it text to learn by"
        " heart, or a label to find?",
        ["task=text"],
        [f"data.columns.text={text}", f"data.columns.label={flags[0]}"],
    )


def _as_numbers(rows: Rows, column: str) -> list[object]:
    """Return the values with true and false as 1 and 0."""
    return [int(v) if isinstance(v, bool) else v for v in values_of(rows, column)]


def _refuse_verdict(found: Mapping[str, str], free: Sequence[str], rows: Rows) -> None:
    """Ask where 0 or 1 stands beside an answer: it may say that the answer is wrong."""
    named = [column for column in free if column.lower() in ("label", "labels", "kto_tag")]
    values = values_of(rows, named[0]) if named else []
    if not are_zero_or_one(values) or any(isinstance(value, bool) for value in values):
        return
    texts = [found[part] for part in ("prompt", "completion", "messages") if part in found]
    answers = [["task=sft"], ["task=sft", f"data.columns.label={named[0]}"]]
    if len(texts) == 2:
        pair = [f"data.columns.text={texts[0]}", f"data.columns.text_pair={texts[1]}"]
        answers.append([*pair, f"data.columns.label={named[0]}"])
    raise _which_task(
        f"column {named[0]} holds 0 and 1 beside {' and '.join(texts)}: are all answers to be"
        " learned, or only those with 1, or is it a label to find?",
        *answers,
    )


def _refuse_choices(found: Mapping[str, str], free: Sequence[str], rows: Rows) -> None:
    """Refuse (`unused_columns`) an answer that names a choice which the prompt does not show."""
    answer, prompt = found.get("completion", ""), found.get("prompt", "")
    said = {str(value).strip().strip("()").upper() for value in values_of(rows, answer)}
    if not said or not all(_CHOICE.fullmatch(value) for value in said):
        return
    choices = [column for column in free if _CHOICES.fullmatch(column.strip().lower())]
    listed = any(are_lists(values_of(rows, column)) for column in choices)
    if len(choices) < 2 and not listed:
        return
    shown = " ".join(f"{column}: {{{column}}}" for column in choices)
    template = shlex.quote(f"data.row_template={{{prompt}}} {shown}")
    raise Refused(
        f"column {answer} names one of the choices in {', '.join(choices)}, which the prompt does"
        " not show",
        code="unused_columns",
        hint=(
            "write the choices into the prompt, and into the answer the text of the right one"
            if listed
            else f"to show them: --set {template}"
        )
        + "; to leave them out: --set data.allow=unused_columns",
        field="data.columns",
    )


def _multi_label(what: str, column: str, text: str = "") -> Refused:
    one = [f"data.columns.text={text}", f"data.columns.label={column}"] if text else []
    hint = f"to train one of them: {_flags(one)}" if one else "write one label into each row"
    return Refused(
        f"{what}: that is multi-label classification, which this version does not train",
        code="multi_label",
        hint=hint,
        field="data.columns.label",
    )


def _which_task(question: str, *answers: Sequence[str]) -> Refused:
    return Refused(
        question,
        code="which_task",
        hint=f"say which: {', or '.join(map(_flags, answers))}",
        field="task",
    )


def _flags(sets: Iterable[str]) -> str:
    return " ".join(f"--set {shlex.quote(value)}" for value in sets)


def _example(values: Sequence[object]) -> object:
    return next(value for value in values if are_fractions([value]))
