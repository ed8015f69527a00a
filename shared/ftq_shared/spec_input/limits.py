"""How large and how deep a raw spec may be, and what its values may be: asked before all else."""

from collections.abc import Iterator, Mapping
from typing import Any

from ftq_shared.errors import UsageError

FILE_MAX = 1 << 20  # bytes of a spec file
VALUES_MAX = 20_000  # an alias of YAML counts wherever it stands
DEPTH_MAX = 40
KEY_PARTS_MAX = 16  # of a dotted key
INT_DIGITS_MAX = 40


def refuse_unbounded(raw: Any) -> None:
    """Raise UsageError for what is too large, too deep, or no value that JSON has."""
    for name, problem in _problems(raw):
        raise UsageError(
            f"{name[:200] or 'the spec'}: {problem}",
            code="bad_spec",
            hint="a spec holds text, numbers, true and false, lists and mappings; "
            "`ftq spec` prints what each field takes",
            field=name[:200],
        )


def _problems(raw: Any) -> Iterator[tuple[str, str]]:
    """Yield dotted names with what is wrong; a mapping that holds itself is too deep."""
    waiting: list[tuple[str, Any, int]] = [("", raw, 0)]
    seen = 0
    while waiting:
        name, value, depth = waiting.pop()
        seen += 1
        if seen > VALUES_MAX:
            yield "", f"holds more than {VALUES_MAX:,} values"
        if depth > DEPTH_MAX:
            yield name, f"is nested more than {DEPTH_MAX} deep"
        if isinstance(value, Mapping):
            for key, inner in value.items():
                if problem := _key_problem(key):
                    yield name, problem
                waiting.append((f"{name}.{key}" if name else str(key), inner, depth + 1))
        elif isinstance(value, list | tuple):
            waiting += [(f"{name}[{n}]", inner, depth + 1) for n, inner in enumerate(value)]
        elif problem := _value_problem(value):
            yield name, problem


def _key_problem(key: Any) -> str:
    if not isinstance(key, str | int | float | bool | None):
        return f"has a {type(key).__name__} as a key; write text"
    if str(key).count(".") >= KEY_PARTS_MAX:
        return f"has a key of more than {KEY_PARTS_MAX} parts"
    return _value_problem(key)


def _value_problem(value: Any) -> str:
    if isinstance(value, str):
        return "" if _encodes(value) else "holds half a character (a lone surrogate)"
    if isinstance(value, bool | float | None):
        return ""
    if isinstance(value, int):
        return "" if abs(value) < 10**INT_DIGITS_MAX else "is a number of too many digits"
    return f"is a {type(value).__name__}, which a spec cannot hold"


def _encodes(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
