"""From a raw mapping to a `JobSpec`, with everything that is wrong found in one go."""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from ftq_shared.errors import UsageError
from ftq_shared.lifetimes import SPEC_MAX_BYTES
from ftq_shared.redaction import Redactor, escape_control
from ftq_shared.spec import JobSpec
from ftq_shared.spec_input import aliases, checks
from ftq_shared.spec_input.dotted_fields import accepts, describe, fields, section_of
from ftq_shared.spec_input.layers import Raw, merge, nested
from ftq_shared.spec_input.limits import refuse_unbounded

MANY = 100  # unknown keys that are told

_REQUIRED = {
    "model": "what to fine-tune: a Hub id such as Qwen/Qwen3-0.6B, or a folder",
    "dataset": "what to train on: a Hub id such as openai/gsm8k:main, or a file (./a.jsonl)",
}
# Answers for values that other tools allow.
_VALUES = {
    ("report_to", "tensorboard"): "its files are always written; leave it out",
    ("report_to", "none"): "write [] or leave it out",
    ("report_to", "all"): "name them: a list of wandb, trackio, mlflow",
    ("data.select", None): "choosing a subset is not offered by this version; leave it out",
}


@dataclass(frozen=True)
class SpecProblem:
    """One thing that is wrong with a spec."""

    field: str  # dotted name, as it was written
    text: str  # what was found, and what is right

    def __str__(self) -> str:
        return f"{self.field}: {self.text}"


def parse_spec(raw: Mapping[str, Any]) -> JobSpec:
    """Return the checked spec.

    Raises UsageError (code `bad_spec`) whose message has one line for every problem: unknown
    keys with their right names, bad values with what is allowed, what is missing, what does not
    fit together.
    """
    spec, found = examine(raw)
    if found:
        raise UsageError(
            "\n".join(map(str, found)),
            code="bad_spec",
            hint="nothing was submitted; `ftq spec` prints every key",
            field=", ".join(dict.fromkeys(problem.field for problem in found)),
        )
    return spec


def examine(raw: Mapping[str, Any]) -> tuple[JobSpec, list[SpecProblem]]:
    """Return the spec with its bad values left out, and everything that is wrong with it.

    Raises UsageError for what is too large or too deep to be looked at.
    """
    refuse_unbounded(raw)
    clean = _expand(raw)
    found = _first(_unknown(clean, JobSpec, ""))
    found += _missing(clean)
    spec, bad = _validate(clean)
    found += bad
    broken = {problem.field for problem in found}
    for name, text in checks.check(spec):
        if name not in broken:
            found.append(SpecProblem(name, text))
    if not found and (size := len(spec.canonical().encode())) > SPEC_MAX_BYTES:
        text = f"{size >> 10} KiB with all defaults filled in; at most {SPEC_MAX_BYTES >> 10} are"
        found.append(SpecProblem("spec", f"{text} taken"))
    return spec, found


def _first(problems: Iterator[SpecProblem]) -> list[SpecProblem]:
    """Return the problems; raises UsageError for very many: each costs a search for its name."""
    found = list(itertools.islice(problems, MANY))
    if len(found) < MANY:
        return found
    raise UsageError(
        "\n".join(map(str, found)),
        code="bad_spec",
        hint=f"these are the first {MANY} unknown keys; `ftq spec` prints every key",
        field=found[0].field,
    )


def _expand(raw: Mapping[str, Any]) -> Raw:
    """Copy the raw spec: `train.epochs: 2` becomes nested, an empty section goes."""
    layers: list[Raw] = []
    for key, value in raw.items():
        name = str(key)
        section = name.partition(".")[0] if "." in name else ""
        layers.append(nested(name, value) if section in JobSpec.model_fields else {name: value})
    flat = merge(*layers)
    return {key: value for key, value in flat.items() if not _empty_section(key, value)}


def _empty_section(name: str, value: Any) -> bool:
    field = fields().get(name)
    return value is None and field is not None and section_of(field) is not None


