"""From flags, files and answers to a spec and its secrets.

A raw spec is what a person wrote, before anything of it is checked: any keys, any values. The whole
goes to `Client`.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ftq_client.submit.questions import Essentials, ask_missing
from ftq_client.submit.tokens import find_token, secret_values, token_from_stdin
from ftq_client.transfer.files import own_files_of
from ftq_shared.hub.refusals import Refusals
from ftq_shared.settings import Settings
from ftq_shared.sources import Place, parse_source
from ftq_shared.spec import JobSpec
from ftq_shared.spec_input import apply_sets, load_yaml, merge, nested, parse_spec

_ASKED = "asked/for"  # a well-formed Hub id, in the place of what will be asked for


def read_raw(
    path: Path | None,
    flags: Mapping[str, str],
    sets: tuple[str, ...],
    other: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the spec as plain data: another job's, then the file, then flags, then --set.

    Raises UsageError for a file or a --set that cannot be read.
    """
    file = load_yaml(path) if path else {}
    layers = (nested(name, value) for name, value in flags.items())
    return apply_sets(merge(other or {}, file, *layers), sets)


def refuse_bad(raw: Mapping[str, Any], *, may_lack: Iterable[str] = ()) -> None:
    """Raise UsageError for what is wrong with a raw spec, and for its files that are not here.

    Nothing is asked over a network. `may_lack` are fields that will be asked for.
    """
    lacking = {name for name in may_lack if not raw.get(name)}
    spec = parse_spec({**raw, **dict.fromkeys(lacking, _ASKED)})
    for name in {"model", "dataset"} - lacking:
        own_files_of(name, getattr(spec, name))


def complete(
    raw: dict[str, Any],
    settings: Settings,
    typed: Sequence[str] = (),
    show_rows: Callable[[Mapping[str, Any], str | None], None] | None = None,
) -> tuple[dict[str, Any], str | None]:
    """Ask for what is missing, each answer checked against the Hub; return spec and Hub token.

    A conversation that has begun ends with the whole and one confirmation; `typed` are the
    arguments of the command, `show_rows` shows what a raw spec would train on, with a Hub token.
    Raises click.Abort when it is not confirmed.
    """
    from rich.console import Console

    from ftq_client.submit.confirm import confirm
    from ftq_client.submit.hub_lookup import HubLookup
    from ftq_client.submit.own_columns import judged, lines
    from ftq_client.submit.own_rows import look_at

    console = Console(stderr=True)
    given = _essentials(raw)
    lookup = HubLookup(settings.hf_endpoint, find_token())
    asked = ask_missing(given, lookup=lookup, console=console)
    answers = {"model": asked.model, "dataset": asked.dataset, "publish.repo": asked.target}
    whole = merge(raw, *(nested(n, v) for n, v in answers.items() if v))
    if asked.model or asked.dataset:
        spec = parse_spec(whole)
        preview = partial(show_rows, whole, lookup.token) if show_rows else None
        notes = lines(judged(look_at(own_files_of("dataset", spec.dataset)), spec))
        confirm(spec, lookup.facts, asked, typed, console, list(notes), preview)
    return whole, lookup.token


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


def refuse_without_token(spec: JobSpec, secrets: Mapping[str, str], endpoint: str) -> None:
    """Raise Refused for a job that is to be published, when no token goes along."""
    if spec.publish.repo and "HF_TOKEN" not in secrets:
        raise Refusals(endpoint, has_token=False).no_token(spec.publish.repo)


def uses_hub(spec: JobSpec) -> bool:
    """Return whether any phase talks to the Hub, so that a token that is there should go along."""
    sources = (parse_source(spec.model, what="model"), parse_source(spec.dataset, what="dataset"))
    return bool(spec.publish.repo) or any(s.place is Place.HUB for s in sources)
