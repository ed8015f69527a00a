"""README.md front matter: read for searches and infos, checked before a push."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import yaml

_EMPTY = "empty or missing yaml metadata in repo card"


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
    lines = text.lstrip("\ufeff").splitlines()
    if not lines or lines[0].strip() != "---":
        return None
    ends = [index for index, line in enumerate(lines[1:], 1) if line.strip() == "---"]
    return "\n".join(lines[1 : ends[0]]) if ends else None


def card_data(text: str) -> dict[str, object]:
    """Return the front matter as an object; empty when it is missing or broken."""
    try:
        data = yaml.safe_load(front_matter(text) or "")
    except yaml.YAMLError:
        return {}
    return data if isinstance(data, dict) else {}


def body(text: str) -> str:
    """Return a README without its front matter."""
    matter = front_matter(text)
    if matter is None:
        return text
    return text.split("---", 2)[-1].lstrip("\n")


def check_card(text: str) -> CardCheck:
    """Check what the Hub checks and a client can get wrong: YAML, types, dataset configs."""
    matter = front_matter(text)
    if not (matter or "").strip():
        return CardCheck(warnings=[_EMPTY])
    try:
        data = yaml.safe_load(matter or "")
    except yaml.YAMLError as error:
        return CardCheck(errors=[f"Invalid YAML: {error}"])
    if not isinstance(data, dict):
        return CardCheck(errors=["The metadata must be a mapping"])
    return CardCheck(errors=_type_errors(data) + _config_errors(data.get("configs", [])))


def _type_errors(data: Mapping[str, object]) -> list[str]:
    errors = []
    for key in ("license", "language", "tags", "datasets", "base_model"):
        value = data.get(key)
        items = value if isinstance(value, list) else [value]
        if value is not None and not all(isinstance(item, str) for item in items):
            errors.append(f'"{key}" must be a string or a list of strings')
    return errors


def _config_errors(configs: object) -> list[str]:
    if not isinstance(configs, list):
        return ['"configs" must be a list']
    errors = []
    for index, config in enumerate(configs):
        if not isinstance(config, dict) or not isinstance(config.get("config_name"), str):
            errors.append(f'"configs[{index}].config_name" is required')
    return errors


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
