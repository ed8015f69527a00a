"""The fields of the job spec by dotted name, and in words what each one allows."""

import types
from collections.abc import Iterator
from enum import Enum
from functools import cache
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from ftq_shared.duration import parse_duration
from ftq_shared.spec import JobSpec, check_every

_WORDS: dict[Any, str] = {
    type(None): "null",
    bool: "true or false",
    str: "text",
    dict: "a mapping",
    int: "a whole number",
    float: "a number",
}
_VALIDATORS: dict[Any, str] = {
    check_every: "auto, steps such as 500, or a time such as 10m",
    parse_duration: "a duration such as 90s, 10m, 2h or 1d",
}
_BOUNDS = {"ge": "from {}", "gt": "above {}", "le": "up to {}", "lt": "below {}"}


def section_of(field: FieldInfo) -> type[BaseModel] | None:
    """Return the model behind a section, None for a plain field."""
    kind = field.annotation
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def _walk(model: type[BaseModel], prefix: str) -> Iterator[tuple[str, FieldInfo]]:
    for name, field in model.model_fields.items():
        yield prefix + name, field
        if section := section_of(field):
            yield from _walk(section, f"{prefix}{name}.")


@cache
def fields() -> dict[str, FieldInfo]:
    """Return every field of the spec, sections included, by its dotted name."""
    return dict(_walk(JobSpec, ""))


def leaves() -> list[str]:
    """Return the dotted names that hold a value."""
    return [name for name, field in fields().items() if section_of(field) is None]


def _parts(annotation: Any) -> Iterator[Any]:
    """Yield the alternatives of a union, Annotated wrappers taken off."""
    origin = get_origin(annotation)
    if origin is Annotated:
        yield from _parts(get_args(annotation)[0])
    elif origin in (Union, types.UnionType):
        for part in get_args(annotation):
            yield from _parts(part)
    else:
        yield annotation


def accepts(name: str, kind: type) -> bool:
    """Return whether values of exactly `kind` are among those that the field allows."""
    return kind in _parts(fields()[name].annotation)


def only_text(name: str) -> bool:
    """Return whether a field holds free text (or null) and nothing else."""
    field = fields().get(name)
    return field is not None and set(_parts(field.annotation)) <= {str, type(None)}


def describe(name: str) -> str:
    """Say what a field allows, for example `auto or a whole number from 1`."""
    field = fields()[name]
    if section := section_of(field):
        return "a section with the keys " + ", ".join(section.model_fields)
    words = _describe(field.annotation, tuple(field.metadata))
    meaning = field.description or ""
    return words if not meaning or words in meaning else f"{words} ({meaning})"


def _describe(annotation: Any, metadata: tuple[Any, ...] = ()) -> str:
    functions = (getattr(item, "func", None) for item in metadata)
    said = next(filter(None, map(_VALIDATORS.get, functions)), "")
    return said or _describe_type(annotation, metadata)


def _describe_type(annotation: Any, metadata: tuple[Any, ...]) -> str:
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _describe(args[0], tuple(annotation.__metadata__))
    if origin in (Union, types.UnionType):
        return _either([_describe(part) for part in args])
    if origin is Literal:
        return _either([str(value) for value in args])
    if origin is list:
        return f"a list of {_describe(args[0])}"
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return _either([str(member.value) for member in annotation])
    word = _WORDS.get(origin or annotation, "a value")
    return " ".join([word, " and ".join(_bounds(metadata))]).strip()


def _either(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"


def _bounds(metadata: tuple[Any, ...]) -> list[str]:
    """Return the limits in words; a nested `Field(ge=1)` carries its own metadata."""
    found: list[str] = []
    for item in metadata:
        if isinstance(item, FieldInfo):
            found += _bounds(tuple(item.metadata))
        for name, words in _BOUNDS.items():
            limit = getattr(item, name, None)
            if limit is not None and not isinstance(item, FieldInfo):
                found.append(words.format(limit))
    return found
