"""From flags, files and answers to a spec and its secrets."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ftq_client.client import Client
from ftq_client.tokens import ask_token, find_token, secret_values, token_from_stdin
from ftq_shared.settings import Settings
from ftq_shared.sources import Place, parse_source
from ftq_shared.spec import JobSpec
from ftq_shared.spec_input import apply_sets, load_yaml, merge


def read_raw(
    client: Client,
    path: Path | None,
    from_job: str | None,
    flags: Mapping[str, str],
    sets: tuple[str, ...],
) -> dict[str, Any]:
    """Return the spec as plain data: another job's, then the file, then flags, then --set.

    Raises UsageError for a file or a --set that cannot be read.
    """
    raw: dict[str, Any] = {}
    if from_job:
        raw = json.loads(client.get(client.find(from_job)).spec_json)
    if path:
        raw = merge(raw, load_yaml(path))
    raw = merge(raw, nested(flags))
    return apply_sets(raw, sets)


def nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Turn dotted names into nested dictionaries."""
    result: dict[str, Any] = {}
    for name, value in flat.items():
        inner = result
        *outer, last = name.split(".")
        for part in outer:
            inner = inner.setdefault(part, {})
        inner[last] = value
    return result


def complete(raw: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """Ask for what is missing, each answer checked against the Hub."""
    if raw.get("model") and raw.get("dataset"):
        return raw
    from ftq_client.ask import ask_missing
    from ftq_client.lookup import HubLookup

    return ask_missing(raw, lookup=HubLookup(settings.hf_endpoint, find_token()))


def collect_secrets(
    spec: JobSpec,
    settings: Settings,
    names: tuple[str, ...],
    token_stdin: bool,
    *,
    asking: bool,
) -> dict[str, str]:
    """Return the secrets of a job by name; the Hub token is asked for only where it is needed.

    Raises UsageError for a secret that was promised and is not there.
    """
    secrets = secret_values(names)
    if token_stdin:
        return secrets | {"HF_TOKEN": token_from_stdin()}
    purpose = token_purpose(spec)
    token = find_token() if uses_hub(spec) else None
    if not token and purpose and asking:
        token = ask_token(purpose, settings.hf_endpoint)
    return secrets | ({"HF_TOKEN": token} if token else {})


def uses_hub(spec: JobSpec) -> bool:
    """Return whether any phase talks to the Hub, so that a token that is there should go along."""
    sources = (parse_source(spec.model, what="model"), parse_source(spec.dataset, what="dataset"))
    return bool(spec.publish.repo) or any(s.place is Place.HUB for s in sources)


def token_purpose(spec: JobSpec) -> str:
    """Return what a job cannot do without a token, '' when it can do all."""
    return f"write the model to {spec.publish.repo}" if spec.publish.repo else ""
