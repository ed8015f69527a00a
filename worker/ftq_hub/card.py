"""README.md front matter: read for searches and infos, checked before and at a push."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import yaml

from ftq_hub.licenses import LICENSES

_EMPTY = "empty or missing yaml metadata in repo card"
_MAX_BYTES = 64 << 10
_REPO_ID = re.compile(r"\w[\w.-]{0,95}(/\w[\w.-]{0,95})?", re.ASCII)
_PATHS_OF_RESULTS = ("task.type", "dataset.name", "dataset.type")


class _Loader(yaml.SafeLoader):
    """Reads only what JSON can say: aliases of aliases would be gigabytes once written out."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise yaml.YAMLError("anchors and aliases are not taken here")
        return super().compose_node(parent, index)


# Dates stay text, as in JSON.
_Loader.yaml_implicit_resolvers = {
    letter: [(tag, pattern) for tag, pattern in rules if tag != "tag:yaml.org,2002:timestamp"]
    for letter, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


@dataclass
class CardCheck:
    """What /api/validate-yaml answers: errors refuse the push, warnings are shown."""

    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, list[dict[str, str]]]:
        return {
            "errors": [{"message": text} for text in self.errors],
            "warnings": [{"message": text} for text in self.warnings],
        }


def front_matter(text: str) -> str | None:
    """Return the YAML between the first two `---` lines, None when there is none."""
    lines = text.lstrip("\ufeff \r\n").splitlines()
    if not lines or lines[0].strip() != "---":
        return None
    ends = [index for index, line in enumerate(lines[1:], 1) if line.strip() == "---"]
    return "\n".join(lines[1 : ends[0]]) if ends else None


def _parse(matter: str) -> object:
    """Return front matter as plain data; raises ValueError with what is wrong with it."""
    if len(matter.encode("utf-8", "replace")) > _MAX_BYTES:
        raise ValueError(f"the metadata is larger than {_MAX_BYTES >> 10} KiB")
    try:
        # A SafeLoader: it makes nothing but plain values.
        return _plain(yaml.load(matter, _Loader))  # noqa: S506
    except RecursionError as error:
        raise ValueError("the metadata is nested too deeply") from error
    # The constructors raise what they meet: an odd key, a number of 5,000 digits, bad base64.
    except (yaml.YAMLError, ValueError, TypeError, LookupError, OverflowError) as error:
        raise ValueError(f"Invalid YAML: {error}") from error


def _plain(value: object) -> object:
    """Return a value as JSON can hold it."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if value is None or isinstance(value, str | int | float) else str(value)


def card_data(text: str) -> dict[str, object]:
    """Return the front matter as an object; empty when it is missing or broken."""
    try:
        data = _parse(front_matter(text) or "")
    except ValueError:
        return {}
    return data if isinstance(data, dict) else {}


def body(text: str) -> str:
    """Return a README without its front matter."""
    matter = front_matter(text)
    if matter is None:
        return text
    return text.split("---", 2)[-1].lstrip("\n")


def check_card(text: str) -> CardCheck:
    """Check what the Hub checks and a client can get wrong."""
    matter = front_matter(text)
    if not (matter or "").strip():
        return CardCheck(warnings=[_EMPTY])
    try:
        data = _parse(matter or "")
    except ValueError as error:
        return CardCheck(errors=[str(error)])
    if not isinstance(data, dict):
        return CardCheck(errors=["The metadata must be a mapping"])
    errors = [*_type_errors(data), *_license_errors(data), *_id_errors(data)]
    errors += _config_errors(data.get("configs", []))
    return CardCheck(errors=errors + _result_errors(data.get("model-index", [])))


def _type_errors(data: Mapping[str, object]) -> list[str]:
    errors = []
    for key in ("language", "tags", "datasets", "base_model"):
        value = data.get(key)
        items = value if isinstance(value, list) else [value]
        if value is not None and not all(isinstance(item, str) for item in items):
            errors.append(f'"{key}" must be a string or a list of strings')
    one = ("library_name", "pipeline_tag", "license_name", "license_link", "model_name")
    errors += [f'"{key}" must be a string' for key in one if not isinstance(data.get(key, ""), str)]
    return errors


def _license_errors(data: Mapping[str, object]) -> list[str]:
    value = data.get("license", [])
    names = {"license": value}
    if isinstance(value, list):
        names = {f"license[{number}]": one for number, one in enumerate(value)}
    allowed = ", ".join([*LICENSES, "array"])
    return [
        f'"{name}" must be one of [{allowed}]' for name, one in names.items() if one not in LICENSES
    ]


def _id_errors(data: Mapping[str, object]) -> list[str]:
    return [
        f'"{key}" with value "{one}" is not valid. Use a {kind} id from the Hub.'
        for key, kind in (("base_model", "model"), ("datasets", "dataset"))
        for one in _strings(data.get(key))
        if not _REPO_ID.fullmatch(one)
    ]


def _config_errors(configs: object) -> list[str]:
    if not isinstance(configs, list):
        return ['"configs" must be a list']
    errors = []
    for index, config in enumerate(configs):
        if not isinstance(config, dict) or not isinstance(config.get("config_name"), str):
            errors.append(f'"configs[{index}].config_name" is required')
    return errors


def _result_errors(index: object) -> list[str]:
    """Check the evaluation results: each says what was measured on what, and how much."""
    if not isinstance(index, list):
        return ['"model-index" must be an array']
    errors = []
    for m, model in enumerate(index):
        where = f"model-index[{m}]"
        errors += [f'"{where}.name" is required'] if not _at(model, "name") else []
        results = _at(model, "results")
        for r, result in enumerate(results if isinstance(results, list) else [None]):
            here = f"{where}.results[{r}]"
            missing = [path for path in _PATHS_OF_RESULTS if not _at(result, path)]
            errors += [f'"{here}.{path}" is required' for path in missing]
            metrics = _at(result, "metrics")
            if not isinstance(metrics, list) or not all(_is_metric(one) for one in metrics):
                errors.append(f'"{here}.metrics" must be an array of types with values')
    return errors


def _is_metric(value: object) -> bool:
    return isinstance(_at(value, "type"), str) and _at(value, "value") is not None


def _at(value: object, path: str) -> object:
    """Return what lies at a dotted path of nested objects, None for nothing."""
    for key in path.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    return value


def card_tags(data: Mapping[str, object]) -> list[str]:
    """Return the tags the Hub derives from a card: its own, licence, base model, datasets."""
    tags = _strings(data.get("tags"))
    for key in ("license", "language", "dataset", "base_model"):
        source = "datasets" if key == "dataset" else key
        tags += [f"{key}:{value}" for value in _strings(data.get(source))]
    for key in ("library_name", "pipeline_tag"):
        tags += _strings(data.get(key))
    return list(dict.fromkeys(tags))


def _strings(value: object) -> list[str]:
    items = value if isinstance(value, list) else [value]
    return [item for item in items if isinstance(item, str)]
