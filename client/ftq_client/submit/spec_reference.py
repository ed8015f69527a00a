"""The spec's fields for people: all of them, one, and a file to begin with."""

import textwrap
from collections.abc import Mapping
from typing import Any

from pydantic.fields import FieldInfo

from ftq_shared.errors import UsageError
from ftq_shared.spec_input.aliases import ALIASES, suggest
from ftq_shared.spec_input.dotted_fields import describe, fields, section_of

_EXAMPLES = {"model": "Qwen/Qwen3-0.6B", "dataset": "openai/gsm8k:main"}


def find_field(name: str) -> tuple[str, str]:
    """Return the field that a name means, and a sentence where it is another name for it.

    Raises UsageError with the nearest.
    """
    if name in fields():
        return name, ""
    last = name.strip().lstrip("-").replace("-", "_").lower()
    same = [field for field in fields() if field.rpartition(".")[2] == last]
    if len(same) == 1:
        return same[0], ""
    right, note = ALIASES.get(last, ("", ""))
    if right in fields():
        return right, f"{name}: here it is {right}" + (f" ({note})" if note else "")
    top = [field for field in fields() if "." not in field]
    answer = f"it is one of {', '.join(same)}" if same else suggest(name, top)
    raise UsageError(
        f"{name}: no such field; {answer}", code="no_such_field", hint="`ftq spec` prints all"
    )


def reference(width: int, name: str = "") -> str:
    """Return all fields, those of one section, or one field, as text of at most `width` columns."""
    field = fields().get(name)
    if field is not None and not section_of(field):
        return _one(name, field, width)
    prefix = f"{name}." if name else ""
    lines: list[str] = [f"{name}: {field.description}"] if field else []
    for inner, found in fields().items():
        if not inner.startswith(prefix):
            continue
        if section_of(found):
            lines += ["", f"{inner}: {found.description}"]
        else:
            lines += _one(inner, found, width).splitlines()
    return "\n".join(lines)


def _one(name: str, field: FieldInfo, width: int) -> str:
    default = "required" if field.is_required() else f"default {default_of(field)}"
    meaning = field.description or ""
    kind = describe(name).removesuffix(f" ({meaning})")
    words = "" if kind == meaning else kind
    lines = [f"{name}: {'; '.join(filter(None, (words, default)))}"]
    rows = [row for line in lines for row in textwrap.wrap(line, width, subsequent_indent="    ")]
    rows += textwrap.wrap(meaning, width, initial_indent="    ", subsequent_indent="    ")
    return "\n".join(rows)


def default_of(field: FieldInfo) -> str:
    """Return a field's default as YAML writes it."""
    words: dict[Any, str] = {None: "null", True: "true", False: "false"}
    value = field.get_default(call_default_factory=True)
    if value is None or isinstance(value, bool):
        return words[value]
    return str(value)


def template() -> str:
    """Return a spec to begin with: what may stay as it is, is a comment."""
    lines = [
        "# A job: ftq submit job.yaml",
        "# Every line that is a comment shows a default; take the # away to change it.",
    ]
    for name, field in fields().items():
        depth = "  " * name.count(".")
        key = name.rpartition(".")[2]
        if section_of(field):
            lines.append(f"{depth}{key}:")
        elif field.is_required():
            lines.append(f"{key}: {_EXAMPLES[name]}  # {field.description}")
        else:
            lines.append(f"{depth}# {key}: {default_of(field)}  # {field.description}")
    return "\n".join(lines)


def changed_fields(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a job's spec that differ from their defaults, by dotted name."""
    found: dict[str, Any] = {}
    for name, field in fields().items():
        value: Any = spec
        for part in name.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        default = None if field.is_required() else field.get_default(call_default_factory=True)
        if not section_of(field) and value is not None and value != default:
            found[name] = value
    return found
