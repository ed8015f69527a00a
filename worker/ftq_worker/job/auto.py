"""What `auto` comes to: each rule gives a value with its reason, and carries its own words.

The reason of one job's value is shown, stored and emitted with it. The words of the rule stand in
docs/spec.md, which `scripts/docs.py` fills from here.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

Value = TypeVar("Value")
Rule = TypeVar("Rule", bound=Callable[..., Any])


@dataclass(frozen=True)
class Resolved(Generic[Value]):
    """The value of a field that was `auto`, and why it is this one."""

    value: Value
    reason: str


WORDS: dict[str, str] = {}  # the rule in words, by dotted field of the spec


def auto_rule(field: str, words: str) -> Callable[[Rule], Rule]:
    """Say beside the function or class that resolves `field` what `auto` comes to there."""
    WORDS[field] = words
    return lambda rule: rule
