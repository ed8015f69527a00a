"""What the values of a column are, as far as a few rows tell: flags, texts, numbers, pictures."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard

from ftq_worker.data.chat_messages import as_rows, is_message

Rows = Sequence[Mapping[str, Any]]

_MANY = 10  # values from which on it means something that all of them differ
_WORDS = 4  # words from which on a value is a sentence, not a name
_FLAGS = {
    "yes": True,
    "no": False,
    "true": True,
    "1": True,
    "1.0": True,
    "false": False,
    "0": False,
    "0.0": False,
}
_MEDIA_COLUMNS = ("image", "images", "audio", "audios", "video", "videos", "pixel_values")
_MEDIA_PARTS = ("image", "image_url", "input_image", "audio", "input_audio", "video", "video_url")


def values_of(rows: Rows, column: str) -> list[Any]:
    """Return the values of a column that are not null."""
    return [row[column] for row in rows if row.get(column) is not None]


def are_flags(values: Sequence[Any]) -> bool:
    """Return whether there are values, and all of them are true or false."""
    return bool(values) and all(isinstance(value, bool) for value in values)


def flag_of(value: Any) -> bool | None:
    """Return whether a value says yes or no, also as text or number; None where it says neither."""
    return _FLAGS.get(str(value).strip().lower())


def are_yes_or_no(values: Sequence[Any]) -> bool:
    """Return whether there are values, and all of them say yes or no."""
    return bool(values) and all(flag_of(value) is not None for value in values)


def are_zero_or_one(values: Sequence[Any]) -> bool:
    """Return whether there are values, and all of them are 0 or 1, also as text."""
    return bool(values) and all(str(value) in ("0", "1", "0.0", "1.0") for value in values)


def may_be_messages(values: Sequence[Any]) -> bool:
    """Return whether values may be lists of messages, also as JSON text."""
    return not values or any(
        isinstance(value, list | tuple)
        or isinstance(as_rows(value), list)
        or (isinstance(value, str) and value.lstrip().startswith("["))
        for value in values
    )


def nested_kind(values: Sequence[Any]) -> str:
    """Return what the values are, in words, where they are objects or lists; '' for others."""
    first = next(iter(values), None)
    if isinstance(first, Mapping):
        return f"objects with {', '.join(map(str, first))}"
    if isinstance(first, list | tuple) and not any(map(is_message, first)):
        return f"lists of {'texts' if all(isinstance(i, str) for i in first) else 'numbers'}"
    return ""


def is_list_of_one(value: Any) -> TypeGuard[Sequence[Any]]:
    """Return whether a value is a list that holds one, which is taken for it."""
    return isinstance(value, list | tuple) and len(value) == 1


def may_be_nested(values: Sequence[Any]) -> bool:
    """Return whether values may be lists or objects, also as JSON text; an empty text may be."""
    return not values or any(
        value.lstrip()[:1] in "[{" if isinstance(value, str) else are_lists([value])
        for value in values
    )


def are_lists(values: Sequence[Any]) -> bool:
    """Return whether some values hold several."""
    return any(isinstance(value, list | tuple | dict) for value in values)


def are_fractions(values: Sequence[Any]) -> bool:
    """Return whether all values are numbers, also as text, and some are no whole ones."""
    numbers = [_number(value) for value in values]
    return bool(numbers) and None not in numbers and any(n != int(n) for n in numbers if n)


def _number(value: Any) -> float | None:
    if isinstance(value, bool):
        return None
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if abs(number) < 1e15 else None  # no infinity, and nothing that is no number


def all_differ(values: Sequence[Any]) -> bool:
    """Return whether there are many texts, and no two are equal."""
    texts = [value for value in values if isinstance(value, str) and _number(value) is None]
    return len(texts) >= _MANY and len(texts) == len(values) == len(set(texts))


def are_sentences(values: Sequence[Any]) -> bool:
    """Return whether values are texts of several words."""
    counts = [len(text_in(value).split()) for value in values]
    return bool(counts) and sum(counts) >= _WORDS * len(counts)


def text_in(value: Any) -> str:
    """Return all text that a value holds, at every depth; JSON text is taken apart."""
    if isinstance(value, str):
        if value[:1] in "[{" and value[-1:] in "]}":
            try:
                return text_in(json.loads(value)) or value
            except (ValueError, RecursionError):
                return value
        return value
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return " ".join(filter(None, map(text_in, value)))
    return ""


def media_column(rows: Rows) -> str:
    """Return the column that holds pictures, sound or film, '' for none."""
    for name in dict.fromkeys(column for row in rows for column in row):
        if name.lower() in _MEDIA_COLUMNS and any(values_of(rows, name)):
            return name
    return ""


def media_part(content: Any) -> str:
    """Return the kind of the first part of a message's content that is no text, '' for none."""
    for part in content if isinstance(content, list | tuple) else ():
        kind = str(part.get("type") or "") if isinstance(part, Mapping) else ""
        if kind in _MEDIA_PARTS:
            return kind
    return ""