def _unknown(raw: Raw, model: type[BaseModel], prefix: str) -> Iterator[SpecProblem]:
    """Yield a problem for every unknown key and take it out of `raw`."""
    for key in list(raw):
        field = model.model_fields.get(key) if isinstance(key, str) else None
        section = field and section_of(field)
        if field is None:
            yield from _strangers(f"{prefix}{key}", raw.pop(key), list(model.model_fields))
        elif section and isinstance(raw[key], dict):
            for name, value in list(raw[key].items()):
                if _empty_section(f"{prefix}{key}.{name}", value):
                    del raw[key][name]
            yield from _unknown(raw[key], section, f"{prefix}{key}.")


def _strangers(name: str, value: Any, allowed: list[str]) -> Iterator[SpecProblem]:
    """Yield what to write instead of an unknown key, or of the keys in an unknown section."""
    answer = aliases.suggest(name, allowed)
    if isinstance(value, dict) and value and answer.startswith("allowed here"):
        for key, inner in value.items():
            yield from _strangers(f"{name}.{key}", inner, allowed)
    else:
        yield SpecProblem(escape_control(name, keep_newlines=False), f"no such key; {answer}")


def _missing(raw: Raw) -> Iterator[SpecProblem]:
    """Yield what is not there, and put a placeholder so that the rest can be checked."""
    for name, meaning in _REQUIRED.items():
        if raw.get(name) in (None, ""):
            raw[name] = "missing/missing"
            yield SpecProblem(name, f"missing; {meaning}")


def _validate(raw: Raw) -> tuple[JobSpec, list[SpecProblem]]:
    """Return the spec without its bad values, and a problem for each of those."""
    found = {name: SpecProblem(name, text) for name, text in _not_bool(raw, "")}
    for name in found:
        _drop(raw, name)
    while True:
        try:
            return JobSpec.model_validate(raw), list(found.values())
        except ValidationError as error:
            for item in error.errors():
                name = _field_of(item["loc"])
                found[name] = SpecProblem(name, _bad_value(name, raw, item))
            for name in {_field_of(item["loc"]) for item in error.errors()}:
                _drop(raw, name)


def _not_bool(raw: Raw, prefix: str) -> Iterator[tuple[str, str]]:
    """Yield every true or false that stands for a number: pydantic would read true as 1."""
    for key, value in raw.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict) and name != "train.args":
            yield from _not_bool(value, name + ".")
        elif isinstance(value, bool) and name in fields() and not accepts(name, bool):
            yield name, f"{show(value)} is not allowed; write {describe(name)}"


def _field_of(loc: tuple[int | str, ...]) -> str:
    """Return the dotted name of the field; the rest of pydantic's path names union members."""
    name = ""
    for part in loc:
        longer = f"{name}.{part}" if name else str(part)
        if longer not in fields():
            break
        name = longer
    return name


def _bad_value(name: str, raw: Raw, item: ErrorDetails) -> str:
    value = _get(raw, name)
    for key in ((name, None), (name, str(item["input"])), (name, str(value))):
        if key in _VALUES:
            return f"{show(value)} is not allowed; {_VALUES[key]}"
    if item["type"] == "value_error":
        return str(item["ctx"]["error"])
    return f"{show(value)} is not allowed; write {describe(name)}"


def show(value: Any) -> str:
    """Return a value as a person would recognise it: short, printable, no secret in it."""
    words = {None: "null", True: "true", False: "false"}
    if value is None or isinstance(value, bool):
        return words[value]
    text = escape_control(Redactor().text(str(value)), keep_newlines=False)
    text = text if len(text) <= 60 else text[:57] + "..."
    return f"{text!r}" if isinstance(value, str) else text


def _get(raw: Raw, name: str) -> Any:
    value: Any = raw
    for part in name.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def _drop(raw: Raw, name: str) -> None:
    *sections, last = name.split(".")
    for part in sections:
        raw = raw[part]
    if name in _REQUIRED:
        raw[name] = "missing/missing"
    else:
        raw.pop(last, None)
