"""Which chat template a job uses: the spec's text, one of the model's by name, or its only one."""

import json
from collections.abc import Mapping
from pathlib import Path

from ftq_shared.errors import Refused

_SHOWN = 60  # characters of what was given


def template_beside(folder: Path) -> str | None:
    """Return the template of a chat_template.json: transformers reads it for processors alone."""
    path = folder / "chat_template.json"
    text = json.loads(path.read_bytes()).get("chat_template") if path.is_file() else None
    return text if isinstance(text, str) else None


def chosen_template(known: str | Mapping[str, str] | None, asked: str | None) -> str | None:
    """Return the text of the template, None where there is none.

    `known` is the tokenizer's template, or its templates by name; `asked` is data.chat_template.
    Raises Refused: `chat_template` for what is neither a template nor a name of one,
    `several_templates` where one of several has to be named.
    """
    named = dict(known) if isinstance(known, Mapping) else {}
    names = ", ".join(sorted(named))
    if asked is None:
        if not named:
            return known if isinstance(known, str) else None
        if "default" in named:
            return named["default"]
        raise Refused(
            f"the model has several chat templates and none is its default: {names}",
            code="several_templates",
            hint=f"--set data.chat_template={min(named)}",
            field="data.chat_template",
        )
    if asked in named:
        return named[asked]
    if "{{" not in asked and "{%" not in asked:
        raise _no_template(asked, names)
    _check_syntax(asked)
    return asked


def _no_template(asked: str, names: str) -> Refused:
    shown = asked if len(asked) <= _SHOWN else asked[:_SHOWN] + "..."
    has = f"; by name, the model has {names}" if names else ""
    if "/" in asked or asked.endswith((".jinja", ".j2", ".txt")):
        hint = f'give the text of the file: --set data.chat_template="$(cat {asked})"'
    elif names:
        hint = f"--set data.chat_template={names.split(', ')[0]}"
    else:
        hint = "--set data.chat_template=null for the model's own, or --set data.format=plain"
    return Refused(
        f"data.chat_template is {shown!r}, which is no Jinja template: it has neither {{{{ nor "
        f"{{%{has}",
        code="chat_template",
        hint=hint,
        field="data.chat_template",
    )


def _check_syntax(template: str) -> None:
    # Only where a spec gives a template: jinja2 comes with the training stack.
    from jinja2 import TemplateSyntaxError
    from transformers.utils.chat_template_utils import _compile_jinja_template

    try:
        _compile_jinja_template(template)
    except TemplateSyntaxError as error:
        raise Refused(
            f"data.chat_template cannot be read: line {error.lineno}: {error.message}",
            code="chat_template",
            hint="mend the template, or leave it out for the model's own",
            field="data.chat_template",
        ) from error
