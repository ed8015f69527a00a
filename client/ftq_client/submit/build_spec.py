"""From flags, files and answers to a spec and its secrets.

A raw spec is what a person wrote, before anything of it is checked: any keys, any values.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ftq_client.client import Client
from ftq_client.submit.questions import Essentials, ask_missing
from ftq_client.submit.tokens import find_token, secret_values, token_from_stdin
from ftq_shared.settings import Settings
from ftq_shared.sources import Place, parse_source
from ftq_shared.spec import JobSpec
from ftq_shared.spec_input import apply_sets, load_yaml, merge, nested


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
    other = json.loads(client.get(client.find(from_job)).spec_json) if from_job else {}
    file = load_yaml(path) if path else {}
    return apply_sets(merge(other, file, *(nested(n, v) for n, v in flags.items())), sets)


def complete(raw: dict[str, Any], settings: Settings) -> tuple[dict[str, Any], str | None]:
    """Ask for what is missing, each answer checked against the Hub; return spec and Hub token."""
    from rich.console import Console

    from ftq_client.submit.hub_lookup import HubLookup

    lookup = HubLookup(settings.hf_endpoint, find_token())
    asked = ask_missing(_essentials(raw), lookup=lookup, console=Console(stderr=True))
    answers = {"model": asked.model, "dataset": asked.dataset, "publish.repo": asked.target}
    return merge(raw, *(nested(n, v) for n, v in answers.items() if v)), lookup.token


def _essentials(raw: Mapping[str, Any]) -> Essentials:
    """Return what a raw spec has of the fields that are asked for, right or wrong."""
    publish = raw.get("publish")
    target = publish.get("repo") if isinstance(publish, dict) else None
    return Essentials(*(str(v or "") for v in (raw.get("model"), raw.get("dataset"), target)))


def collect_secrets(
    spec: JobSpec,
    names: tuple[str, ...],
    token: str | None,
    *,
    from_stdin: bool,
    via_hub: bool = False,
) -> dict[str, str]:
    """Return the secrets of a job by name; a Hub token goes along only where the Hub is used.

    `via_hub`: the job's own files may travel through the Hub. Raises UsageError for a secret that
    was promised and is not there.
    """
    secrets = secret_values(names)
    if from_stdin:
        token = token_from_stdin()
    elif not token and (via_hub or uses_hub(spec)):
        token = find_token()
    return secrets | ({"HF_TOKEN": token} if token else {})


def uses_hub(spec: JobSpec) -> bool:
    """Return whether any phase talks to the Hub, so that a token that is there should go along."""
    sources = (parse_source(spec.model, what="model"), parse_source(spec.dataset, what="dataset"))
    return bool(spec.publish.repo) or any(s.place is Place.HUB for s in sources)
