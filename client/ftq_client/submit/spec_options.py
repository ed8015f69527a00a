"""The answer to what is typed in the place of a spec's fields: --lr 1e-4, or a model by itself."""

import shlex
from collections.abc import Sequence

import click


def instead_of(error: click.UsageError, arguments: Sequence[str]) -> str:
    """Say what to type instead, '' where nothing of the spec is meant."""
    command = error.ctx.info_name if error.ctx else ""
    if isinstance(error, click.NoSuchOption):
        return _instead_of_option(error, command, arguments)
    if command in ("submit", "preview") and "unexpected extra argument" in error.message:
        return f"{error.message}; a model is given as --model, data as --dataset"
    return ""


def _instead_of_option(
    error: click.NoSuchOption, command: str | None, arguments: Sequence[str]
) -> str:
    """Say what to type instead of an option that names a field of the spec; '' for others."""
    from ftq_shared.spec_input.aliases import ALIASES
    from ftq_shared.spec_input.dotted_fields import accepts, leaves

    name = error.option_name.lstrip("-").replace("-", "_").lower()
    if command not in ("submit", "preview", "retry") or not error.option_name.startswith("--"):
        return ""
    own = [field for field in leaves() if name in (field, field.rpartition(".")[2])]
    right, note = (own[0], "") if own else ALIASES.get(name, ("", ""))
    if not right:
        return f"{error.option_name}: {note}" if note else ""
    value = _value_of(error.option_name, arguments)
    if not value:
        value = "true" if right in leaves() and accepts(right, bool) else "VALUE"
    more = f" ({note})" if note else ""
    return (
        f"{error.option_name} is no option but a field of the spec: "
        f"--set {right}={shlex.quote(value)}{more}"
    )


def _value_of(option: str, arguments: Sequence[str]) -> str:
    """Return what was typed as the option's value, '' for none."""
    for at, argument in enumerate(arguments):
        if argument.startswith(f"{option}="):
            return argument.partition("=")[2]
        if argument == option:
            following = arguments[at + 1 : at + 2]
            return "" if not following or following[0].startswith("--") else following[0]
    return ""
